//! What the drivers of two nodes tell each other, as bytes. A batch is a row of frames; a frame is its kind (1 byte), the length of what follows (4
//! bytes) and that. Numbers are little-endian, texts have a length of 2 bytes. Messages are read where they were received.

use bifro_core::ids::{PublisherKey, RangeIdx, Slot};
use bifro_core::message::{MessageView, QoS};
use bifro_core::ports::{Origin, PortError};
use bifro_core::time::Instant;

const SERVICE: u8 = 1;
const DELIVER: u8 = 2;
const DELIVER_SHARED: u8 = 3;
const TAKEN: u8 = 4;
const REFUSED: u8 = 5;
const SERVICE_PART: u8 = 6;
const DELIVER_ONCE: u8 = 7;
const NOTED: u8 = 8;

/// Bytes of what services say that go into one frame; more of it goes ahead in frames of its own, since a link's messages are bounded.
const SERVICE_PART_BYTES: usize = if cfg!(test) { 4 } else { 1 << 20 };

/// Bytes before what a frame says.
const HEADER_BYTES: usize = 5;
/// Of a message: the sender does not know what the receiver listens to.
const UNHEARD: u8 = 1 << 3;
const RETAIN: u8 = 1 << 2;
/// No expiry.
const NEVER: u64 = u64::MAX;

/// Why a node did not take a message over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As a port refuses.
    Port(PortError),
    /// Nobody there is a member of the group any more.
    NoMember,
}

impl Refusal {
    const fn code(self) -> u8 {
        match self {
            Self::Port(PortError::QuotaExceeded) => 1,
            Self::Port(PortError::NotOwner) => 2,
            Self::Port(PortError::Unavailable) => 3,
            Self::NoMember => 4,
        }
    }

    const fn of(code: u8) -> Self {
        match code {
            1 => Self::Port(PortError::QuotaExceeded),
            2 => Self::Port(PortError::NotOwner),
            4 => Self::NoMember,
            // What a newer version may say.
            _ => Self::Port(PortError::Unavailable),
        }
    }
}

/// A message on its way to another node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forward<'a> {
    /// Whom to tell that it has been taken over; 0: nobody waits.
    pub(super) publish: u64,
    /// Tenant.
    pub(super) tenant: &'a str,
    /// The sender does not know what the receiver listens to.
    pub(super) unheard: bool,
    /// For one member of this group: filter without prefix, name, ordered.
    pub(super) group: Option<(&'a str, &'a str, bool)>,
    /// Of a QoS 2 publish that may be tried again: whose it is. There is no group then.
    pub(super) origin: Option<Origin>,
    /// The message.
    pub(super) message: MessageView<'a>,
}

/// A frame.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    /// A part of what the next [`Frame::Service`] says, before what is in that.
    ServicePart(&'a [u8]),
    /// From services to services.
    Service { tenant: &'a str, bytes: &'a [u8] },
    /// A message.
    Deliver(Forward<'a>),
    /// These publishes of the receiver have been taken over.
    Taken(&'a [[u8; 8]]),
    /// These ranges (two bytes each) have noted whose publish this one is, which is answered next.
    Noted { publish: u64, ranges: &'a [[u8; 2]] },
    /// This one has not.
    Refused { publish: u64, refusal: Refusal },
}

fn frame(kind: u8, batch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    batch.push(kind);
    let at = batch.len();
    batch.extend([0; 4]);
    write(batch);
    let length = u32::try_from(batch.len() - at - 4).expect("a frame is far smaller than 4 GiB");
    batch[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_text(text: &str, batch: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("names and filters have a two-byte length");
    batch.extend(length.to_le_bytes());
    batch.extend(text.as_bytes());
}

/// Appends what services tell services; `tenant` is empty if it concerns none.
pub(super) fn put_service(tenant: &str, mut bytes: &[u8], batch: &mut Vec<u8>) {
    while let Some((part, rest)) = bytes.split_at_checked(SERVICE_PART_BYTES).filter(|(_, rest)| !rest.is_empty()) {
        frame(SERVICE_PART, batch, |batch| batch.extend(part));
        bytes = rest;
    }
    frame(SERVICE, batch, |batch| {
        put_text(tenant, batch);
        batch.extend(bytes);
    });
}

/// Appends a message.
pub(super) fn put_forward(forward: &Forward<'_>, now: Instant, batch: &mut Vec<u8>) {
    let kind = match (forward.group, forward.origin) {
        (Some(_), _) => DELIVER_SHARED,
        (None, Some(_)) => DELIVER_ONCE,
        (None, None) => DELIVER,
    };
    frame(kind, batch, |batch| {
        batch.extend(forward.publish.to_le_bytes());
        put_text(forward.tenant, batch);
        if let Some((filter, name, ordered)) = forward.group {
            put_text(filter, batch);
            put_text(name, batch);
            batch.push(ordered.into());
        } else if let Some(origin) = &forward.origin {
            put_origin(origin, batch);
        }
        let message = &forward.message;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        batch.push(message.qos as u8 | flag(message.retain, RETAIN) | flag(forward.unheard, UNHEARD));
        let left = message.expiry_at.map(|at| u64::try_from(at.since(now).as_micros()).unwrap_or(NEVER));
        batch.extend(left.unwrap_or(NEVER).to_le_bytes());
        batch.extend(message.publisher.0.to_le_bytes());
        put_text(message.topic, batch);
        let properties = u32::try_from(message.properties.len()).expect("properties fit a packet");
        batch.extend(properties.to_le_bytes());
        batch.extend(message.properties);
        batch.extend(message.payload);
    });
}

/// Appends that publishes have been taken over.
pub(super) fn put_taken(publishes: &[u64], batch: &mut Vec<u8>) {
    frame(TAKEN, batch, |batch| batch.extend(publishes.iter().flat_map(|publish| publish.to_le_bytes())));
}

/// Appends which ranges have noted whose publish it is.
pub(super) fn put_noted(publish: u64, ranges: &[RangeIdx], batch: &mut Vec<u8>) {
    frame(NOTED, batch, |batch| {
        batch.extend(publish.to_le_bytes());
        batch.extend(ranges.iter().flat_map(|range| range.0.to_le_bytes()));
    });
}

/// Appends that one has not.
pub(super) fn put_refused(publish: u64, refusal: Refusal, batch: &mut Vec<u8>) {
    frame(REFUSED, batch, |batch| {
        batch.extend(publish.to_le_bytes());
        batch.push(refusal.code());
    });
}

fn put_origin(origin: &Origin, batch: &mut Vec<u8>) {
    let Origin { inbox: (range, slot), epoch, packet_id, nth } = origin;
    batch.extend(range.0.to_le_bytes());
    batch.extend(slot.index.to_le_bytes());
    batch.extend(slot.generation.to_le_bytes());
    batch.extend(epoch.to_le_bytes());
    batch.extend(packet_id.to_le_bytes());
    batch.extend(nth.to_le_bytes());
}

fn origin(reader: &mut Reader<'_>) -> Option<Origin> {
    let range = RangeIdx(reader.array().map(u16::from_le_bytes)?);
    let mut half = || reader.array().map(u32::from_le_bytes);
    let inbox = (range, Slot { index: half()?, generation: half()? });
    let epoch = reader.number()?;
    let packet_id = reader.array().map(u16::from_le_bytes)?;
    Some(Origin { inbox, epoch, packet_id, nth: reader.number()? })
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(length.into())?).ok()
    }
}

/// How many bytes of a well-formed batch are whole frames of `most` bytes together, or one frame if that is longer.
pub(super) fn part(batch: &[u8], most: usize) -> usize {
    let mut end = 0;
    while let Some(header) = batch.get(end..end + HEADER_BYTES) {
        let length = header[1..].try_into().map_or(0, u32::from_le_bytes);
        let next = end + HEADER_BYTES + length as usize;
        if next > most && end > 0 {
            break;
        }
        end = next;
    }
    end
}

/// Takes the next frame off a batch. None: the batch is malformed.
pub(super) fn next<'a>(batch: &mut &'a [u8], now: Instant) -> Option<Frame<'a>> {
    let (header, rest) = batch.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[1..].try_into().ok()?);
    let (body, rest) = rest.split_at_checked(length as usize)?;
    *batch = rest;
    let mut reader = Reader(body);
    match header[0] {
        SERVICE_PART => Some(Frame::ServicePart(body)),
        SERVICE => Some(Frame::Service { tenant: reader.text()?, bytes: reader.0 }),
        kind @ (DELIVER | DELIVER_SHARED | DELIVER_ONCE) => forward(&mut reader, kind, now).map(Frame::Deliver),
        TAKEN => {
            let (publishes, rest) = body.as_chunks();
            rest.is_empty().then_some(Frame::Taken(publishes))
        }
        NOTED => {
            let (publish, (ranges, rest)) = (reader.number()?, reader.0.as_chunks());
            rest.is_empty().then_some(Frame::Noted { publish, ranges })
        }
        REFUSED => Some(Frame::Refused { publish: reader.number()?, refusal: Refusal::of(reader.byte()?) }),
        _ => None,
    }
}

fn forward<'a>(reader: &mut Reader<'a>, kind: u8, now: Instant) -> Option<Forward<'a>> {
    let (publish, tenant) = (reader.number()?, reader.text()?);
    let group = match kind {
        DELIVER_SHARED => Some((reader.text()?, reader.text()?, reader.byte()? != 0)),
        _ => None,
    };
    let origin = match kind {
        DELIVER_ONCE => Some(origin(reader)?),
        _ => None,
    };
    let flags = reader.byte()?;
    let left = Some(reader.number()?).filter(|&left| left != NEVER);
    let publisher = PublisherKey(reader.number()?);
    let topic = reader.text().filter(|topic| !topic.is_empty())?;
    let properties = u32::from_le_bytes(reader.array()?);
    let properties = reader.take(properties as usize)?;
    let message = MessageView {
        topic,
        properties,
        payload: reader.0,
        qos: QoS::from_bits(flags & 3)?,
        retain: flags & RETAIN != 0,
        expiry_at: left.map(|left| now + std::time::Duration::from_micros(left)),
        publisher,
    };
    Some(Forward { publish, tenant, unheard: flags & UNHEARD != 0, group, origin, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Instant = Instant::from_micros(5_000_000);
    const ORIGIN: Origin =
        Origin { inbox: (RangeIdx(1), Slot { index: 2, generation: 3 }), epoch: 4, packet_id: 5, nth: 6 };

    fn message(payload: &[u8]) -> MessageView<'_> {
        MessageView {
            topic: "a/b",
            properties: &[1, 1],
            payload,
            qos: QoS::ExactlyOnce,
            retain: true,
            expiry_at: Some(NOW + Duration::from_millis(1_500)),
            publisher: PublisherKey(77),
        }
    }

    fn batch() -> Vec<u8> {
        let mut batch = Vec::new();
        put_service("t", b"bytes", &mut batch);
        let group = Some(("a/+", "g", true));
        let forward =
            Forward { publish: 9, tenant: "t", unheard: true, group, origin: None, message: message(b"payload") };
        put_forward(&forward, NOW, &mut batch);
        put_forward(&Forward { group: None, unheard: false, ..forward }, NOW, &mut batch);
        put_taken(&[1, 2, 3], &mut batch);
        put_refused(4, Refusal::NoMember, &mut batch);
        put_forward(&Forward { group: None, origin: Some(ORIGIN), ..forward }, NOW, &mut batch);
        put_noted(5, &[RangeIdx(6), RangeIdx(700)], &mut batch);
        batch
    }

    #[test]
    fn frames_are_read_as_they_were_written_and_expiry_is_what_is_left_of_it() {
        let batch = batch();
        let later = NOW + Duration::from_secs(100);
        let mut rest = &batch[..];
        let mut read = || next(&mut rest, later).expect("well formed");
        assert!(matches!(read(), Frame::ServicePart(b"byte")));
        assert!(matches!(read(), Frame::Service { tenant: "t", bytes: b"s" }));
        let Frame::Deliver(shared) = read() else { panic!("a message") };
        assert_eq!((shared.publish, shared.tenant, shared.unheard), (9, "t", true));
        assert_eq!(shared.group, Some(("a/+", "g", true)));
        let message = shared.message;
        assert_eq!((message.topic, message.properties, message.payload), ("a/b", &[1, 1][..], &b"payload"[..]));
        assert_eq!((message.qos, message.retain, message.publisher), (QoS::ExactlyOnce, true, PublisherKey(77)));
        assert_eq!(message.expiry_at, Some(later + Duration::from_millis(1_500)));
        let Frame::Deliver(plain) = read() else { panic!("a message") };
        assert_eq!((plain.group, plain.unheard), (None, false));
        let Frame::Taken(taken) = read() else { panic!("an answer") };
        assert_eq!(taken.iter().map(|publish| u64::from_le_bytes(*publish)).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(matches!(read(), Frame::Refused { publish: 4, refusal: Refusal::NoMember }));
        let Frame::Deliver(once) = read() else { panic!("a message") };
        assert_eq!((once.group, once.origin, once.message.payload), (None, Some(ORIGIN), &b"payload"[..]));
        let Frame::Noted { publish: 5, ranges } = read() else { panic!("an answer") };
        assert_eq!(ranges.iter().map(|range| u16::from_le_bytes(*range)).collect::<Vec<_>>(), [6, 700]);
        assert!(rest.is_empty());
    }

    /// What a frame says, and the same frame again.
    fn reread(mut bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let frame = next(&mut bytes, NOW).filter(|_| bytes.is_empty())?;
        let (meaning, mut again) = (format!("{frame:?}"), Vec::new());
        match frame {
            Frame::Service { tenant, bytes } => put_service(tenant, bytes, &mut again),
            Frame::ServicePart(part) => super::frame(SERVICE_PART, &mut again, |batch| batch.extend(part)),
            Frame::Deliver(forward) => put_forward(&forward, NOW, &mut again),
            Frame::Taken(publishes) => {
                let publishes: Vec<u64> = publishes.iter().map(|publish| u64::from_le_bytes(*publish)).collect();
                put_taken(&publishes, &mut again);
            }
            Frame::Noted { publish, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(|range| RangeIdx(u16::from_le_bytes(*range))).collect();
                put_noted(publish, &ranges, &mut again);
            }
            Frame::Refused { publish, refusal } => put_refused(publish, refusal, &mut again),
        }
        Some((meaning, again))
    }

    #[test]
    fn a_batch_is_as_recorded() {
        let (batch, mut frames, mut at) = (batch(), Vec::new(), 0);
        while at < batch.len() {
            let length = part(&batch[at..], 1);
            frames.push(batch[at..at + length].to_vec());
            at += length;
        }
        crate::recorded::check("batches", &frames, reread);
    }

    #[test]
    fn a_batch_is_parted_between_frames() {
        let batch = batch();
        for most in [1, 50, 100, batch.len()] {
            let mut at = 0;
            while at < batch.len() {
                let length = part(&batch[at..], most);
                let mut rest = &batch[at..at + length];
                let mut frames = 0;
                while !rest.is_empty() {
                    next(&mut rest, NOW).expect("whole frames");
                    frames += 1;
                }
                assert!(frames == 1 || length <= most);
                at += length;
            }
        }
    }

    #[test]
    fn whatever_is_cut_off_or_broken_is_refused_and_never_read_past_its_end() {
        let batch = batch();
        for end in 0..batch.len() {
            let mut rest = &batch[..end];
            while !rest.is_empty() && next(&mut rest, NOW).is_some() {}
        }
        for at in 0..batch.len() {
            for bit in 0..8 {
                let mut broken = batch.clone();
                broken[at] ^= 1 << bit;
                let mut rest = &broken[..];
                while !rest.is_empty() && next(&mut rest, NOW).is_some() {}
            }
        }
    }
}
