//! What the drivers of two nodes tell each other, as bytes. A batch is a run of frames, each of them a message of a link ([`Blocks`]): its kind (1
//! byte) and what that says. Numbers are little-endian, texts have a length of 2 bytes. Messages are read where they were received.
//!
//! Publishers often have several messages for one topic: of those that nobody waits for, the second and later ones are a payload alone
//! ([`DELIVER_MORE`]). Both ends keep the *head* of the last message that may be followed so, from the moment the way is there.

use crate::links::{Blocks, PREFIX_BYTES};
use bifro_core::delivered::Over;
use bifro_core::ids::{PublisherKey, RangeIdx, Slot};
use bifro_core::message::{MessageView, QoS};
use bifro_core::ports::{Origin, PortError};
use bifro_core::time::Instant;
use bytes::{BufMut, BytesMut};

const SERVICE: u8 = 1;
const DELIVER: u8 = 2;
const DELIVER_SHARED: u8 = 3;
const TAKEN: u8 = 4;
const REFUSED: u8 = 5;
const SERVICE_PART: u8 = 6;
const DELIVER_ONCE: u8 = 7;
const NOTED: u8 = 8;
const DELIVER_MORE: u8 = 9;
const FORGET: u8 = 10;

/// Bytes of what services say that go into one frame; more of it goes ahead in frames of its own, since a link's messages are bounded.
const SERVICE_PART_BYTES: usize = if cfg!(test) { 4 } else { 1 << 20 };

/// Of a message: the sender does not know what the receiver listens to.
const UNHEARD: u8 = 1 << 3;
const RETAIN: u8 = 1 << 2;
/// No expiry.
const NEVER: u64 = u64::MAX;
/// Bytes of a message's frame besides its texts, properties and payload, at most.
const FORWARD_FIXED_BYTES: usize = 72;

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
    /// The payload of one that is otherwise as [`Last::forward`].
    DeliverMore(&'a [u8]),
    /// These publishes of the receiver have been taken over.
    Taken(&'a [[u8; 8]]),
    /// These ranges (two bytes each) have noted whose publish this one is, which is answered next, and connections have, if they are `live`.
    Noted { publish: u64, live: bool, ranges: &'a [[u8; 2]] },
    /// Connections need not recognise these publishes any more; answered as `publish`.
    Forget { publish: u64, over: Over },
    /// This one has not.
    Refused { publish: u64, refusal: Refusal },
}

fn frame(kind: u8, bytes: usize, batch: &mut Blocks, write: impl FnOnce(&mut BytesMut)) {
    batch.put(1 + bytes, |block| {
        block.put_u8(kind);
        write(block);
    });
}

/// Bytes before a text.
const TEXT_BYTES: usize = 2;

fn put_text(text: &str, block: &mut BytesMut) {
    block.put_u16_le(u16::try_from(text.len()).expect("names and filters have a two-byte length"));
    block.put_slice(text.as_bytes());
}

/// Appends what services tell services; `tenant` is empty if it concerns none.
pub(super) fn put_service(tenant: &str, mut bytes: &[u8], batch: &mut Blocks) {
    while let Some((part, rest)) = bytes.split_at_checked(SERVICE_PART_BYTES).filter(|(_, rest)| !rest.is_empty()) {
        frame(SERVICE_PART, part.len(), batch, |block| block.put_slice(part));
        bytes = rest;
    }
    frame(SERVICE, TEXT_BYTES + tenant.len() + bytes.len(), batch, |block| {
        put_text(tenant, block);
        block.put_slice(bytes);
    });
}

/// Appends a message. `last` is the head that the receiver keeps.
pub(super) fn put_forward(forward: &Forward<'_>, now: Instant, batch: &mut Blocks, last: &mut Vec<u8>) {
    let kind = match (forward.group, forward.origin) {
        (Some(_), _) => DELIVER_SHARED,
        (None, Some(_)) => DELIVER_ONCE,
        (None, None) => DELIVER,
    };
    let message = &forward.message;
    let variable = forward.tenant.len() + message.topic.len() + message.properties.len() + message.payload.len();
    let group = forward.group.map_or(0, |(filter, name, _)| filter.len() + name.len());
    frame(kind, FORWARD_FIXED_BYTES + variable + group, batch, |block| {
        let at = block.len();
        put_head(forward, now, block);
        if kind == DELIVER && may_be_followed(forward) {
            if block[at..] == last[..] {
                block.truncate(at - 1);
                block.put_u8(DELIVER_MORE);
            } else {
                last.clear();
                last.extend_from_slice(&block[at..]);
            }
        }
        block.put_slice(message.payload);
    });
}

/// Whether the head of a message may be that of others: nothing in it is of this one alone.
const fn may_be_followed(forward: &Forward<'_>) -> bool {
    forward.publish == 0 && forward.message.expiry_at.is_none()
}

fn put_head(forward: &Forward<'_>, now: Instant, block: &mut BytesMut) {
    let message = &forward.message;
    block.put_u64_le(forward.publish);
    put_text(forward.tenant, block);
    if let Some((filter, name, ordered)) = forward.group {
        put_text(filter, block);
        put_text(name, block);
        block.put_u8(ordered.into());
    } else if let Some(origin) = &forward.origin {
        put_origin(origin, block);
    }
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    block.put_u8(message.qos as u8 | flag(message.retain, RETAIN) | flag(forward.unheard, UNHEARD));
    let left = message.expiry_at.map(|at| u64::try_from(at.since(now).as_micros()).unwrap_or(NEVER));
    block.put_u64_le(left.unwrap_or(NEVER));
    block.put_u64_le(message.publisher.0);
    put_text(message.topic, block);
    block.put_u32_le(u32::try_from(message.properties.len()).expect("properties fit a packet"));
    block.put_slice(message.properties);
}

/// Appends that publishes have been taken over.
pub(super) fn put_taken(publishes: &[u64], batch: &mut Blocks) {
    frame(TAKEN, size_of_val(publishes), batch, |block| {
        publishes.iter().for_each(|&publish| block.put_u64_le(publish))
    });
}

/// Appends that publishes need not be recognised any more; see [`Frame::Forget`].
pub(super) fn put_forget(publish: u64, over: &Over, batch: &mut Blocks) {
    frame(FORGET, FORWARD_FIXED_BYTES + size_of_val(&*over.others), batch, |block| {
        block.put_u64_le(publish);
        put_origin(&over.origin, block);
        block.put_u8(over.in_doubt.into());
        over.others.iter().for_each(|&packet_id| block.put_u16_le(packet_id));
    });
}

/// Appends which ranges have noted whose publish it is, and whether connections have.
pub(super) fn put_noted(publish: u64, live: bool, ranges: &[RangeIdx], batch: &mut Blocks) {
    frame(NOTED, size_of::<u64>() + 1 + size_of_val(ranges), batch, |block| {
        block.put_u64_le(publish);
        block.put_u8(live.into());
        ranges.iter().for_each(|range| block.put_u16_le(range.0));
    });
}

/// Appends that one has not.
pub(super) fn put_refused(publish: u64, refusal: Refusal, batch: &mut Blocks) {
    frame(REFUSED, size_of::<u64>() + 1, batch, |block| {
        block.put_u64_le(publish);
        block.put_u8(refusal.code());
    });
}

fn put_origin(origin: &Origin, block: &mut BytesMut) {
    let Origin { inbox: (range, slot), epoch, packet_id, nth } = origin;
    block.put_u16_le(range.0);
    block.put_u32_le(slot.index);
    block.put_u32_le(slot.generation);
    block.put_u64_le(*epoch);
    block.put_u16_le(*packet_id);
    block.put_u64_le(*nth);
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

/// The last message that others may follow with nothing but their payload, while a batch is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last<'a> {
    head: &'a [u8],
    forward: Option<Forward<'a>>,
}

impl<'a> Last<'a> {
    /// As the batch before has left it; no bytes: there was none.
    pub(super) fn of(head: &'a [u8]) -> Self {
        // A message that may be followed never expires, so it does not matter when it is read.
        Self { head, forward: forward(&mut Reader(head), DELIVER, Instant::from_micros(0)) }
    }

    /// What the next batch needs.
    pub(super) const fn head(&self) -> &'a [u8] {
        self.head
    }

    fn note(&mut self, body: &'a [u8], forward: &Forward<'a>) {
        if may_be_followed(forward) {
            self.head = &body[..body.len() - forward.message.payload.len()];
            self.forward = Some(*forward);
        }
    }

    /// That message; its payload is not kept from batch to batch.
    pub(super) const fn forward(&self) -> Option<&Forward<'a>> {
        self.forward.as_ref()
    }
}

/// Takes the next frame off a batch. None: the batch is malformed.
pub(super) fn next<'a>(batch: &mut &'a [u8], now: Instant, last: &mut Last<'a>) -> Option<Frame<'a>> {
    let (length, rest) = batch.split_first_chunk::<PREFIX_BYTES>()?;
    let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (&kind, body) = frame.split_first()?;
    *batch = rest;
    let mut reader = Reader(body);
    match kind {
        SERVICE_PART => Some(Frame::ServicePart(body)),
        SERVICE => Some(Frame::Service { tenant: reader.text()?, bytes: reader.0 }),
        DELIVER => {
            let forward = forward(&mut reader, DELIVER, now)?;
            last.note(body, &forward);
            Some(Frame::Deliver(forward))
        }
        DELIVER_MORE => Some(Frame::DeliverMore(body)),
        kind @ (DELIVER_SHARED | DELIVER_ONCE) => forward(&mut reader, kind, now).map(Frame::Deliver),
        TAKEN => {
            let (publishes, rest) = body.as_chunks();
            rest.is_empty().then_some(Frame::Taken(publishes))
        }
        NOTED => {
            let (publish, live, (ranges, rest)) = (reader.number()?, reader.byte()? != 0, reader.0.as_chunks());
            rest.is_empty().then_some(Frame::Noted { publish, live, ranges })
        }
        FORGET => {
            let (publish, origin) = (reader.number()?, origin(&mut reader)?);
            let (in_doubt, (others, rest)) = (reader.byte()? != 0, reader.0.as_chunks());
            let others = others.iter().map(|packet_id| u16::from_le_bytes(*packet_id)).collect();
            rest.is_empty().then_some(Frame::Forget { publish, over: Over { origin, others, in_doubt } })
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

    fn put(forward: &Forward<'_>, batch: &mut Blocks) {
        put_forward(forward, NOW, batch, &mut Vec::new());
    }

    fn batch() -> Vec<u8> {
        let mut batch = Blocks::default();
        put_service("t", b"bytes", &mut batch);
        let group = Some(("a/+", "g", true));
        let forward =
            Forward { publish: 9, tenant: "t", unheard: true, group, origin: None, message: message(b"payload") };
        put(&forward, &mut batch);
        put(&Forward { group: None, unheard: false, ..forward }, &mut batch);
        put_taken(&[1, 2, 3], &mut batch);
        put_refused(4, Refusal::NoMember, &mut batch);
        put(&Forward { group: None, origin: Some(ORIGIN), ..forward }, &mut batch);
        put_noted(5, true, &[RangeIdx(6), RangeIdx(700)], &mut batch);
        put_forget(6, &Over { origin: ORIGIN, others: [7, 800].into(), in_doubt: true }, &mut batch);
        let mut last = Vec::new();
        for payload in [&b"one"[..], b"", b"three"] {
            put_forward(&unawaited(payload), NOW, &mut batch, &mut last);
        }
        bytes_of(batch)
    }

    /// A message that nobody waits for, and others may follow.
    fn unawaited(payload: &[u8]) -> Forward<'_> {
        let message = MessageView { qos: QoS::AtMostOnce, expiry_at: None, ..message(payload) };
        Forward { publish: 0, tenant: "t", unheard: false, group: None, origin: None, message }
    }

    fn bytes_of(mut batch: Blocks) -> Vec<u8> {
        let mut bytes = Vec::new();
        batch.hand_over(|block| {
            bytes.extend_from_slice(block);
            true
        });
        bytes
    }

    #[test]
    fn frames_are_read_as_they_were_written_and_expiry_is_what_is_left_of_it() {
        let batch = batch();
        let later = NOW + Duration::from_secs(100);
        let (mut rest, mut last) = (&batch[..], Last::default());
        let mut read = || next(&mut rest, later, &mut last).expect("well formed");
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
        let Frame::Noted { publish: 5, live: true, ranges } = read() else { panic!("an answer") };
        assert_eq!(ranges.iter().map(|range| u16::from_le_bytes(*range)).collect::<Vec<_>>(), [6, 700]);
        let Frame::Forget { publish: 6, over } = read() else { panic!("what is over") };
        assert_eq!(over, Over { origin: ORIGIN, others: [7, 800].into(), in_doubt: true });
        let Frame::Deliver(unawaited) = read() else { panic!("a message") };
        assert_eq!((unawaited.publish, unawaited.message.payload), (0, &b"one"[..]));
        assert!(matches!(read(), Frame::DeliverMore(b"")));
        assert!(matches!(read(), Frame::DeliverMore(b"three")));
        assert!(rest.is_empty());
    }

    /// What a frame says, and the same frame again.
    fn reread(mut bytes: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut head = Vec::new();
        put_forward(&unawaited(b"before"), NOW, &mut Blocks::default(), &mut head);
        let frame = next(&mut bytes, NOW, &mut Last::default()).filter(|_| bytes.is_empty())?;
        let (meaning, mut again) = (format!("{frame:?}"), Blocks::default());
        match frame {
            Frame::Service { tenant, bytes } => put_service(tenant, bytes, &mut again),
            Frame::ServicePart(part) => {
                super::frame(SERVICE_PART, part.len(), &mut again, |block| block.put_slice(part))
            }
            Frame::Deliver(forward) => put(&forward, &mut again),
            Frame::DeliverMore(payload) => put_forward(&unawaited(payload), NOW, &mut again, &mut head.clone()),
            Frame::Taken(publishes) => {
                let publishes: Vec<u64> = publishes.iter().map(|publish| u64::from_le_bytes(*publish)).collect();
                put_taken(&publishes, &mut again);
            }
            Frame::Forget { publish, over } => put_forget(publish, &over, &mut again),
            Frame::Noted { publish, live, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(|range| RangeIdx(u16::from_le_bytes(*range))).collect();
                put_noted(publish, live, &ranges, &mut again);
            }
            Frame::Refused { publish, refusal } => put_refused(publish, refusal, &mut again),
        }
        Some((meaning, bytes_of(again)))
    }

    #[test]
    fn a_batch_is_as_recorded() {
        let (batch, mut frames) = (batch(), Vec::new());
        let (mut rest, mut last) = (&batch[..], Last::default());
        while !rest.is_empty() {
            let before = rest;
            next(&mut rest, NOW, &mut last).expect("well formed");
            frames.push(before[..before.len() - rest.len()].to_vec());
        }
        crate::recorded::check("batches", &frames, reread);
    }

    #[test]
    fn a_frame_of_a_message_is_no_longer_than_was_set_aside_for_it() {
        let group = Some(("", "", true));
        let empty = MessageView { topic: "", properties: &[], payload: &[], ..message(&[]) };
        let forward = Forward { publish: 9, tenant: "", unheard: true, group, origin: None, message: empty };
        for forward in [forward, Forward { group: None, origin: Some(ORIGIN), ..forward }] {
            let mut batch = Blocks::default();
            put(&forward, &mut batch);
            assert!(batch.queued() <= PREFIX_BYTES + 1 + FORWARD_FIXED_BYTES, "{}", batch.queued());
        }
    }

    #[test]
    fn whatever_is_cut_off_or_broken_is_refused_and_never_read_past_its_end() {
        let batch = batch();
        for end in 0..batch.len() {
            let (mut rest, mut last) = (&batch[..end], Last::default());
            while !rest.is_empty() && next(&mut rest, NOW, &mut last).is_some() {}
        }
        for at in 0..batch.len() {
            for bit in 0..8 {
                let mut broken = batch.clone();
                broken[at] ^= 1 << bit;
                let (mut rest, mut last) = (&broken[..], Last::default());
                while !rest.is_empty() && next(&mut rest, NOW, &mut last).is_some() {}
            }
        }
    }

    #[test]
    fn a_message_is_its_payload_alone_if_nothing_else_differs_from_the_last_that_may_be_followed() {
        let (mut last, plain) = (Vec::new(), unawaited(b"payload"));
        let mut kinds = |forward: Forward<'_>| {
            let mut batch = Blocks::default();
            put_forward(&forward, NOW, &mut batch, &mut last);
            bytes_of(batch)[PREFIX_BYTES]
        };
        let of = |message| Forward { message, ..plain };
        let differing = [
            Forward { tenant: "u", ..plain },
            Forward { unheard: true, ..plain },
            of(MessageView { topic: "a/c", ..plain.message }),
            of(MessageView { properties: &[1, 0], ..plain.message }),
            of(MessageView { retain: false, ..plain.message }),
            of(MessageView { publisher: PublisherKey(78), ..plain.message }),
        ];
        for forward in differing {
            assert_eq!(
                [plain, plain, forward, forward].map(&mut kinds),
                [DELIVER, DELIVER_MORE, DELIVER, DELIVER_MORE]
            );
        }
        let expires = of(MessageView { expiry_at: Some(NOW), ..plain.message });
        let group = Some(("a/+", "g", true));
        let other = [
            (Forward { publish: 1, ..plain }, DELIVER),
            (expires, DELIVER),
            (Forward { group, ..plain }, DELIVER_SHARED),
            (Forward { publish: 1, origin: Some(ORIGIN), ..plain }, DELIVER_ONCE),
        ];
        assert_eq!(kinds(plain), DELIVER);
        for (forward, kind) in other {
            assert_eq!(
                [forward, forward, plain].map(&mut kinds),
                [kind, kind, DELIVER_MORE],
                "it is between, and not followed"
            );
        }
    }

    #[test]
    fn what_may_be_followed_is_kept_from_batch_to_batch() {
        let (mut head, mut read) = (Vec::new(), Vec::new());
        for payload in [&b"one"[..], b"two", b"three"] {
            let mut batch = Blocks::default();
            put_forward(&unawaited(payload), NOW, &mut batch, &mut head);
            let bytes = bytes_of(batch);
            let mut last = Last::of(&read);
            let frame = next(&mut &bytes[..], NOW, &mut last).expect("well formed");
            assert!(matches!(frame, Frame::Deliver(_)) == (payload == b"one"));
            assert!(payload == b"one" || matches!(frame, Frame::DeliverMore(read) if read == payload));
            assert_eq!(last.forward().map(|forward| forward.message.topic), Some("a/b"));
            read = last.head().to_vec();
        }
        assert_eq!(head, read);
        assert!(Last::of(&[]).forward().is_none());
    }
}
