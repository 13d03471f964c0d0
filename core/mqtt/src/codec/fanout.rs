//! One message on its way to many subscribers.
//!
//! Copies for subscribers of one kind (MQTT 5 or older, with or without packet identifier) differ in the first byte and
//! the identifier only. The first copy of a kind is encoded onto the wire; if a second follows, that one is also kept,
//! and all later ones are copied from it and patched. Copies with a topic alias or subscription identifiers are encoded
//! one by one. A large payload is not copied at all: the wire refers to the shared message.
//!
//! Invariant: what is kept in the scratch is a PUBLISH (without payload, if that is shared) of at most
//! [`KEPT_BYTES_MAX`] bytes, at most one of each kind, so the scratch stays within four times that.

use super::publish::first_byte;
use super::writer::{VARINT_MAX, put_str, put_varint, varint_len};
use crate::packet::PacketId;
use crate::property::{PropertyId, PropertyWriter};
use crate::wire::{SHARED_PAYLOAD_BYTES_MIN, Wire};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::time::Instant;
use core::num::NonZeroU32;

/// Largest copy that is kept for the next subscriber, in bytes. Measured per subscriber, kept against encoded anew: 7
/// and 23 ns at 64 bytes of payload, 55 and 86 ns at 4 KiB, 101 and 122 ns at 8 KiB, no difference at 16 KiB. Longer
/// ones are encoded for each subscriber, so that the scratch stays in the first-level cache.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// What distinguishes one subscriber's copy of a PUBLISH.
#[derive(Clone, Copy, Debug)]
pub struct PublishSpec<'a> {
    /// Version of the subscriber.
    pub version: Version,
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Packet identifier, for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// Topic alias, and whether the topic goes with it (first use).
    pub alias: Option<(u16, bool)>,
    /// Subscription identifiers.
    pub subscription_ids: &'a [NonZeroU32],
    /// Largest packet the subscriber accepts in bytes; 0 = no limit.
    pub packet_bytes_max: u32,
}

impl PublishSpec<'_> {
    const fn first_byte(&self) -> u8 {
        first_byte(self.dup, self.qos, self.retain)
    }

    /// The same bytes serve other subscribers, but for the first byte and the packet identifier.
    const fn is_plain(&self) -> bool {
        !self.is_v5() || (self.alias.is_none() && self.subscription_ids.is_empty())
    }

    const fn is_v5(&self) -> bool {
        matches!(self.version, Version::V5)
    }

    /// Index of the kind of a plain copy.
    const fn kind(&self) -> usize {
        (self.is_v5() as usize) << 1 | self.packet_id.is_some() as usize
    }

    const fn allows(&self, packet_bytes: usize) -> bool {
        self.packet_bytes_max == 0 || packet_bytes <= self.packet_bytes_max as usize
    }
}

/// Kinds of plain copies.
const KINDS: usize = 4;

/// Memory that fan-outs of one shard use one after the other, so that none of them allocates.
#[derive(Debug, Default)]
pub struct FanoutScratch {
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Scratch<'m> {
    Own(FanoutScratch),
    Lent(&'m mut FanoutScratch),
}

impl Scratch<'_> {
    const fn bytes(&self) -> &Vec<u8> {
        match self {
            Self::Own(scratch) => &scratch.bytes,
            Self::Lent(scratch) => &scratch.bytes,
        }
    }

    const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Own(scratch) => &mut scratch.bytes,
            Self::Lent(scratch) => &mut scratch.bytes,
        }
    }
}

/// How far a kind of plain copies has come.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// No subscriber yet.
    Unseen,
    /// One subscriber: not worth keeping yet.
    Seen,
    /// Kept in the scratch.
    Kept {
        start: u16,
        end: u16,
        /// Where the packet identifier is, from `start`.
        id_at: u16,
    },
}

/// A place in the scratch.
fn place(at: usize) -> u16 {
    u16::try_from(at).expect("the scratch stays within four times KEPT_BYTES_MAX")
}

/// Lengths of one copy.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    /// Of the properties, without their own length.
    properties: u32,
    remaining: u32,
    packet: usize,
}

/// One message on its way to many subscribers: encoded once per kind of subscriber, then copied and patched.
#[derive(Debug)]
pub struct Fanout<'m> {
    /// The message; not to be exchanged for another one but by [`Fanout::follow`].
    pub view: MessageView<'m>,
    owned: Option<Arc<Message>>,
    now: Instant,
    kinds: [Kind; KINDS],
    scratch: Scratch<'m>,
}

impl<'m> Fanout<'m> {
    /// A fan-out of `view`. `owned` is the same message if the broker owns it already; `now` fixes the remaining
    /// expiry.
    pub const fn new(view: MessageView<'m>, owned: Option<Arc<Message>>, now: Instant) -> Self {
        let scratch = Scratch::Own(FanoutScratch { bytes: Vec::new() });
        Self { view, owned, now, kinds: [Kind::Unseen; KINDS], scratch }
    }

    /// The same with memory from a fan-out before, for those who have many.
    pub fn with_scratch(
        view: MessageView<'m>,
        owned: Option<Arc<Message>>,
        now: Instant,
        scratch: &'m mut FanoutScratch,
    ) -> Self {
        scratch.bytes.clear();
        Self { view, owned, now, kinds: [Kind::Unseen; KINDS], scratch: Scratch::Lent(scratch) }
    }

    /// Goes on with the next message, which differs by its payload alone.
    pub fn follow(&mut self, payload: &'m [u8]) {
        self.view.payload = payload;
        self.owned = None;
        self.kinds = [Kind::Unseen; KINDS];
        self.scratch.bytes_mut().clear();
    }

    /// The message with an owner, made at the first call.
    pub fn message(&mut self) -> &Arc<Message> {
        self.owned.get_or_insert_with(|| self.view.to_message())
    }

    /// The message has expired.
    pub fn is_expired(&self) -> bool {
        self.view.expiry_at.is_some_and(|at| at <= self.now)
    }

    /// Appends the PUBLISH for one subscriber. False, and nothing written, if it would exceed the subscriber's Maximum
    /// Packet Size [MQTT5-3.1.2-24].
    ///
    /// # Panics
    /// If there is a packet identifier with QoS 0, or none with another QoS [MQTT-2.3.1-5] [MQTT5-2.2.1-2]; if the topic
    /// is longer than 65,535 bytes or a subscription identifier above 268,435,455, which no decoded packet has.
    pub fn append(&mut self, spec: &PublishSpec<'_>, wire: &mut Wire) -> bool {
        assert!(
            spec.packet_id.is_some() == (spec.qos != QoS::AtMostOnce),
            "a PUBLISH has a packet identifier if and only if its QoS is above 0"
        );
        if !spec.is_plain() {
            return self.append_encoded(spec, wire).is_some();
        }
        match self.kinds[spec.kind()] {
            Kind::Kept { start, end, id_at } => self.append_kept(spec, wire, start.into()..end.into(), id_at.into()),
            Kind::Unseen => {
                let lengths = self.append_encoded(spec, wire);
                if lengths.is_some() {
                    self.kinds[spec.kind()] = Kind::Seen;
                }
                lengths.is_some()
            }
            Kind::Seen => {
                let packet_at = wire.bytes.len();
                let lengths = self.append_encoded(spec, wire);
                if let Some(lengths) = lengths {
                    self.keep(spec, lengths, &wire.bytes[packet_at..]);
                }
                lengths.is_some()
            }
        }
    }

    /// The payload goes by reference instead of by copy.
    const fn is_shared(&self) -> bool {
        self.view.payload.len() >= SHARED_PAYLOAD_BYTES_MIN
    }

    fn append_kept(
        &mut self,
        spec: &PublishSpec<'_>,
        wire: &mut Wire,
        kept: core::ops::Range<usize>,
        id_at: usize,
    ) -> bool {
        let shared_bytes = if self.is_shared() { self.view.payload.len() } else { 0 };
        if !spec.allows(kept.len() + shared_bytes) {
            return false;
        }
        let packet_at = wire.bytes.len();
        wire.bytes.extend_from_slice(&self.scratch.bytes()[kept]);
        wire.bytes[packet_at] = spec.first_byte();
        if let Some(id) = spec.packet_id {
            wire.bytes[packet_at + id_at..][..2].copy_from_slice(&id.get().to_be_bytes());
        }
        if self.is_shared() {
            wire.push_shared(Arc::clone(self.message()));
        }
        true
    }

    /// Keeps `packet`, which is what `append_encoded` has just written, for the next of its kind.
    fn keep(&mut self, spec: &PublishSpec<'_>, lengths: Lengths, packet: &[u8]) {
        if packet.len() > KEPT_BYTES_MAX {
            return;
        }
        let id_at = 1 + varint_len(lengths.remaining) + 2 + self.view.topic.len();
        let scratch = self.scratch.bytes_mut();
        let start = scratch.len();
        scratch.extend_from_slice(packet);
        self.kinds[spec.kind()] = Kind::Kept { start: place(start), end: place(scratch.len()), id_at: place(id_at) };
    }

    /// Encodes onto the wire, if the subscriber accepts that much.
    fn append_encoded(&mut self, spec: &PublishSpec<'_>, wire: &mut Wire) -> Option<Lengths> {
        let lengths = self.lengths(spec).filter(|lengths| spec.allows(lengths.packet))?;
        if self.is_shared() {
            wire.bytes.reserve(lengths.packet - self.view.payload.len());
            self.put_head(spec, lengths, &mut wire.bytes);
            wire.push_shared(Arc::clone(self.message()));
        } else {
            wire.bytes.reserve(lengths.packet);
            self.put_head(spec, lengths, &mut wire.bytes);
            wire.bytes.extend_from_slice(self.view.payload);
        }
        Some(lengths)
    }

    /// The topic as it stands in the packet: empty once the subscriber knows the alias.
    const fn topic(&self, spec: &PublishSpec<'_>) -> &'m str {
        match spec.alias {
            Some((_, false)) if spec.is_v5() => "",
            _ => self.view.topic,
        }
    }

    /// None if no packet can be that long.
    fn lengths(&self, spec: &PublishSpec<'_>) -> Option<Lengths> {
        let mut properties = 0;
        let mut body = 2 + self.topic(spec).len() + self.view.payload.len();
        if spec.packet_id.is_some() {
            body += 2;
        }
        if spec.is_v5() {
            let expiry = if self.view.expiry_at.is_some() { 5 } else { 0 };
            let alias = if spec.alias.is_some() { 3 } else { 0 };
            let ids: usize = spec.subscription_ids.iter().map(|id| 1 + varint_len(id.get())).sum();
            let forwarded = self.view.properties.len();
            properties = u32::try_from(expiry + alias + ids + forwarded).ok()?;
            body += varint_len(properties) + properties as usize;
        }
        let remaining = u32::try_from(body).ok().filter(|&body| body <= VARINT_MAX)?;
        Some(Lengths { properties, remaining, packet: 1 + varint_len(remaining) + body })
    }

    /// Appends everything but the payload.
    fn put_head(&self, spec: &PublishSpec<'_>, lengths: Lengths, out: &mut Vec<u8>) {
        out.push(spec.first_byte());
        put_varint(out, lengths.remaining);
        put_str(out, self.topic(spec));
        if let Some(id) = spec.packet_id {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        if spec.is_v5() {
            put_varint(out, lengths.properties);
            let mut writer = PropertyWriter::new(out);
            if let Some(at) = self.view.expiry_at {
                writer.u32(PropertyId::MessageExpiryInterval, remaining_seconds(at, self.now));
            }
            if let Some((alias, _)) = spec.alias {
                writer.u16(PropertyId::TopicAlias, alias);
            }
            for id in spec.subscription_ids {
                writer.varint(PropertyId::SubscriptionIdentifier, id.get());
            }
            out.extend_from_slice(self.view.properties);
        }
    }
}

/// The expiry interval as published less the whole seconds that have passed since [MQTT5-3.3.2-6].
fn remaining_seconds(at: Instant, now: Instant) -> u32 {
    let micros = at.since(now).as_micros();
    u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
