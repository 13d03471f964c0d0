//! What all inboxes of a table share: the sums over them, and what changes at rest.
//!
//! The records of a range, in the order of their keys, which is the order in which they are loaded:
//!
//! | key | value |
//! |---|---|
//! | counter | generation of the session made last |
//! | message, number | a message that several sessions have queued |
//! | session, place | who it is, its epoch, expiry and will, and what was in flight when it was left |
//! | subscription, place, subscription | filter and options |
//! | queued, place, sequence | how a message is to be delivered; the message itself, if no other session has it |
//! | received, place, packet id | a QoS 2 publish of the session's client, not released |
//! | held, place, sequence | PUBREC has arrived for that message |
//! | origin, place of the publisher's inbox, packet id | a QoS 2 publish that is in these inboxes already: epoch and number of the publisher's ([`Origin`]) |
//!
//! A message of QoS 0 has no record: it may be lost.

use super::queue::{Carried, Queued, SharedSources, Stored};
use super::session::Inbox;
use super::subscriptions::Subscription;
use super::table::Totals;
use crate::changes::Changes;
use crate::dist::RouteFilter;
use crate::record::{RecordError, Writer, write_client, write_message};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::{InboxSeq, Slot};
use bifro_core::message::{Message, QoS};
use bifro_core::origins::{OriginKey, Origins, note_of, origin_key};
use bifro_core::ports::{FutureWill, Origin, SubOptions};
use bifro_core::time::Instant;
use core::time::Duration;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// First byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Counter = 1,
    Message = 2,
    Session = 3,
    Subscription = 4,
    Queued = 5,
    Received = 6,
    Held = 7,
    Origin = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Counter,
        Self::Message,
        Self::Session,
        Self::Subscription,
        Self::Queued,
        Self::Received,
        Self::Held,
        Self::Origin,
    ];

    /// # Errors
    /// If no key begins so.
    pub(super) fn of(byte: u8) -> Result<Self, RecordError> {
        let found = Self::ALL.into_iter().find(|kind| *kind as u8 == byte);
        found.ok_or(RecordError::Value("kind of key"))
    }
}

pub(super) type Key = SmallVec<[u8; 24]>;

/// A record's key: its kind and numbers, most significant byte first, so that order of keys is order of numbers.
pub(super) fn key(kind: Kind, of: Option<Slot>, last: &[u8]) -> Key {
    let mut key = Key::new();
    key.push(kind as u8);
    if let Some(slot) = of {
        key.extend_from_slice(&slot.index.to_be_bytes());
        key.extend_from_slice(&slot.generation.to_be_bytes());
    }
    key.extend_from_slice(last);
    key
}

/// The place in the session's queue that the key of a record names.
///
/// # Errors
/// If it is no such key.
pub(super) fn place_of_queued(of: Slot, key: &[u8]) -> Result<InboxSeq, RecordError> {
    let place = key.strip_prefix(&*self::key(Kind::Queued, Some(of), &[])).and_then(|place| place.try_into().ok());
    place.map(|place| InboxSeq(u64::from_be_bytes(place))).ok_or(RecordError::Value("key of a queued message"))
}

/// A message that several sessions have queued.
#[derive(Debug)]
pub(super) struct SharedMessage {
    /// How many have.
    pub(super) readers: u32,
    /// It stays in memory, once, while theirs rest.
    pub(super) message: Arc<Message>,
}

/// Whether a session had an owner when its record was written, and what follows if the process has ended since.
#[derive(Clone, Debug)]
pub(super) enum PresenceRecord {
    /// It had: expiry interval in seconds and will, both counted from when the end is noticed.
    Attached { expiry_s: u32, will: Option<FutureWill> },
    /// It had not.
    Detached { expires_at: Option<Instant>, will: Option<(Instant, Arc<Message>)> },
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) totals: Totals,
    /// None where nothing is to be kept.
    pub(super) changes: Option<Changes>,
    /// Messages that several sessions have queued.
    pub(super) shared: HashMap<u64, SharedMessage>,
    pub(super) last_shared: u64,
    /// QoS 2 publishes that are in these inboxes and may be repeated.
    pub(super) origins: Origins,
}

impl Books {
    pub(super) const fn is_durable(&self) -> bool {
        self.changes.is_some()
    }

    pub(super) fn put_counter(&mut self, generation: u32) {
        let Some(changes) = &mut self.changes else { return };
        changes.put(&key(Kind::Counter, None, &[]), false, |out| Writer::begin(out).u32(generation));
    }

    pub(super) fn put_session(&mut self, inbox: &Inbox, presence: &PresenceRecord) {
        let Some(changes) = &mut self.changes else { return };
        changes.put(&key(Kind::Session, Some(inbox.slot), &[]), false, |out| {
            let mut writer = Writer::begin(out);
            write_client(&mut writer, &inbox.client);
            writer.u64(inbox.epoch);
            write_presence(&mut writer, presence);
            writer.count(inbox.in_flight.len());
            for &(packet_id, _, seq) in &inbox.in_flight {
                writer.u16(packet_id.get());
                writer.u64(seq.0);
            }
        });
    }

    pub(super) fn delete_session(&mut self, slot: Slot) {
        let Some(changes) = &mut self.changes else { return };
        changes.delete(&key(Kind::Session, Some(slot), &[]));
    }

    pub(super) fn put_subscription(&mut self, slot: Slot, place: u32, subscription: &Subscription) {
        let Some(changes) = &mut self.changes else { return };
        changes.put(&key(Kind::Subscription, Some(slot), &place.to_be_bytes()), false, |out| {
            let mut writer = Writer::begin(out);
            writer.bytes(subscription.full.as_bytes());
            write_options(&mut writer, &subscription.options);
        });
    }

    pub(super) fn delete_subscription(&mut self, slot: Slot, place: u32) {
        let Some(changes) = &mut self.changes else { return };
        changes.delete(&key(Kind::Subscription, Some(slot), &place.to_be_bytes()));
    }

    /// Where the payload of a message is to be that `receivers` sessions are about to queue.
    pub(super) fn place_message(&mut self, message: &Arc<Message>, receivers: usize) -> Stored {
        let Some(changes) = &mut self.changes else { return Stored::Nowhere };
        if receivers <= 1 {
            return Stored::Inline;
        }
        self.last_shared += 1;
        let number = self.last_shared;
        changes.put(&key(Kind::Message, None, &number.to_be_bytes()), true, |out| {
            write_message(&mut Writer::begin(out), message);
        });
        self.share(number, message);
        Stored::Shared(number)
    }

    /// A message that sessions are about to queue.
    pub(super) fn share(&mut self, number: u64, message: &Arc<Message>) {
        self.totals.resident_bytes += message.footprint_bytes() as u64;
        self.shared.insert(number, SharedMessage { readers: 0, message: message.clone() });
    }

    pub(super) fn shared_message(&self, number: u64) -> Option<Arc<Message>> {
        self.shared.get(&number).map(|shared| shared.message.clone())
    }

    /// A session has queued this message.
    pub(super) fn count_reader(&mut self, number: u64) {
        self.shared.get_mut(&number).expect("it was placed").readers += 1;
    }

    /// Nobody has queued a message for which a place was made.
    pub(super) fn release_place(&mut self, stored: Stored) {
        if let Stored::Shared(number) = stored
            && self.shared.get(&number).is_some_and(|shared| shared.readers == 0)
        {
            self.delete_message(number);
        }
    }

    fn delete_message(&mut self, number: u64) {
        if let Some(shared) = self.shared.remove(&number) {
            self.totals.resident_bytes -= shared.message.footprint_bytes() as u64;
        }
        if let Some(changes) = &mut self.changes {
            changes.delete(&key(Kind::Message, None, &number.to_be_bytes()));
        }
    }

    pub(super) fn put_queued(&mut self, slot: Slot, seq: InboxSeq, queued: &Queued) {
        let (Some(changes), Some(carried)) = (&mut self.changes, &queued.carried) else { return };
        let stored = queued.stored;
        if stored == Stored::Nowhere {
            return;
        }
        let key = key(Kind::Queued, Some(slot), &seq.0.to_be_bytes());
        changes.put(&key, true, |out| write_queued(out, carried, stored));
        if let Stored::Shared(number) = stored {
            self.count_reader(number);
        }
    }

    pub(super) fn delete_queued(&mut self, slot: Slot, seq: InboxSeq, queued: &Queued) {
        let Some(changes) = &mut self.changes else { return };
        if queued.stored == Stored::Nowhere {
            return;
        }
        changes.delete(&key(Kind::Queued, Some(slot), &seq.0.to_be_bytes()));
        if queued.held {
            changes.delete(&key(Kind::Held, Some(slot), &seq.0.to_be_bytes()));
        }
        if let Stored::Shared(number) = queued.stored {
            let shared = self.shared.get_mut(&number).expect("a queued message is counted");
            shared.readers -= 1;
            if shared.readers == 0 {
                self.delete_message(number);
            }
        }
    }

    pub(super) fn put_held(&mut self, slot: Slot, seq: InboxSeq) {
        self.put_empty(&key(Kind::Held, Some(slot), &seq.0.to_be_bytes()));
    }

    pub(super) fn put_received(&mut self, slot: Slot, packet_id: u16) {
        self.put_empty(&key(Kind::Received, Some(slot), &packet_id.to_be_bytes()));
    }

    pub(super) fn delete_received(&mut self, slot: Slot, packet_id: u16) {
        let Some(changes) = &mut self.changes else { return };
        changes.delete(&key(Kind::Received, Some(slot), &packet_id.to_be_bytes()));
    }

    pub(super) fn put_origin(&mut self, origin: &Origin) {
        let Some(changes) = &mut self.changes else { return };
        let (of, note) = (origin_key(origin), note_of(origin));
        self.origins.put(of, note, ());
        changes.put(&key_of_origin(of), false, |out| {
            let mut writer = Writer::begin(out);
            writer.u64(note.epoch);
            writer.u64(note.nth);
        });
    }

    pub(super) fn forget_origin(&mut self, now: Instant, origin: &Origin, in_doubt: bool) {
        let forgotten = self.origins.forget(now, origin, in_doubt);
        let Some(changes) = &mut self.changes else { return };
        forgotten.into_iter().for_each(|of| changes.delete(&key_of_origin(of)));
    }

    /// Groups that a publish was stored for. A note that is gone at once, of the identifier 0, which no publish has, tells whether this is still who leads before anybody
    /// hears the answer.
    pub(super) fn inquire(&mut self, now: Instant, origin: &Origin) -> Vec<u64> {
        let nobody = key_of_origin((origin.inbox.0.0, origin.inbox.1, 0, 0));
        self.put_empty(&nobody);
        if let Some(changes) = &mut self.changes {
            changes.delete(&nobody);
        }
        self.origins.inquire(now, origin, |()| true)
    }

    fn put_empty(&mut self, key: &[u8]) {
        if let Some(changes) = &mut self.changes {
            changes.put(key, false, |out| {
                Writer::begin(out);
            });
        }
    }
}

fn key_of_origin((range, slot, packet_id, group): OriginKey) -> Key {
    let ([a, b], [c, d]) = (range.to_be_bytes(), packet_id.to_be_bytes());
    let [e, f, g, h, i, j, k, l] = group.to_be_bytes();
    let rest = [a, b, c, d, e, f, g, h, i, j, k, l];
    key(Kind::Origin, Some(slot), if group == 0 { &rest[..4] } else { &rest })
}

fn write_presence(writer: &mut Writer<'_>, presence: &PresenceRecord) {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    match presence {
        PresenceRecord::Attached { expiry_s, will } => {
            writer.u8(0);
            writer.u32(*expiry_s);
            writer.u8(u8::from(will.is_some()));
            if let Some(FutureWill { delay, expiry, message }) = will {
                writer.u64(micros(*delay));
                writer.u8(u8::from(expiry.is_some()));
                writer.u64(expiry.map_or(0, micros));
                write_message(writer, message);
            }
        }
        PresenceRecord::Detached { expires_at, will } => {
            writer.u8(1);
            writer.maybe_instant(*expires_at);
            writer.u8(u8::from(will.is_some()));
            if let Some((at, message)) = will {
                writer.u64(at.as_micros());
                write_message(writer, message);
            }
        }
    }
}

fn write_options(writer: &mut Writer<'_>, options: &SubOptions) {
    let SubOptions { qos, no_local, retain_as_published, subscription_id, check_deliveries } = *options;
    writer.u8(qos as u8);
    writer.u8(u8::from(no_local) | u8::from(retain_as_published) << 1 | u8::from(check_deliveries) << 2);
    writer.u32(subscription_id.map_or(0, core::num::NonZeroU32::get));
}

fn write_queued(out: &mut alloc::vec::Vec<u8>, Carried { message, shared }: &Carried, stored: Stored) {
    let mut writer = Writer::begin(out);
    let counts = [message.subscription_ids.len(), shared.len()];
    let is_plain = counts == [0, 0];
    let is_shared = matches!(stored, Stored::Shared(_));
    writer.u8(message.qos as u8);
    writer.u8(u8::from(message.retain)
        | u8::from(message.check_delivery) << 1
        | u8::from(is_shared) << 2
        | u8::from(is_plain) << 3);
    if !is_plain {
        writer.count(counts[0]);
        message.subscription_ids.iter().for_each(|id| writer.u32(id.get()));
        write_sources(&mut writer, shared);
    }
    match stored {
        Stored::Shared(number) => writer.u64(number),
        Stored::Inline | Stored::Nowhere => write_message(&mut writer, &message.message),
    }
}

fn write_sources(writer: &mut Writer<'_>, sources: &SharedSources) {
    writer.count(sources.len());
    for source in sources {
        let RouteFilter { filter, group } = &**source;
        writer.bytes(filter.as_bytes());
        writer.u8(u8::from(group.is_some()));
        if let Some(group) = group {
            writer.bytes(group.name.as_bytes());
            writer.u8(u8::from(group.ordered));
        }
    }
}

/// Whether a message of this QoS is kept at rest.
pub(super) const fn is_kept(qos: QoS) -> bool {
    !matches!(qos, QoS::AtMostOnce)
}
