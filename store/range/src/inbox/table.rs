//! All persistent sessions of one partition.

use super::books::{Books, PresenceRecord};
use super::effect::InboxEffect;
use super::session::{Inbox, Presence};
use super::subscriptions::{Route, Waiting};
use crate::changes::Changes;
use crate::deadlines::Deadlines;
use crate::dist::RouteFilter;
use crate::key::{ReplyTo, TenantKey, TenantKeyRef};
use crate::limits::SESSIONS_EXPIRED_PER_CALL_MAX;
use crate::slots::SlotTable;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ConnRef, InboxSeq, NodeIdx, RangeIdx, Slot, TenantIdx, publisher_key};
use bifro_core::ports::{AttachTerms, Attached, DetachState, Origin, PortError, Receiver, SubOptions};
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use core::time::Duration;
use hashbrown::HashMap;

/// Who claims to speak for an inbox: true as long as both are what the last attach answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    /// The inbox.
    pub inbox: Slot,
    /// Epoch of the attach.
    pub epoch: u64,
}

fn owner_of(origin: &Origin) -> OwnerRef {
    OwnerRef { inbox: origin.inbox.1, epoch: origin.epoch }
}

/// Sums over all inboxes of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Persistent sessions.
    pub inboxes: u64,
    /// Messages queued.
    pub messages: u64,
    /// Bytes of messages queued, see [`queued_bytes`](super::queued_bytes).
    pub bytes: u64,
    /// Of these, what is in memory: messages that rest in the records count with their entry in the queue.
    pub resident_bytes: u64,
    /// Messages dropped so far because a queue was full.
    pub dropped_full: u64,
    /// Messages dropped so far because they expired.
    pub dropped_expired: u64,
}

/// The persistent sessions of one partition.
#[derive(Debug)]
pub struct InboxTable {
    range: RangeIdx,
    seed: u64,
    pub(super) inboxes: SlotTable<Inbox>,
    pub(super) index: HashMap<TenantKey, Slot>,
    pub(super) deadlines: Deadlines<Slot>,
    pub(super) last_epoch: u64,
    pub(super) books: Books,
}

impl InboxTable {
    /// An empty table that is forgotten with the process. `range` is where receivers of routes find it, `seed` the process's seed of publisher keys.
    pub fn new(range: RangeIdx, seed: u64) -> Self {
        Self {
            range,
            seed,
            inboxes: SlotTable::new(),
            index: HashMap::new(),
            deadlines: Deadlines::default(),
            last_epoch: 0,
            books: Books::default(),
        }
    }

    /// An empty table whose changes are to be written. `seed` must be the same in the next process.
    pub fn durable(range: RangeIdx, seed: u64) -> Self {
        let mut table = Self::new(range, seed);
        table.books.changes = Some(Changes::new());
        table
    }

    /// What has changed at rest and was not taken yet; none if nothing is to be kept.
    pub const fn changes(&mut self) -> Option<&mut Changes> {
        self.books.changes.as_mut()
    }

    /// Sums over all inboxes.
    pub const fn totals(&self) -> Totals {
        self.books.totals
    }

    /// Makes `conn` the owner of its client's session: of the one there is, or of a new one.
    #[expect(clippy::too_many_arguments, reason = "the request's fields, each of another type")]
    pub fn attach(
        &mut self,
        now: Instant,
        to: ReplyTo,
        conn: ConnRef,
        client: &Client,
        tenant: &TenantCtx,
        terms: AttachTerms,
        effects: &mut Vec<InboxEffect>,
    ) {
        let found = self.index.get(&key_of(tenant.idx, client)).copied();
        if let Some(slot) = found {
            let expired = self.inboxes.occupant(slot).is_some_and(|inbox| inbox.is_expired(now));
            if !terms.clean_start && !expired {
                self.resume(now, to, conn, client, slot, terms, effects);
                return;
            }
            // Clean Start discards the session, which thereby ends [MQTT-3.1.2-6] [MQTT5-3.1.2-4].
            self.end(now, slot, effects);
        }
        if !tenant.quota.acquire(Resource::TotalPersistentSessions, 1) {
            let detail = "no more persistent sessions: the tenant's quota is used up";
            effects.push(InboxEffect::Event(Event::of(EventKind::OutOfTenantResource, Some(client), detail)));
            effects.push(InboxEffect::Attached { to, result: Err(PortError::QuotaExceeded) });
            return;
        }
        let publisher = publisher_key(self.seed, &tenant.name, &client.client_id);
        let epoch = self.take_epoch();
        let (quota, presence) = (tenant.quota.clone(), attached_by(conn, to.claim, &terms));
        let slot =
            self.inboxes.insert(|slot| Inbox::new(slot, tenant.idx, client.clone(), publisher, quota, epoch, presence));
        self.index.insert(key_of(tenant.idx, client).to_key(), slot);
        self.books.totals.inboxes += 1;
        self.books.put_counter(slot.generation);
        self.put_attached(slot, terms);
        let durable = self.books.is_durable();
        let attached = Attached { inbox: Some((self.range, slot)), epoch, durable, ..Attached::default() };
        effects.push(InboxEffect::Attached { to, result: Ok(Box::new(attached)) });
    }

    /// Goes on with a session [MQTT-3.1.2-4] [MQTT5-3.1.2-5]. Its will is not published: a new connection was made in time
    /// [MQTT5-3.1.3-9].
    #[expect(clippy::too_many_arguments, reason = "the request's fields, each of another type")]
    fn resume(
        &mut self,
        now: Instant,
        to: ReplyTo,
        conn: ConnRef,
        client: &Client,
        slot: Slot,
        terms: AttachTerms,
        effects: &mut Vec<InboxEffect>,
    ) {
        let (range, durable) = (self.range, self.books.is_durable());
        let epoch = self.take_epoch();
        let Some(inbox) = self.inboxes.occupant_mut(slot) else { return };
        inbox.epoch = epoch;
        inbox.client = client.clone();
        let before = core::mem::replace(&mut inbox.presence, attached_by(conn, to.claim, &terms));
        if let Presence::Attached(owner, claim, _) = before
            && owner != conn
        {
            // It has not left, or this request was under way for so long that the client has come back meanwhile: then it has to once more.
            effects.push(InboxEffect::Lost { conn: owner, claim });
        }
        inbox.rewind();
        let attached = inbox.resumed(range, durable);
        // Its last owner may have left before all ranges had forgotten what was noted here, and nobody else will see to that.
        effects.push(if durable && !inbox.received_qos2.is_empty() {
            InboxEffect::SettleAndAttach { to, attached }
        } else {
            InboxEffect::Attached { to, result: Ok(attached) }
        });
        inbox.push(now, &mut self.books, effects);
        inbox.settle(&mut self.books);
        self.set_deadline(slot);
        self.put_attached(slot, terms);
    }

    /// The record of a session that has an owner.
    fn put_attached(&mut self, slot: Slot, terms: AttachTerms) {
        if let Some(inbox) = self.inboxes.occupant(slot) {
            let AttachTerms { expiry_s, will, .. } = terms;
            self.books.put_session(inbox, &PresenceRecord::Attached { expiry_s, will });
        }
    }

    /// Ends the client's session, if it has one: a transient one begins.
    pub fn discard(
        &mut self,
        now: Instant,
        to: ReplyTo,
        tenant: TenantIdx,
        client: &Client,
        effects: &mut Vec<InboxEffect>,
    ) {
        if let Some(&slot) = self.index.get(&key_of(tenant, client)) {
            self.end(now, slot, effects);
        }
        effects.push(InboxEffect::Detached { to });
    }

    /// The owner has gone and leaves `state`; the session stays for its expiry interval [MQTT5-3.1.2-23] [MQTT-3.1.2-5].
    pub fn detach(
        &mut self,
        now: Instant,
        to: ReplyTo,
        owner: OwnerRef,
        client: &Client,
        state: DetachState,
        effects: &mut Vec<InboxEffect>,
    ) {
        match self.inboxes.occupant_mut(owner.inbox) {
            // It is held for lost already, or this is said a second time, since an earlier leader has not answered.
            Some(inbox) if matches!(inbox.presence, Presence::Detached { .. }) => {}
            Some(inbox) if inbox.epoch == owner.epoch => {
                if matches!(inbox.presence, Presence::Expected { .. }) {
                    inbox.reclaim(&state.in_hand, &mut self.books);
                }
                // A durable inbox was told of each when it was received.
                if !self.books.is_durable() {
                    inbox.received_qos2 = state.received_qos2;
                }
                inbox.take_over(state.in_flight, state.waiting, &mut self.books);
                inbox.rewind();
                let expires_at =
                    (state.expiry_s != u32::MAX).then(|| now + Duration::from_secs(u64::from(state.expiry_s)));
                let will = state.will.map(|(delay, will)| (now + delay, will));
                inbox.presence = Presence::Detached { expires_at, will };
                inbox.queue.rest_all();
                inbox.settle(&mut self.books);
                if !self.fire(now, owner.inbox, effects) {
                    self.put_detached(owner.inbox);
                }
            }
            // Another connection has resumed the session: the will is not due [MQTT5-3.1.3-9].
            Some(_) => {}
            // The session was discarded under this connection, and has thereby ended: the will is due [MQTT5-3.1.2-8].
            None => {
                let client = client.clone();
                effects.extend(state.will.map(|(_, will)| InboxEffect::WillDue { client, will }));
            }
        }
        effects.push(InboxEffect::Detached { to });
    }

    /// Adds a subscription, or replaces the options of the one there is; answered once the route is in place.
    pub fn subscribe(
        &mut self,
        to: ReplyTo,
        owner: OwnerRef,
        full: &str,
        options: SubOptions,
        effects: &mut Vec<InboxEffect>,
    ) {
        let range = self.range;
        let Some(inbox) = self.owned(owner) else {
            effects.push(InboxEffect::Subscribed { to, result: Err(PortError::NotOwner) });
            return;
        };
        if let Some(subscription) = inbox.replace_options(full, options) {
            match &mut subscription.route {
                Route::Added => effects.push(InboxEffect::Subscribed { to, result: Ok(true) }),
                Route::Pending(waiting) => waiting.push((to, true)),
            }
            self.put_subscription(owner.inbox, full);
            return;
        }
        let route = Arc::new(RouteFilter::parse(full));
        let shared = route.group.is_some();
        if !inbox.acquire_subscription(shared) {
            let detail = "no more persistent subscriptions: the tenant's quota is used up";
            let event = Event::of(EventKind::OutOfTenantResource, Some(&inbox.client), detail).on(full);
            effects.push(InboxEffect::Event(event));
            effects.push(InboxEffect::Subscribed { to, result: Err(PortError::QuotaExceeded) });
            return;
        }
        match inbox.subscriptions.add(full, route.clone(), options, to) {
            Ok(subscription) => {
                let receiver = Receiver::Inbox { range, inbox: owner.inbox, subscription };
                effects.push(InboxEffect::AddRoute { tenant: inbox.tenant, route, receiver });
                self.put_subscription(owner.inbox, full);
            }
            Err(refusal) => {
                inbox.release_subscription(shared);
                effects.push(InboxEffect::Subscribed { to, result: Err(refusal) });
            }
        }
    }

    /// The answer to [`InboxEffect::AddRoute`]. A refusal ends the subscription.
    pub fn route_added(
        &mut self,
        inbox: Slot,
        subscription: u32,
        result: Result<(), PortError>,
        effects: &mut Vec<InboxEffect>,
    ) {
        let receiver = Receiver::Inbox { range: self.range, inbox, subscription };
        let Some(inbox) = self.inboxes.occupant_mut(inbox) else { return };
        let Some(entry) = inbox.subscriptions.at_mut(subscription) else { return };
        match result {
            Ok(()) => {
                if let Route::Pending(waiting) = core::mem::replace(&mut entry.route, Route::Added) {
                    answer(waiting, effects);
                }
            }
            Err(refusal) => {
                let full = entry.full.clone();
                if let Some((_, entry)) = inbox.subscriptions.remove(&full) {
                    self.books.delete_subscription(inbox.slot, subscription);
                    inbox.drop_subscription(receiver, entry, Some(refusal), effects);
                }
            }
        }
    }

    /// Removes a subscription. What is queued stays [MQTT-3.10.4-3] [MQTT5-3.10.4-3].
    pub fn unsubscribe(&mut self, to: ReplyTo, owner: OwnerRef, full: &str, effects: &mut Vec<InboxEffect>) {
        let range = self.range;
        let removed = self.owned(owner).and_then(|inbox| {
            let (subscription, entry) = inbox.subscriptions.remove(full)?;
            let receiver = Receiver::Inbox { range, inbox: owner.inbox, subscription };
            inbox.drop_subscription(receiver, entry, None, effects);
            Some(subscription)
        });
        if let Some(subscription) = removed {
            self.books.delete_subscription(owner.inbox, subscription);
        }
        effects.push(InboxEffect::Unsubscribed { to, existed: removed.is_some() });
    }

    fn put_subscription(&mut self, slot: Slot, full: &str) {
        let subscriptions = self.inboxes.occupant(slot).map(|inbox| &inbox.subscriptions);
        if let Some((place, subscription)) = subscriptions.and_then(|subscriptions| subscriptions.find(full)) {
            self.books.put_subscription(slot, place, subscription);
        }
    }

    /// The client has done with these messages: they are forgotten, and as many more are pushed.
    pub fn commit(&mut self, now: Instant, owner: OwnerRef, done: &[InboxSeq], effects: &mut Vec<InboxEffect>) {
        let Some(inbox) = self.inboxes.occupant_mut(owner.inbox).filter(|inbox| inbox.epoch == owner.epoch) else {
            return;
        };
        for &seq in done {
            inbox.remove(seq, &mut self.books);
        }
        inbox.push(now, &mut self.books, effects);
        inbox.settle(&mut self.books);
    }

    /// PUBREC has arrived for a message: what its client is sent from now on is PUBREL.
    pub fn hold(&mut self, to: ReplyTo, owner: OwnerRef, seq: InboxSeq, effects: &mut Vec<InboxEffect>) {
        let result = self.step(owner, |inbox, books| inbox.hold(seq, books));
        effects.push(InboxEffect::Done { to, result });
    }

    /// A QoS 2 publish of the session's client has been taken over; a repetition is to be recognised from now on.
    pub fn receive(&mut self, to: ReplyTo, origin: Origin, effects: &mut Vec<InboxEffect>) {
        let result = self.step(owner_of(&origin), |inbox, books| {
            if !inbox.received_qos2.contains(&origin.packet_id) {
                inbox.received_qos2.push(origin.packet_id);
                books.put_received(inbox.slot, origin.packet_id);
            }
        });
        effects.push(InboxEffect::Done { to, result });
    }

    /// PUBREL: the packet identifier is free again.
    pub fn release(&mut self, to: ReplyTo, origin: Origin, effects: &mut Vec<InboxEffect>) {
        let result = self.step(owner_of(&origin), |inbox, books| {
            if let Some(at) = inbox.received_qos2.iter().position(|&id| id == origin.packet_id) {
                inbox.received_qos2.remove(at);
                books.delete_received(inbox.slot, origin.packet_id);
            }
        });
        effects.push(InboxEffect::Done { to, result });
    }

    /// A step of an exchange, which only the session's owner may take: of another's exchanges it knows nothing.
    fn step(&mut self, owner: OwnerRef, step: impl FnOnce(&mut Inbox, &mut Books)) -> Result<(), PortError> {
        let inbox = self.inboxes.occupant_mut(owner.inbox).filter(|inbox| inbox.epoch == owner.epoch);
        step(inbox.ok_or(PortError::NotOwner)?, &mut self.books);
        Ok(())
    }

    /// Whether nobody has attached to the session since.
    pub fn is_owned(&self, owner: OwnerRef) -> bool {
        self.inboxes.occupant(owner.inbox).is_some_and(|inbox| inbox.epoch == owner.epoch)
    }

    /// The publisher's inbox recognises repetitions of this publish itself now, or it has failed. `in_doubt`: it may still be on its way, and is not taken any more.
    pub fn forget(
        &mut self,
        now: Instant,
        to: ReplyTo,
        origin: Origin,
        in_doubt: bool,
        effects: &mut Vec<InboxEffect>,
    ) {
        self.books.forget_origin(now, &origin, in_doubt);
        effects.push(InboxEffect::Done { to, result: Ok(()) });
    }

    /// Which groups have members here that a publish was stored for; see [`Origins::inquire`](bifro_core::origins::Origins::inquire).
    pub fn inquire(&mut self, now: Instant, to: ReplyTo, origin: Origin, effects: &mut Vec<InboxEffect>) {
        let groups = self.books.inquire(now, &origin);
        effects.push(InboxEffect::Found { to, groups });
    }

    /// As [`Self::forget`] of several, for an attach that waits: [`InboxEffect::Settled`] answers.
    pub fn settle(&mut self, now: Instant, to: ReplyTo, origins: &[Origin], effects: &mut Vec<InboxEffect>) {
        origins.iter().for_each(|origin| self.books.forget_origin(now, origin, false));
        effects.push(InboxEffect::Settled { to });
    }

    /// When [`InboxTable::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Publishes wills and ends sessions whose time has come, at most
    /// [`SESSIONS_EXPIRED_PER_CALL_MAX`] of them.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<InboxEffect>) {
        for _ in 0..SESSIONS_EXPIRED_PER_CALL_MAX {
            let Some(slot) = self.deadlines.pop_due(now) else { return };
            if let Some(inbox) = self.inboxes.occupant_mut(slot) {
                inbox.deadline = None;
            }
            if !self.fire(now, slot, effects) {
                self.put_detached(slot);
            }
        }
    }

    /// Does what is due for one session that has no owner, and sets its next deadline. True if the session has ended.
    pub(super) fn fire(&mut self, now: Instant, slot: Slot, effects: &mut Vec<InboxEffect>) -> bool {
        let Some(inbox) = self.inboxes.occupant_mut(slot) else { return true };
        if matches!(inbox.presence, Presence::Expected { until: Some(until), .. } if until <= now) {
            inbox.give_up_owner(now);
        }
        if inbox.is_expired(now) {
            self.end(now, slot, effects);
            return true;
        }
        if let Some(will) = inbox.take_due_will(now) {
            effects.push(InboxEffect::WillDue { client: inbox.client.clone(), will });
        }
        self.set_deadline(slot);
        false
    }

    /// Has the timer look at a session when something is due for it, and not when it was before.
    pub(super) fn set_deadline(&mut self, slot: Slot) {
        let Some(inbox) = self.inboxes.occupant_mut(slot) else { return };
        let next = inbox.next_deadline();
        if let Some(before) = core::mem::replace(&mut inbox.deadline, next) {
            self.deadlines.clear(before, slot);
        }
        if let Some(at) = next {
            self.deadlines.set(at, slot);
        }
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) const fn range(&self) -> RangeIdx {
        self.range
    }

    /// The record of a session that has no owner.
    pub(super) fn put_detached(&mut self, slot: Slot) {
        let Some(inbox) = self.inboxes.occupant(slot) else { return };
        if let Some(presence) = inbox.presence_record() {
            self.books.put_session(inbox, &presence);
        }
    }

    fn end(&mut self, now: Instant, slot: Slot, effects: &mut Vec<InboxEffect>) {
        let Some(inbox) = self.inboxes.remove(slot) else { return };
        self.index.remove(&key_of(inbox.tenant, &inbox.client));
        if let Some(at) = inbox.deadline {
            self.deadlines.clear(at, slot);
        }
        inbox.end(now, self.range, &mut self.books, effects);
    }

    fn owned(&mut self, owner: OwnerRef) -> Option<&mut Inbox> {
        self.inboxes.occupant_mut(owner.inbox).filter(|inbox| inbox.epoch == owner.epoch)
    }

    const fn take_epoch(&mut self) -> u64 {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Checks the invariants, in time proportional to everything held.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        assert_eq!(self.index.len(), self.inboxes.len());
        let (mut messages, mut bytes, mut resident) = (0, 0, 0);
        for (key, &slot) in &self.index {
            let inbox = self.inboxes.occupant(slot).expect("the index names occupants");
            assert_eq!(*key.name, *inbox.client.client_id);
            assert_eq!(inbox.deadline, inbox.next_deadline(), "a session's deadline is the one that was set");
            inbox.queue.validate();
            messages += inbox.queue.len() as u64;
            bytes += inbox.queue.bytes();
            resident += inbox.queue.resident_bytes();
        }
        resident += self.books.shared.values().map(|shared| shared.message.footprint_bytes() as u64).sum::<u64>();
        let found = Totals {
            inboxes: self.inboxes.len() as u64,
            messages,
            bytes,
            resident_bytes: resident,
            ..self.books.totals
        };
        assert_eq!(self.books.totals, found);
    }
}

fn answer(waiting: Waiting, effects: &mut Vec<InboxEffect>) {
    effects.extend(waiting.into_iter().map(|(to, existed)| InboxEffect::Subscribed { to, result: Ok(existed) }));
}

fn attached_by(conn: ConnRef, claim: u32, terms: &AttachTerms) -> Presence {
    let may_be_lost = conn.node != NodeIdx::HERE;
    Presence::Attached(conn, claim, may_be_lost.then(|| Box::new((terms.expiry_s, terms.will.clone()))))
}

pub(super) fn key_of(tenant: TenantIdx, client: &Client) -> TenantKeyRef<'_> {
    TenantKeyRef { tenant, name: &client.client_id }
}
