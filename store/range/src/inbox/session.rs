//! One persistent session.

use super::books::{Books, PresenceRecord, is_kept};
use super::effect::InboxEffect;
use super::queue::{Carried, Queue, Queued, SharedSources, Stage, Stored};
use super::queued_bytes;
use super::subscriptions::{Route, Subscription, Subscriptions};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ConnRef, InboxSeq, PublisherKey, RangeIdx, Slot, TenantIdx};
use bifro_core::limits::INBOX_PUSH_WINDOW;
use bifro_core::message::{Message, QoS};
use bifro_core::ports::{Attached, FutureWill, InFlight, InHand, InboxMessage, Left, PortError, Receiver, SubOptions};
use bifro_core::settings::{Quota, Resource};
use bifro_core::time::Instant;
use core::num::NonZeroU16;

/// Whether somebody speaks for the session.
#[derive(Debug)]
pub(super) enum Presence {
    /// This connection does, which counts this leader so. One of another node may be lost without a word: then these terms hold.
    Attached(ConnRef, u32, Option<Box<(u32, Option<FutureWill>)>>),
    /// A connection did, and may go on: whoever led the range then has gone, or has lost sight of it.
    Expected {
        /// Until then; none: its time has not begun.
        until: Option<Instant>,
        /// What holds for it if it does not.
        terms: Box<(u32, Option<FutureWill>)>,
    },
    /// Nobody; the session and its will wait for their times.
    Detached {
        /// None: never.
        expires_at: Option<Instant>,
        will: Option<(Instant, Arc<Message>)>,
    },
}

/// A queue in numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    messages: u64,
    bytes: u64,
    resident_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) slot: Slot,
    pub(super) tenant: TenantIdx,
    pub(super) client: Client,
    pub(super) publisher: PublisherKey,
    pub(super) quota: Arc<Quota>,
    pub(super) epoch: u64,
    pub(super) presence: Presence,
    pub(super) subscriptions: Subscriptions,
    pub(super) queue: Queue,
    pub(super) received_qos2: Vec<u16>,
    pub(super) in_flight: Vec<(NonZeroU16, bool, InboxSeq)>,
    /// The deadline the table has set for this session.
    pub(super) deadline: Option<Instant>,
    /// The first of the messages that rest and are being fetched.
    pub(super) fetching: Option<InboxSeq>,
    /// The queue has dropped messages since it last had room.
    pub(super) overflowing: bool,
    /// Bytes taken of the tenant's quota; at rest those of the queue.
    charged: u64,
    /// What the totals count for this session.
    counted: Counted,
}

impl Inbox {
    pub(super) fn new(
        slot: Slot,
        tenant: TenantIdx,
        client: Client,
        publisher: PublisherKey,
        quota: Arc<Quota>,
        epoch: u64,
        presence: Presence,
    ) -> Self {
        Self {
            slot,
            tenant,
            client,
            publisher,
            quota,
            epoch,
            presence,
            subscriptions: Subscriptions::default(),
            queue: Queue::default(),
            received_qos2: Vec::new(),
            in_flight: Vec::new(),
            deadline: None,
            fetching: None,
            overflowing: false,
            charged: 0,
            counted: Counted::default(),
        }
    }

    /// When the will or the session is due, whichever comes first [MQTT5-3.1.3-9].
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.presence {
            Presence::Attached(..) => None,
            Presence::Expected { until, .. } => *until,
            Presence::Detached { expires_at, will } => {
                let will_at = will.as_ref().map(|&(at, _)| at);
                expires_at.iter().chain(&will_at).min().copied()
            }
        }
    }

    /// The session's Session Expiry Interval is over [MQTT5-4.1.0-2].
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        matches!(self.presence, Presence::Detached { expires_at: Some(at), .. } if at <= now)
    }

    /// Takes the will out if its delay is over.
    pub(super) fn take_due_will(&mut self, now: Instant) -> Option<Arc<Message>> {
        match &mut self.presence {
            Presence::Detached { will, .. } if will.as_ref().is_some_and(|&(at, _)| at <= now) => {
                will.take().map(|(_, will)| will)
            }
            _ => None,
        }
    }

    /// The state that a resuming connection needs [MQTT-3.1.2-4] [MQTT5-3.1.2-5].
    pub(super) fn resumed(&self, range: RangeIdx, durable: bool) -> Box<Attached> {
        let in_flight = self.in_flight.iter().filter_map(|&(packet_id, released, seq)| {
            let queued = self.queue.entry(seq)?;
            let message = queued.carried.as_ref()?.message.clone();
            Some(InFlight { packet_id, released: released || queued.held, message })
        });
        Box::new(Attached {
            present: true,
            inbox: Some((range, self.slot)),
            epoch: self.epoch,
            durable,
            subscriptions: (self.subscriptions.iter())
                .map(|(_, subscription)| (Box::from(&*subscription.full), subscription.options))
                .collect(),
            received_qos2: self.received_qos2.clone(),
            in_flight: in_flight.collect(),
            next: self.queue.first_waiting(),
        })
    }

    /// Takes over what a connection leaves, what came from no inbox included as far as the tenant has room for it.
    pub(super) fn take_over(
        &mut self,
        left: Vec<(NonZeroU16, bool, Left)>,
        waiting: Vec<InboxMessage>,
        books: &mut Books,
    ) {
        self.in_flight.clear();
        for (packet_id, released, message) in left {
            let seq = match message {
                Left::Stored(seq) => Some(seq),
                Left::Unstored(message) => self.adopt(*message, books),
            };
            let Some(seq) = seq else { continue };
            self.in_flight.push((packet_id, released, seq));
            if released {
                self.hold(seq, books);
            }
        }
        for message in waiting {
            self.adopt(message, books);
        }
    }

    fn adopt(&mut self, message: InboxMessage, books: &mut Books) -> Option<InboxSeq> {
        if !self.reserve(queued_bytes(&message.message)) {
            return None;
        }
        let stored = books.place_message(&message.message, 1);
        Some(self.store(message, SharedSources::new(), stored, books))
    }

    /// Puts a message at the end of the queue, and in the books if it is to be kept.
    pub(super) fn store(
        &mut self,
        message: InboxMessage,
        shared: SharedSources,
        stored: Stored,
        books: &mut Books,
    ) -> InboxSeq {
        let stored = if is_kept(message.qos) { stored } else { Stored::Nowhere };
        let seq = self.queue.store(message, shared, stored);
        if stored == Stored::Nowhere {
            return seq;
        }
        if let Some(queued) = self.queue.entry(seq) {
            books.put_queued(self.slot, seq, queued);
        }
        self.rest_last(seq);
        seq
    }

    /// Takes a message out of the queue and the books.
    pub(super) fn remove(&mut self, seq: InboxSeq, books: &mut Books) {
        if let Some(queued) = self.queue.remove(seq) {
            books.delete_queued(self.slot, seq, &queued);
        }
    }

    /// PUBREC has arrived for a message.
    pub(super) fn hold(&mut self, seq: InboxSeq, books: &mut Books) {
        if self.queue.hold(seq) {
            books.put_held(self.slot, seq);
        }
    }

    /// What a session that has no owner, and expects none, is at rest.
    pub(super) fn presence_record(&self) -> Option<PresenceRecord> {
        match &self.presence {
            Presence::Attached(..) | Presence::Expected { .. } => None,
            Presence::Detached { expires_at, will } => {
                Some(PresenceRecord::Detached { expires_at: *expires_at, will: will.clone() })
            }
        }
    }

    /// Takes what was pushed and not committed back, except what was in flight to the client.
    pub(super) fn rewind(&mut self) {
        self.queue.rewind(self.in_flight.iter().map(|&(_, _, seq)| seq));
    }

    /// A connection goes on with what it has in hand: what it does not name and was pushed to it is done, the rest waits.
    pub(super) fn reclaim(&mut self, in_hand: &InHand, books: &mut Books) {
        for (seq, queued) in self.queue.reclaim(in_hand) {
            books.delete_queued(self.slot, seq, &queued);
        }
        self.in_flight.retain(|(_, _, seq)| in_hand.seqs.contains(seq));
    }

    /// Pushes as much as the window allows to the live owner.
    pub(super) fn push(&mut self, now: Instant, books: &mut Books, effects: &mut Vec<InboxEffect>) {
        let Presence::Attached(conn, claim, _) = self.presence else { return };
        let (mut messages, mut expired) = (Vec::new(), Vec::new());
        self.queue.push(now, INBOX_PUSH_WINDOW, &mut messages, &mut expired);
        self.drop_expired(&expired, books);
        if !messages.is_empty() {
            effects.push(InboxEffect::Push { conn, claim, messages });
        }
        self.fetch(effects);
    }

    /// Messages that were taken out of the queue because they have expired.
    pub(super) fn drop_expired(&self, expired: &[(InboxSeq, Queued)], books: &mut Books) {
        books.totals.dropped_expired += expired.len() as u64;
        for (seq, queued) in expired {
            books.delete_queued(self.slot, *seq, queued);
        }
    }

    /// Takes `bytes` of the tenant's space for a message about to be stored.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        let admitted = self.quota.acquire(Resource::TotalPersistentSessionSpaceBytes, bytes);
        if admitted {
            self.charged += bytes;
        }
        admitted
    }

    /// Counts what an earlier process left in the queue, whatever the quota says.
    pub(super) fn recount(&mut self) {
        let bytes = self.queue.bytes();
        self.quota.recount(Resource::TotalPersistentSessionSpaceBytes, self.charged, bytes);
        self.charged = bytes;
    }

    /// Gives back what was reserved and is not, or no longer, in the queue, and brings the totals up to date. Ends every
    /// change of the queue.
    pub(super) fn settle(&mut self, books: &mut Books) {
        let totals = &mut books.totals;
        let bytes = self.queue.bytes();
        assert!(self.charged >= bytes, "nothing is stored that was not reserved");
        self.quota.release(Resource::TotalPersistentSessionSpaceBytes, self.charged - bytes);
        self.charged = bytes;
        let counted = Counted { messages: self.queue.len() as u64, bytes, resident_bytes: self.queue.resident_bytes() };
        let before = core::mem::replace(&mut self.counted, counted);
        totals.messages = totals.messages - before.messages + counted.messages;
        totals.bytes = totals.bytes - before.bytes + counted.bytes;
        totals.resident_bytes = totals.resident_bytes - before.resident_bytes + counted.resident_bytes;
    }

    /// Takes one subscription of the tenant's quotas.
    pub(super) fn acquire_subscription(&self, shared: bool) -> bool {
        if !self.quota.acquire(Resource::TotalPersistentSubscriptions, 1) {
            return false;
        }
        if shared && !self.quota.acquire(Resource::TotalSharedSubscriptions, 1) {
            self.quota.release(Resource::TotalPersistentSubscriptions, 1);
            return false;
        }
        true
    }

    pub(super) fn release_subscription(&self, shared: bool) {
        self.quota.release(Resource::TotalPersistentSubscriptions, 1);
        if shared {
            self.quota.release(Resource::TotalSharedSubscriptions, 1);
        }
    }

    /// A subscription has gone: its quota and its route go too, and whoever waited for the route hears `result`, or that the
    /// subscription was made if there is nothing to complain of.
    pub(super) fn drop_subscription(
        &self,
        receiver: Receiver,
        subscription: Subscription,
        refusal: Option<PortError>,
        effects: &mut Vec<InboxEffect>,
    ) {
        self.release_subscription(subscription.target.group.is_some());
        effects.push(InboxEffect::RemoveRoute { tenant: self.tenant, route: subscription.target, receiver });
        if let Route::Pending(waiting) = subscription.route {
            for (to, existed) in waiting {
                let result = refusal.map_or(Ok(existed), Err);
                effects.push(InboxEffect::Subscribed { to, result });
            }
        }
    }

    /// The session ends: will, routes, quotas, and what its shared groups can still deliver to others.
    pub(super) fn end(mut self, now: Instant, range: RangeIdx, books: &mut Books, effects: &mut Vec<InboxEffect>) {
        if let Presence::Detached { will: Some((_, will)), .. } = &self.presence {
            // The will is published when the session ends, if not before [MQTT5-3.1.2-8] [MQTT5-3.1.3-9].
            effects.push(InboxEffect::WillDue { client: self.client.clone(), will: will.clone() });
        }
        let ended: Vec<_> = self.subscriptions.drain().collect();
        for (subscription_place, subscription) in ended {
            let receiver = Receiver::Inbox { range, inbox: self.slot, subscription: subscription_place };
            books.delete_subscription(self.slot, subscription_place);
            self.drop_subscription(receiver, subscription, Some(PortError::NotOwner), effects);
        }
        let queue = core::mem::take(&mut self.queue);
        self.settle(books);
        books.delete_session(self.slot);
        for &packet_id in &self.received_qos2 {
            books.delete_received(self.slot, packet_id);
        }
        for (seq, queued) in queue.drain() {
            books.delete_queued(self.slot, seq, &queued);
            // What rests came through no shared group.
            let Some(carried) = queued.carried else { continue };
            let again = match queued.qos {
                QoS::AtMostOnce => false,
                QoS::AtLeastOnce => true,
                // What may have reached the client must not go to anybody else [MQTT5-4.8.2-5].
                QoS::ExactlyOnce => queued.stage == Stage::Waiting,
            };
            let Carried { message, shared } = *carried;
            if !again || message.message.view().expiry_at.is_some_and(|expiry_at| expiry_at <= now) {
                continue;
            }
            for route in shared {
                let message = message.message.clone();
                effects.push(InboxEffect::Redeliver { tenant: self.tenant, route, message });
            }
        }
        self.quota.release(Resource::TotalPersistentSessions, 1);
        books.totals.inboxes -= 1;
        let stopped = Event::of(EventKind::MqttSessionStop, Some(&self.client), "the persistent session has ended");
        effects.push(InboxEffect::Event(stopped));
    }

    /// Replaces the options of a subscription in place: no message between the old and the new is missed
    /// [MQTT-3.8.4-3] [MQTT5-3.8.4-3] [MQTT5-3.8.4-4].
    pub(super) fn replace_options(&mut self, full: &str, options: SubOptions) -> Option<&mut Subscription> {
        let subscription = self.subscriptions.find_mut(full)?;
        subscription.options = options;
        Some(subscription)
    }
}
