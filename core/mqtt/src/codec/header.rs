//! The fixed header, section 2.2 of 3.1.1 and 2.1 of 5.0: packet type, flags and Remaining Length.

use super::reader::varint;
use super::{DecodeError, DecodeOptions};
use bifro_core::client::Version;

/// Types of control packets; the number is the upper half of a packet's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

/// DUP in the first byte of a PUBLISH; in 3.1 also of PUBREL, SUBSCRIBE and UNSUBSCRIBE.
pub(crate) const DUP: u8 = 0b1000;

/// RETAIN in the first byte of a PUBLISH.
pub(crate) const RETAIN: u8 = 0b0001;

impl PacketType {
    /// The type in the upper half of a packet's first byte; 0 is reserved.
    #[inline]
    const fn from_first_byte(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The flags that packets of this type other than PUBLISH carry [MQTT-2.2.2-1] [MQTT5-2.1.3-1].
    #[inline]
    const fn reserved_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The first byte of a packet of this type other than PUBLISH.
    pub(crate) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }
}

/// What the first byte of a packet says.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstByte {
    pub(super) packet_type: PacketType,
    pub(super) flags: u8,
}

impl FirstByte {
    /// Reads the byte and refuses what can be refused before anything else of the packet has arrived.
    #[inline]
    pub(super) fn decode(first: u8, version: Option<Version>) -> Result<Self, DecodeError> {
        let packet_type = PacketType::from_first_byte(first).ok_or(DecodeError::PacketTypeReserved)?;
        match version {
            // [MQTT-3.1.0-1] [MQTT5-3.1.0-1]
            None if packet_type != PacketType::Connect => return Err(DecodeError::NotConnect),
            // Type 15 is AUTH since MQTT 5, and was reserved before.
            Some(Version::V31 | Version::V311) if packet_type == PacketType::Auth => {
                return Err(DecodeError::PacketTypeReserved);
            }
            _ => {}
        }
        let byte = Self { packet_type, flags: first & 0x0F };
        if packet_type == PacketType::Publish {
            byte.check_publish(version)?
        } else {
            byte.check_reserved(version)?
        }
        Ok(byte)
    }

    #[inline]
    fn check_publish(self, version: Option<Version>) -> Result<(), DecodeError> {
        match self.flags >> 1 & 3 {
            // [MQTT-3.3.1-4] [MQTT5-3.3.1-4]
            3 => Err(DecodeError::QosReserved),
            // [MQTT-3.3.1-2] [MQTT5-3.3.1-2]; MQTT 3.1 has no such rule.
            0 if self.flags & DUP != 0 && version != Some(Version::V31) => Err(DecodeError::DupWithoutQos),
            _ => Ok(()),
        }
    }

    #[inline]
    fn check_reserved(self, version: Option<Version>) -> Result<(), DecodeError> {
        let expected = self.packet_type.reserved_flags();
        // MQTT 3.1 sends these three with QoS 1 and sets DUP when it sends them again.
        let ignored = if version == Some(Version::V31) && expected != 0 { DUP } else { 0 };
        // [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
        // [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1]
        if self.flags & !ignored == expected { Ok(()) } else { Err(DecodeError::FlagsReserved) }
    }
}

/// Lengths that the fixed header gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    /// Bytes of the fixed header.
    pub(super) header: usize,
    /// Bytes of the packet, fixed header included.
    pub(super) packet: usize,
}

/// Reads Remaining Length, and refuses a packet that is too large before any of its body is there.
#[inline]
pub(super) fn lengths(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<Lengths>, DecodeError> {
    let Some((remaining, count)) = bytes.get(1..).map_or(Ok(None), varint)? else { return Ok(None) };
    let header = 1 + count;
    let packet = header + remaining as usize;
    if packet > packet_bytes_max as usize {
        return Err(DecodeError::PacketTooLarge);
    }
    Ok(Some(Lengths { header, packet }))
}

/// Length of the packet that starts with `bytes`, fixed header included, or none if its header is not complete. For
/// sizing the buffer in which a packet is put together; [`super::decode`] checks the same, so call it first.
///
/// # Errors
/// [`DecodeError::PacketTooLarge`] above `packet_bytes_max`; a Remaining Length that is too long or not minimal.
pub fn packet_len(bytes: &[u8], packet_bytes_max: u32) -> Result<Option<usize>, DecodeError> {
    Ok(lengths(bytes, packet_bytes_max)?.map(|lengths| lengths.packet))
}

/// What [`super::decode`] looks at first: the first byte, then the lengths. None if more bytes are needed.
#[inline]
pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Option<(FirstByte, Lengths)>, DecodeError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let first = FirstByte::decode(first, options.version)?;
    Ok(lengths(bytes, options.packet_bytes_max)?.map(|lengths| (first, lengths)))
}
