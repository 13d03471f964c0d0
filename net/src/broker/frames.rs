//! What the drivers of two nodes tell each other, as bytes. A batch is a run of frames, each of them a message of a link ([`Blocks`]): its kind (1
//! byte) and what that says. Numbers are little-endian, texts have a length of 2 bytes. Messages are read where they were received.
//!
//! Publishers often have several messages for one topic: of those that nobody waits for, the second and later ones are a payload alone
//! ([`DELIVER_MORE`]). Both ends keep the *head* of the last message that may be followed so, from the moment the way is there.

use crate::links::{Blocks, PREFIX_BYTES};
use bifro_core::delivered::Over;
use bifro_core::ids::{PublisherKey, RangeIdx, Slot};
use bifro_core::inquiry::Inquiry;
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
const DELIVER_SHARED_ONCE: u8 = 11;
const INQUIRE: u8 = 12;
const FOUND: u8 = 13;

/// Bytes of what services say that go into one frame; more of it goes ahead in frames of its own, since a link's messages are bounded.
const SERVICE_PART_BYTES: usize = if cfg!(test) { 4 } else { 1 << 20 };

/// Of a message: the sender does not know what the receiver listens to.
const UNHEARD: u8 = 1 << 3;
const RETAIN: u8 = 1 << 2;
/// No expiry.
const NEVER: u64 = u64::MAX;
/// Bytes of a message's frame besides its texts, properties and payload, at most.
const FORWARD_FIXED_BYTES: usize = 80;

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
    /// Of a QoS 2 publish that may be tried again: whose it is. Which group it is for is said otherwise.
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
    /// Which groups have this publish? Answered by [`Frame::Found`].
    Inquire { publish: u64, inquiry: Inquiry },
    /// Groups that have it.
    Found { publish: u64, groups: &'a [[u8; 8]] },
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

/// The last head that went over a way and may be that of others, at the end that sends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    publisher: u64,
    flags: u8,
    tenant: String,
    topic: String,
    properties: Vec<u8>,
}

impl Sent {
    /// Bytes set aside for it.
    pub(super) const fn capacity(&self) -> usize {
        self.tenant.capacity() + self.topic.capacity() + self.properties.capacity()
    }

    /// The receiver has none.
    pub(super) fn clear(&mut self) {
        self.topic.clear();
    }

    /// Whether a message that may be followed has this head. No topic is empty.
    fn is_of(&self, forward: &Forward<'_>) -> bool {
        let message = &forward.message;
        self.publisher == message.publisher.0
            && self.flags == flags(forward)
            && self.topic == message.topic
            && self.tenant == forward.tenant
            && self.properties.len() == message.properties.len()
            && (self.properties.is_empty() || self.properties == message.properties)
    }

    fn note(&mut self, forward: &Forward<'_>) {
        (self.publisher, self.flags) = (forward.message.publisher.0, flags(forward));
        forward.tenant.clone_into(&mut self.tenant);
        forward.message.topic.clone_into(&mut self.topic);
        forward.message.properties.clone_into(&mut self.properties);
    }
}

/// Appends a message. `last` is the head that the receiver keeps.
pub(super) fn put_forward(forward: &Forward<'_>, now: Instant, batch: &mut Blocks, last: &mut Sent) {
    let message = &forward.message;
    let kind = match (forward.group, forward.origin) {
        (Some(_), None) => DELIVER_SHARED,
        (Some(_), Some(_)) => DELIVER_SHARED_ONCE,
        (None, Some(_)) => DELIVER_ONCE,
        (None, None) if may_be_followed(forward) => {
            if last.is_of(forward) {
                return frame(DELIVER_MORE, message.payload.len(), batch, |block| block.put_slice(message.payload));
            }
            last.note(forward);
            DELIVER
        }
        (None, None) => DELIVER,
    };
    let variable = forward.tenant.len() + message.topic.len() + message.properties.len() + message.payload.len();
    let group = forward.group.map_or(0, |(filter, name, _)| filter.len() + name.len());
    frame(kind, FORWARD_FIXED_BYTES + variable + group, batch, |block| {
        put_head(forward, now, block);
        block.put_slice(message.payload);
    });
}

/// Whether the head of a message may be that of others: nothing in it is of this one alone.
const fn may_be_followed(forward: &Forward<'_>) -> bool {
    forward.publish == 0 && forward.message.expiry_at.is_none()
}

/// QoS and flags of a message, as one byte.
fn flags(forward: &Forward<'_>) -> u8 {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    forward.message.qos as u8 | flag(forward.message.retain, RETAIN) | flag(forward.unheard, UNHEARD)
}

fn put_head(forward: &Forward<'_>, now: Instant, block: &mut BytesMut) {
    let message = &forward.message;
    block.put_u64_le(forward.publish);
    put_text(forward.tenant, block);
    if let Some((filter, name, ordered)) = forward.group {
        put_text(filter, block);
        put_text(name, block);
        block.put_u8(ordered.into());
    }
    if let Some(origin) = &forward.origin {
        put_origin(origin, block);
    }
    block.put_u8(flags(forward));
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

/// Appends the question which groups have a publish.
pub(super) fn put_inquire(publish: u64, inquiry: &Inquiry, batch: &mut Blocks) {
    frame(INQUIRE, FORWARD_FIXED_BYTES, batch, |block| {
        block.put_u64_le(publish);
        put_origin(&inquiry.origin, block);
        block.put_u64_le(inquiry.content);
    });
}

/// Appends which do.
pub(super) fn put_found(publish: u64, groups: &[u64], batch: &mut Blocks) {
    frame(FOUND, size_of::<u64>() + size_of_val(groups), batch, |block| {
        block.put_u64_le(publish);
        groups.iter().for_each(|&group| block.put_u64_le(group));
    });
}

/// Appends that one has not.
pub(super) fn put_refused(publish: u64, refusal: Refusal, batch: &mut Blocks) {
    frame(REFUSED, size_of::<u64>() + 1, batch, |block| {
        block.put_u64_le(publish);
        block.put_u8(refusal.code());
    });
}

/// Of no group: which it is for is said otherwise.
fn put_origin(origin: &Origin, block: &mut BytesMut) {
    let Origin { inbox: (range, slot), epoch, packet_id, nth, group: _, attempt } = origin;
    block.put_u16_le(range.0);
    block.put_u32_le(slot.index);
    block.put_u32_le(slot.generation);
    block.put_u64_le(*epoch);
    block.put_u16_le(*packet_id);
    block.put_u64_le(*nth);
    block.put_u64_le(*attempt);
}

fn origin(reader: &mut Reader<'_>) -> Option<Origin> {
    let range = RangeIdx(reader.array().map(u16::from_le_bytes)?);
    let mut half = || reader.array().map(u32::from_le_bytes);
    let inbox = (range, Slot { index: half()?, generation: half()? });
    let epoch = reader.number()?;
    let packet_id = reader.array().map(u16::from_le_bytes)?;
    Some(Origin { inbox, epoch, packet_id, nth: reader.number()?, group: 0, attempt: reader.number()? })
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
        kind @ (DELIVER_SHARED | DELIVER_ONCE | DELIVER_SHARED_ONCE) => {
            forward(&mut reader, kind, now).map(Frame::Deliver)
        }
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
        INQUIRE => {
            let (publish, origin, content) = (reader.number()?, origin(&mut reader)?, reader.number()?);
            reader.0.is_empty().then_some(Frame::Inquire { publish, inquiry: Inquiry { origin, content } })
        }
        FOUND => {
            let (publish, (groups, rest)) = (reader.number()?, reader.0.as_chunks());
            rest.is_empty().then_some(Frame::Found { publish, groups })
        }
        REFUSED => Some(Frame::Refused { publish: reader.number()?, refusal: Refusal::of(reader.byte()?) }),
        _ => None,
    }
}

/// Takes the next frame off a batch if it is a payload alone, and returns that.
pub(super) fn next_more<'a>(batch: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = batch.split_first_chunk::<PREFIX_BYTES>()?;
    let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let (_, payload) = frame.split_first().filter(|(kind, _)| **kind == DELIVER_MORE)?;
    *batch = rest;
    Some(payload)
}

fn forward<'a>(reader: &mut Reader<'a>, kind: u8, now: Instant) -> Option<Forward<'a>> {
    let (publish, tenant) = (reader.number()?, reader.text()?);
    let group = match kind {
        DELIVER_SHARED | DELIVER_SHARED_ONCE => Some((reader.text()?, reader.text()?, reader.byte()? != 0)),
        _ => None,
    };
    let origin = match kind {
        DELIVER_ONCE | DELIVER_SHARED_ONCE => Some(origin(reader)?),
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
mod tests;
