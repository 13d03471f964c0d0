//! How a published message gets into the inboxes that its matches name.

use super::books::Books;
use super::effect::InboxEffect;
use super::queue::{SharedSources, Stored};
use super::queued_bytes;
use super::session::{Inbox, Presence};
use super::table::InboxTable;
use crate::key::ReplyTo;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::event::{DropReason, Event, EventKind};
use bifro_core::ids::Slot;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::origins::Seen;
use bifro_core::ports::{InboxMessage, Origin, PortError};
use bifro_core::settings::TenantSettings;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use core::num::NonZeroU32;
use smallvec::SmallVec;

/// One message for one inbox, all its matching subscriptions taken together.
#[derive(Debug)]
struct Delivery {
    qos: QoS,
    retain: bool,
    subscription_ids: SmallVec<[NonZeroU32; 1]>,
    check: bool,
    shared: SharedSources,
}

impl InboxTable {
    /// Puts `message` into the inboxes that `places` (inbox, subscription) name. Places that no longer exist are skipped.
    ///
    /// Either every inbox that has to keep the message (QoS 1 and 2) finds room for it in the tenant's quota, or none stores
    /// it and the answer is [`PortError::QuotaExceeded`]. An inbox that is full by its own limits drops by its overflow
    /// rule, which is no refusal. What has come with the same `origin` before is taken for done
    /// [MQTT-4.3.3-2] [MQTT5-4.3.3-10]; what comes so late that its publisher has gone on is [`PortError::NotOwner`].
    #[expect(clippy::too_many_arguments, reason = "the request's fields, each of another type")]
    pub fn insert(
        &mut self,
        now: Instant,
        to: ReplyTo,
        tenant: &TenantCtx,
        places: &[(Slot, u32)],
        message: &Arc<Message>,
        origin: Option<Origin>,
        effects: &mut Vec<InboxEffect>,
    ) {
        match origin.map_or(Seen::Never, |origin| self.books.origins.seen(&origin, |_, ()| true)) {
            Seen::Never => {}
            Seen::Before => return effects.push(InboxEffect::Inserted { to, result: Ok(()) }),
            Seen::Late => return effects.push(InboxEffect::Inserted { to, result: Err(PortError::NotOwner) }),
        }
        let view = message.view();
        let mut sorted: SmallVec<[(Slot, u32); 8]> = SmallVec::from_slice(places);
        sorted.sort_unstable();
        let mut deliveries: SmallVec<[(Slot, Delivery); 4]> = SmallVec::new();
        for same_inbox in sorted.chunk_by(|(one, _), (other, _)| one == other) {
            let slot = same_inbox[0].0;
            let Some(inbox) = self.inboxes.occupant(slot) else { continue };
            deliveries.extend(inbox.merge(same_inbox, &view).map(|delivery| (slot, delivery)));
        }
        let result = self.reserve_all(&deliveries, queued_bytes(message));
        if result.is_ok() {
            let kept = deliveries.iter().filter(|(_, delivery)| delivery.qos != QoS::AtMostOnce).count();
            let stored = self.books.place_message(message, kept);
            for (slot, delivery) in deliveries {
                let Some(inbox) = self.inboxes.occupant_mut(slot) else { continue };
                inbox.accept(now, &tenant.settings, delivery, message, stored, &mut self.books, effects);
                inbox.settle(&mut self.books);
            }
            self.books.release_place(stored);
            if let Some(origin) = origin.filter(|_| kept > 0) {
                self.books.put_origin(&origin);
            }
        } else {
            let detail = "a message could not be queued: the tenant's persistent space is used up";
            let event = Event::of(EventKind::OutOfTenantResource, None, detail).on(view.topic);
            effects.push(InboxEffect::Event(event));
        }
        effects.push(InboxEffect::Inserted { to, result });
    }

    /// Takes the tenant's space for all deliveries that must not be lost, or for none.
    fn reserve_all(&mut self, deliveries: &[(Slot, Delivery)], bytes: u64) -> Result<(), PortError> {
        for (index, (slot, delivery)) in deliveries.iter().enumerate() {
            if delivery.qos == QoS::AtMostOnce {
                continue;
            }
            let Some(inbox) = self.inboxes.occupant_mut(*slot) else { continue };
            if inbox.reserve(bytes) {
                continue;
            }
            for (earlier, _) in &deliveries[..index] {
                if let Some(inbox) = self.inboxes.occupant_mut(*earlier) {
                    inbox.settle(&mut self.books);
                }
            }
            return Err(PortError::QuotaExceeded);
        }
        Ok(())
    }
}

impl Inbox {
    /// What the subscriptions at `places` make of the message together; none if no one wants it.
    fn merge(&self, places: &[(Slot, u32)], message: &MessageView<'_>) -> Option<Delivery> {
        let mut merged: Option<Delivery> = None;
        for &(_, place) in places {
            let Some(subscription) = self.subscriptions.at(place) else { continue };
            let options = &subscription.options;
            // A client's own messages are not for it [MQTT5-3.8.3-3].
            if options.no_local && message.publisher == self.publisher {
                continue;
            }
            let delivery = merged.get_or_insert_with(|| Delivery {
                qos: QoS::AtMostOnce,
                retain: false,
                subscription_ids: SmallVec::new(),
                check: true,
                shared: SharedSources::new(),
            });
            // The maximum QoS of all that match [MQTT-3.3.5-1] [MQTT5-3.3.4-2], no more than was granted [MQTT5-4.8.2-3].
            delivery.qos = delivery.qos.max(options.qos.min(message.qos));
            // [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT-3.3.1-9]
            delivery.retain |= options.retain_as_published && message.retain;
            // Each matching subscription adds its identifier, equal ones repeated [MQTT5-3.3.4-3] [MQTT5-3.3.4-4].
            delivery.subscription_ids.extend(options.subscription_id);
            delivery.check &= options.check_deliveries;
            if subscription.target.group.is_some() {
                delivery.shared.push(subscription.target.clone());
            }
        }
        if let Some(delivery) = &mut merged {
            delivery.subscription_ids.sort_unstable();
        }
        merged
    }

    /// Pushes or stores one message, or drops it by the overflow rule. QoS 1 and 2 have their space reserved.
    #[expect(clippy::too_many_arguments, reason = "each of another type, and this is the one caller's loop")]
    fn accept(
        &mut self,
        now: Instant,
        settings: &TenantSettings,
        delivery: Delivery,
        message: &Arc<Message>,
        stored: Stored,
        books: &mut Books,
        effects: &mut Vec<InboxEffect>,
    ) {
        if message.view().expiry_at.is_some_and(|at| at <= now) {
            books.totals.dropped_expired += 1;
            return;
        }
        let Delivery { qos, retain, subscription_ids, check, shared } = delivery;
        let inbox_message =
            InboxMessage { seq: None, message: message.clone(), qos, retain, subscription_ids, check_delivery: check };
        if qos == QoS::AtMostOnce {
            match self.presence {
                Presence::Attached(conn, claim, _) if !self.queue.has_backlog() => {
                    effects.push(InboxEffect::Push { conn, claim, messages: vec![inbox_message] });
                    return;
                }
                Presence::Detached { .. } if !settings.qos0_queue_offline => return,
                _ => {}
            }
        }
        let bytes = queued_bytes(message);
        if !self.make_room(now, settings, bytes, books, effects) || (qos == QoS::AtMostOnce && !self.reserve(bytes)) {
            self.overflow(settings, &inbox_message, books, effects);
            return;
        }
        self.store(inbox_message, shared, stored, books);
        self.push(now, books, effects);
    }

    /// Makes room for `bytes` more; false if what is in the queue may not be dropped for it.
    fn make_room(
        &mut self,
        now: Instant,
        settings: &TenantSettings,
        bytes: u64,
        books: &mut Books,
        effects: &mut Vec<InboxEffect>,
    ) -> bool {
        if bytes > settings.inbox_bytes_max || settings.inbox_messages_max == 0 {
            return false;
        }
        let is_full = |inbox: &Self| {
            inbox.queue.len() >= settings.inbox_messages_max as usize
                || inbox.queue.bytes() + bytes > settings.inbox_bytes_max
        };
        if is_full(self) {
            let mut expired = Vec::new();
            self.queue.purge_expired(now, &mut expired);
            self.drop_expired(&expired, books);
        } else {
            self.overflowing = false;
        }
        while is_full(self) {
            if !settings.qos0_drop_oldest {
                return false;
            }
            let evicted = self.queue.evict_oldest_qos0().and_then(|evicted| evicted.carried);
            let Some(evicted) = evicted else { return false };
            self.overflow(settings, &evicted.message, books, effects);
        }
        true
    }

    /// Counts a message dropped because the queue is full. Operators hear of the first one since there was room, in debug
    /// mode of each.
    fn overflow(
        &mut self,
        settings: &TenantSettings,
        dropped: &InboxMessage,
        books: &mut Books,
        effects: &mut Vec<InboxEffect>,
    ) {
        books.totals.dropped_full += 1;
        if self.overflowing && !settings.debug_mode {
            return;
        }
        self.overflowing = true;
        let detail = "the session's queue is full and a message was dropped";
        let mut event = Event::of(EventKind::Overflowed, Some(&self.client), detail).on(dropped.message.topic());
        event.qos = Some(dropped.qos);
        event.dropped = Some(DropReason::Overflow);
        effects.push(InboxEffect::Event(event));
    }
}
