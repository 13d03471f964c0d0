//! Frames as the generator writes and reads them: handshakes through the broker's codec, PUBLISH from a prebuilt image that
//! is patched in place, and a reader that looks at no more than it must.
//!
//! Every payload begins with a stamp of [`STAMP_BYTES`]: magic `u32`, publisher `u32`, sequence `u64`, intended time of
//! sending `u64` in nanoseconds since the run began; all little-endian.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::encode;
use bifro_mqtt::packet::{
    Connect, Disconnect, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscribeFilters,
};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;

/// Bytes of the stamp; no payload is smaller.
pub const STAMP_BYTES: usize = 24;

/// What a stamp begins with, so that a foreign message is not taken for ours.
const MAGIC: u32 = 0x6249_6672;

/// Receive Maximum the generator announces.
pub const RECEIVE_MAXIMUM: u16 = u16::MAX;

/// What a client says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of the protocol.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Clean Session, or Clean Start with an expiry of zero; otherwise the session is kept for an hour.
    pub clean: bool,
    /// Keep-alive in seconds.
    pub keep_alive_s: u16,
    /// User name and password.
    pub credentials: Option<(String, String)>,
}

/// Appends the CONNECT of `identity`.
pub fn put_connect(identity: &Identity, out: &mut Vec<u8>) {
    let mut block = Vec::new();
    if identity.version == Version::V5 {
        let mut writer = PropertyWriter::new(&mut block);
        writer.u16(PropertyId::ReceiveMaximum, RECEIVE_MAXIMUM);
        if !identity.clean {
            writer.u32(PropertyId::SessionExpiryInterval, 3600);
        }
    }
    let connect = Connect {
        version: identity.version,
        bridge: false,
        clean_start: identity.clean,
        keep_alive: identity.keep_alive_s,
        properties: Properties::new(&block),
        client_id: &identity.client_id,
        will: None,
        username: identity.credentials.as_ref().map(|(name, _)| name.as_str()),
        password: identity.credentials.as_ref().map(|(_, password)| password.as_bytes()),
    };
    encode(&Packet::Connect(connect), identity.version, out);
}

/// Appends a SUBSCRIBE to `filters`, with packet identifier 1.
pub fn put_subscribe(version: Version, filters: &[String], qos: QoS, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    let entries = filters.iter().map(|filter| SubscribeFilter {
        filter,
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    });
    let filters = SubscribeFilters::encode(entries, &mut scratch);
    let packet = Subscribe { packet_id: PacketId::MIN, properties: Properties::new(&[]), filters };
    encode(&Packet::Subscribe(packet), version, out);
}

/// Appends a DISCONNECT.
pub fn put_disconnect(version: Version, out: &mut Vec<u8>) {
    let packet = Disconnect { reason: Reason::SUCCESS, properties: Properties::new(&[]) };
    encode(&Packet::Disconnect(packet), version, out);
}

/// A PINGREQ.
pub const PING_REQUEST: [u8; 2] = [0xC0, 0];

/// The stamp of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the publisher in the plan.
    pub publisher: u32,
    /// Its messages are numbered from zero.
    pub sequence: u64,
    /// When it was meant to be sent, in nanoseconds since the run began.
    pub intended_ns: u64,
}

impl Stamp {
    /// Reads the stamp at the beginning of a payload; none if it is not ours.
    #[inline]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes([stamp[at], stamp[at + 1], stamp[at + 2], stamp[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        (word(0) == MAGIC).then(|| Self { publisher: word(4), sequence: long(8), intended_ns: long(16) })
    }
}

/// The image of one publisher's PUBLISH.
#[derive(Clone, Debug)]
pub struct PublishImage {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
    stamp_at: usize,
}

impl PublishImage {
    /// The PUBLISH of `publisher` to `topic` with `payload_bytes` (at least [`STAMP_BYTES`]) of payload.
    pub fn new(version: Version, topic: &str, qos: QoS, retain: bool, payload_bytes: usize, publisher: u32) -> Self {
        let payload_bytes = payload_bytes.max(STAMP_BYTES);
        let mut payload = vec![b'.'; payload_bytes];
        payload[..4].copy_from_slice(&MAGIC.to_le_bytes());
        payload[4..8].copy_from_slice(&publisher.to_le_bytes());
        let packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let properties = PublishProperties::default();
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload: &payload };
        let mut bytes = Vec::new();
        encode(&Packet::Publish(publish), version, &mut bytes);
        let stamp_at = bytes.len() - payload_bytes;
        // An empty block of properties is one byte between the identifier and the payload.
        let properties_bytes = usize::from(version == Version::V5);
        let packet_id_at = packet_id.map(|_| stamp_at - properties_bytes - 2);
        Self { bytes, packet_id_at, stamp_at }
    }

    /// Bytes of one frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends the frame of message `sequence`.
    #[inline]
    pub fn put(&self, sequence: u64, intended_ns: u64, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[at..];
        if let Some(id_at) = self.packet_id_at {
            frame[id_at..id_at + 2].copy_from_slice(&packet_id(sequence).to_be_bytes());
        }
        frame[self.stamp_at + 8..self.stamp_at + 16].copy_from_slice(&sequence.to_le_bytes());
        frame[self.stamp_at + 16..self.stamp_at + 24].copy_from_slice(&intended_ns.to_le_bytes());
    }
}

/// The packet identifier of message `sequence`: 1 to 65,535, in turn.
#[inline]
pub const fn packet_id(sequence: u64) -> u16 {
    (sequence % 65_535) as u16 + 1
}

/// A frame in a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// First byte: type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Bytes of the whole frame.
    pub len: usize,
}

/// The frame at the beginning of `bytes`; none if it is not complete.
///
/// # Errors
/// The bytes needed, if the length field is longer than four bytes (the peer does not speak MQTT).
#[inline]
pub fn next_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, MalformedLength> {
    let (mut length, mut shift, mut at) = (0usize, 0, 1);
    loop {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        length |= usize::from(byte & 0x7F) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(MalformedLength);
        }
    }
    let len = at + length;
    Ok(bytes.get(at..len).map(|body| Frame { first: bytes[0], body, len }))
}

/// A length field of more than four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent a length field of more than four bytes")]
pub struct MalformedLength;

/// Packet identifier and payload of a PUBLISH.
#[inline]
pub fn split_publish(version: Version, first: u8, body: &[u8]) -> Option<(u16, &[u8])> {
    let topic_bytes = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let mut rest = body.get(2 + topic_bytes..)?;
    let mut id = 0;
    if first & 0b110 != 0 {
        id = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        rest = &rest[2..];
    }
    if version == Version::V5 {
        let (mut length, mut shift, mut at) = (0usize, 0, 0);
        loop {
            let byte = *rest.get(at)?;
            length |= usize::from(byte & 0x7F) << shift;
            at += 1;
            shift += 7;
            if byte & 0x80 == 0 || shift > 21 {
                break;
            }
        }
        rest = rest.get(at + length..)?;
    }
    Some((id, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_mqtt::codec::{DecodeOptions, decode};

    #[test]
    fn a_patched_frame_is_what_the_codec_reads() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let image = PublishImage::new(version, "a/b", qos, false, 100, 7);
                let mut bytes = Vec::new();
                image.put(65_536, 42, &mut bytes);
                let options = DecodeOptions { version: Some(version), packet_bytes_max: u32::MAX };
                let (packet, used) = decode(&bytes, &options).expect("valid").expect("complete");
                let Packet::Publish(publish) = packet else { panic!("a PUBLISH") };
                assert_eq!(used, bytes.len());
                assert_eq!(publish.payload.len(), 100);
                assert_eq!(publish.packet_id.map(PacketId::get), (qos != QoS::AtMostOnce).then_some(2));
                let stamp = Stamp { publisher: 7, sequence: 65_536, intended_ns: 42 };
                assert_eq!(Stamp::read(publish.payload), Some(stamp));
                let frame = next_frame(&bytes).expect("valid").expect("complete");
                let (_, payload) = split_publish(version, frame.first, frame.body).expect("a PUBLISH");
                assert_eq!(payload, publish.payload);
            }
        }
    }

    #[test]
    fn an_incomplete_frame_waits_and_a_long_length_is_refused() {
        assert_eq!(next_frame(&[0x30]), Ok(None));
        assert_eq!(next_frame(&[0x30, 5, 1, 2]), Ok(None));
        assert_eq!(next_frame(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]), Err(MalformedLength));
        let frame = next_frame(&[0x40, 2, 0, 1, 9]).expect("valid").expect("complete");
        assert_eq!((frame.first, frame.body, frame.len), (0x40, &[0, 1][..], 4));
    }

    #[test]
    fn a_foreign_payload_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; 64]), None);
        assert_eq!(Stamp::read(&[1; 5]), None);
    }
}
