//! Taking over what an earlier process has left: records in the order of their keys, then one call that makes sessions of them.

use super::books::{Kind, PresenceRecord};
use super::effect::InboxEffect;
use super::queue::{Carried, Queued, SharedSources, Stage, Stored};
use super::session::{Inbox, Presence};
use super::table::InboxTable;
use crate::dist::RouteFilter;
use crate::key::TenantKey;
use crate::record::{Reader, RecordError, read_client, read_message};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::{InboxSeq, Slot, publisher_key};
use bifro_core::limits::INBOX_PUSH_WINDOW;
use bifro_core::message::{Message, QoS};
use bifro_core::origins::Note;
use bifro_core::ports::{FutureWill, GroupName, InboxMessage, Receiver, SubOptions};
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Records on their way into a table.
#[derive(Debug)]
pub struct Loader {
    table: InboxTable,
    last_generation: u32,
    messages: HashMap<u64, Arc<Message>>,
    presences: Vec<(Slot, PresenceRecord)>,
}

/// A key's numbers, behind its kind.
struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn slot(&mut self) -> Result<Slot, RecordError> {
        Ok(Slot { index: u32::from_be_bytes(self.take()?), generation: u32::from_be_bytes(self.take()?) })
    }

    fn seq(&mut self) -> Result<InboxSeq, RecordError> {
        Ok(InboxSeq(u64::from_be_bytes(self.take()?)))
    }
}

impl Loader {
    /// Into this table, which must be empty.
    pub fn new(table: InboxTable) -> Self {
        Self { table, last_generation: 0, messages: HashMap::new(), presences: Vec::new() }
    }

    /// Takes the next record. `tenant` finds a tenant by its name.
    ///
    /// # Errors
    /// If it is not exactly one record, or speaks of what does not exist.
    pub fn load(
        &mut self,
        key: &[u8],
        value: &[u8],
        tenant: impl FnOnce(&str) -> Arc<TenantCtx>,
    ) -> Result<(), RecordError> {
        let (&kind, numbers) = key.split_first().ok_or(RecordError::Truncated)?;
        let (mut key, mut value) = (Key(numbers), Reader::new(value)?);
        match Kind::of(kind)? {
            Kind::Counter => self.last_generation = value.u32()?,
            Kind::Message => {
                let number = u64::from_be_bytes(key.take()?);
                self.messages.insert(number, read_message(&mut value)?);
            }
            Kind::Session => self.session(key.slot()?, &mut value, tenant)?,
            Kind::Subscription => {
                let (slot, place) = (key.slot()?, u32::from_be_bytes(key.take()?));
                self.subscription(slot, place, &mut value)?;
            }
            Kind::Queued => {
                let (slot, seq) = (key.slot()?, key.seq()?);
                self.queued(slot, seq, &mut value)?;
            }
            Kind::Received => {
                let (slot, packet_id) = (key.slot()?, u16::from_be_bytes(key.take()?));
                self.inbox(slot)?.received_qos2.push(packet_id);
            }
            Kind::Held => {
                let (slot, seq) = (key.slot()?, key.seq()?);
                self.inbox(slot)?.queue.hold(seq);
            }
            Kind::Origin => {
                let slot = key.slot()?;
                let (range, packet_id) = (u16::from_be_bytes(key.take()?), u16::from_be_bytes(key.take()?));
                let group = if key.0.is_empty() { 0 } else { u64::from_be_bytes(key.take()?) };
                // Version 0.1 had no more than the key.
                let (epoch, nth) = if value.is_at_end() { (0, 0) } else { (value.u64()?, value.u64()?) };
                self.table.books.origins.put((range, slot, packet_id, group), Note { epoch, nth }, ());
            }
        }
        if !key.0.is_empty() {
            return Err(RecordError::Trailing);
        }
        value.finish()
    }

    fn inbox(&mut self, slot: Slot) -> Result<&mut Inbox, RecordError> {
        self.table.inboxes.occupant_mut(slot).ok_or(RecordError::Value("session"))
    }

    fn session(
        &mut self,
        slot: Slot,
        value: &mut Reader<'_>,
        tenant: impl FnOnce(&str) -> Arc<TenantCtx>,
    ) -> Result<(), RecordError> {
        let client = read_client(value)?;
        let epoch = value.u64()?;
        let presence = read_presence(value)?;
        let mut in_flight = Vec::new();
        for _ in 0..value.count()? {
            let packet_id = NonZeroU16::new(value.u16()?).ok_or(RecordError::Value("packet identifier"))?;
            in_flight.push((packet_id, false, InboxSeq(value.u64()?)));
        }
        let tenant = tenant(&client.tenant);
        let table = &mut self.table;
        let publisher = publisher_key(table.seed(), &tenant.name, &client.client_id);
        let key = TenantKey { tenant: tenant.idx, name: (&*client.client_id).into() };
        // Who owned it has gone with the earlier process; when it expires is decided in `finish`.
        let nobody = Presence::Detached { expires_at: None, will: None };
        let mut inbox = Inbox::new(slot, tenant.idx, client, publisher, tenant.quota.clone(), epoch, nobody);
        inbox.in_flight = in_flight;
        if table.index.insert(key, slot).is_some() || !table.inboxes.restore(slot, inbox) {
            return Err(RecordError::Value("place of a session"));
        }
        tenant.quota.recount(Resource::TotalPersistentSessions, 0, 1);
        table.books.totals.inboxes += 1;
        table.last_epoch = table.last_epoch.max(epoch);
        self.presences.push((slot, presence));
        Ok(())
    }

    fn subscription(&mut self, slot: Slot, place: u32, value: &mut Reader<'_>) -> Result<(), RecordError> {
        let full = value.str()?;
        let options = read_options(value)?;
        let target = Arc::new(RouteFilter::parse(full));
        let inbox = self.inbox(slot)?;
        inbox.quota.recount(Resource::TotalPersistentSubscriptions, 0, 1);
        if target.group.is_some() {
            inbox.quota.recount(Resource::TotalSharedSubscriptions, 0, 1);
        }
        inbox.subscriptions.restore(place, full, target, options);
        Ok(())
    }

    fn queued(&mut self, slot: Slot, seq: InboxSeq, value: &mut Reader<'_>) -> Result<(), RecordError> {
        let (carried, stored) = read_queued(value, seq, |number| self.messages.get(&number).cloned())?;
        if let Stored::Shared(number) = stored {
            let books = &mut self.table.books;
            if !books.shared.contains_key(&number) {
                books.share(number, &carried.message.message);
            }
            books.count_reader(number);
        }
        let presence = self.presences.binary_search_by_key(&slot, |(of, _)| *of).ok().map(|at| &self.presences[at].1);
        let was_attached = matches!(presence, Some(PresenceRecord::Attached { .. }));
        let Carried { message, shared } = carried;
        let is_exactly_once = message.qos == QoS::ExactlyOnce;
        let inbox = self.inbox(slot)?;
        let is_early = inbox.queue.len() < INBOX_PUSH_WINDOW && (was_attached || is_exactly_once);
        let may_be_in_flight = is_early || inbox.in_flight.iter().any(|(_, _, one)| *one == seq);
        inbox.queue.put(seq, message, shared, stored);
        if !may_be_in_flight {
            inbox.queue.rest(seq);
        }
        Ok(())
    }

    /// Every record has been loaded: sessions go on where they stood. Those that had an owner expect it, once
    /// [`InboxTable::expect_owners`] is called, if there is a `first` place for new messages: one that is beyond all which any other leader has
    /// given out, so that an owner can say what it has. Otherwise they go on as if their connections had broken `now`. Emits the routes to be
    /// added; wills and expiry follow by the timer.
    pub fn finish(self, now: Instant, first: Option<InboxSeq>, effects: &mut Vec<InboxEffect>) -> InboxTable {
        let Self { mut table, last_generation, messages, presences } = self;
        let range = table.range();
        table.inboxes.restored(last_generation);
        table.books.last_shared = messages.keys().copied().max().unwrap_or(0);
        for (slot, presence) in presences {
            let Some(inbox) = table.inboxes.occupant_mut(slot) else { continue };
            let was_attached = matches!(presence, PresenceRecord::Attached { .. });
            match presence {
                PresenceRecord::Attached { expiry_s, will } => {
                    inbox.lose_owner(Box::new((expiry_s, will)), None);
                }
                PresenceRecord::Detached { expires_at, will } => {
                    inbox.presence = Presence::Detached { expires_at, will };
                    inbox.restore(Witness::Record);
                }
            }
            match first {
                Some(first) => inbox.queue.skip_to(first),
                None => inbox.give_up_owner(now),
            }
            inbox.recount();
            inbox.settle(&mut table.books);
            for (subscription, entry) in inbox.subscriptions.iter() {
                let receiver = Receiver::Inbox { range, inbox: slot, subscription };
                effects.push(InboxEffect::AddRoute { tenant: inbox.tenant, route: entry.target.clone(), receiver });
            }
            if was_attached && first.is_none() {
                table.put_detached(slot);
            }
            table.set_deadline(slot);
        }
        // A crash between a message's record and the last of its readers' leaves none behind: they are of one entry.
        debug_assert!(messages.keys().all(|number| table.books.shared.contains_key(number)));
        table
    }
}

/// How it is known what a session's last owner was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// The owner left in order: the session's record says what was in flight.
    Record,
    /// This table pushed it.
    Table,
    /// An earlier process or leader did. It may be whatever the window lets through, all of which has been kept in memory.
    Nobody,
}

impl Inbox {
    /// Nobody speaks for the session any more, and what its last owner did not come to say is not known.
    pub(super) fn restore(&mut self, witness: Witness) {
        self.restore_in_flight(witness);
        self.rewind();
        self.queue.rest_all();
    }

    /// What may have reached the client is sent again under its identifier [MQTT-4.4.0-1].
    fn restore_in_flight(&mut self, witness: Witness) {
        self.in_flight.retain(|&(_, _, seq)| self.queue.entry(seq).is_some());
        let known: Vec<InboxSeq> = self.in_flight.iter().map(|&(_, _, seq)| seq).collect();
        let window = if witness == Witness::Record { 0 } else { self.pushed_at_most() };
        let was_pushed = |queued: &Queued| witness == Witness::Nobody || queued.stage != Stage::Waiting;
        let pushed = self.queue.iter().take(window).filter(|(_, queued)| was_pushed(queued));
        // Queued with PUBREC seen and yet not in the record: the crash came between the two.
        let held = self.queue.iter().skip(window).filter(|(_, queued)| queued.held);
        let more = pushed.chain(held).filter(|(seq, _)| !known.contains(seq));
        let more: Vec<_> = more.map(|(seq, queued)| (seq.packet_id(), queued.held, seq)).collect();
        if !more.is_empty() {
            self.in_flight.extend(more);
            // Nobody knows in which order they were sent, but all that are of one topic were in that of their places.
            self.in_flight.sort_by_key(|&(_, _, seq)| seq);
        }
    }
}

impl Inbox {
    /// How many messages an owner may have been pushed: those from the first on whose packet identifiers differ.
    fn pushed_at_most(&self) -> usize {
        let mut used: Vec<NonZeroU16> = Vec::with_capacity(INBOX_PUSH_WINDOW);
        let fresh = |(seq, _): &(InboxSeq, &Queued)| {
            let is_fresh = !used.contains(&seq.packet_id());
            used.push(seq.packet_id());
            is_fresh
        };
        self.queue.iter().take(INBOX_PUSH_WINDOW).take_while(fresh).count()
    }
}

/// What the record of a queued message says. `shared` finds a message that several sessions have.
///
/// # Errors
/// If it is no such record, or the message is not there.
pub(super) fn read_queued(
    value: &mut Reader<'_>,
    seq: InboxSeq,
    shared: impl FnOnce(u64) -> Option<Arc<Message>>,
) -> Result<(Carried, Stored), RecordError> {
    let qos = read_qos(value)?;
    let flags = value.u8()?;
    let (mut subscription_ids, mut sources) = (SmallVec::new(), SharedSources::new());
    if flags & 8 == 0 {
        for _ in 0..value.count()? {
            subscription_ids.push(NonZeroU32::new(value.u32()?).ok_or(RecordError::Value("subscription id"))?);
        }
        sources = read_sources(value)?;
    }
    let (message, stored) = if flags & 4 == 0 {
        (read_message(value)?, Stored::Inline)
    } else {
        let number = value.u64()?;
        (shared(number).ok_or(RecordError::Value("number of a message"))?, Stored::Shared(number))
    };
    let (retain, check_delivery) = (flags & 1 != 0, flags & 2 != 0);
    let message = InboxMessage { seq: Some(seq), message, qos, retain, subscription_ids, check_delivery };
    Ok((Carried { message, shared: sources }, stored))
}

fn read_qos(value: &mut Reader<'_>) -> Result<QoS, RecordError> {
    QoS::from_bits(value.u8()?).ok_or(RecordError::Value("QoS"))
}

fn read_options(value: &mut Reader<'_>) -> Result<SubOptions, RecordError> {
    let (qos, flags) = (read_qos(value)?, value.u8()?);
    Ok(SubOptions {
        qos,
        no_local: flags & 1 != 0,
        retain_as_published: flags & 2 != 0,
        check_deliveries: flags & 4 != 0,
        subscription_id: NonZeroU32::new(value.u32()?),
    })
}

fn read_presence(value: &mut Reader<'_>) -> Result<PresenceRecord, RecordError> {
    match value.u8()? {
        0 => {
            let expiry_s = value.u32()?;
            let will = if value.flag()? {
                let delay = Duration::from_micros(value.u64()?);
                let expires = value.flag()?;
                let expiry = Duration::from_micros(value.u64()?);
                let message = read_message(value)?;
                Some(FutureWill { delay, expiry: expires.then_some(expiry), message })
            } else {
                None
            };
            Ok(PresenceRecord::Attached { expiry_s, will })
        }
        1 => {
            let expires_at = value.maybe_instant()?;
            let will = if value.flag()? { Some((value.instant()?, read_message(value)?)) } else { None };
            Ok(PresenceRecord::Detached { expires_at, will })
        }
        _ => Err(RecordError::Value("presence")),
    }
}

fn read_sources(value: &mut Reader<'_>) -> Result<SharedSources, RecordError> {
    let mut sources = SharedSources::new();
    for _ in 0..value.count()? {
        let filter = value.str()?.into();
        let group =
            if value.flag()? { Some(GroupName { name: value.str()?.into(), ordered: value.flag()? }) } else { None };
        sources.push(Arc::new(RouteFilter { filter, group }));
    }
    Ok(sources)
}
