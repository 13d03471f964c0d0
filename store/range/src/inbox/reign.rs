//! What happens to a table whose range is led now here and now there: owners on other nodes that are lost, and the end of a reign.

use super::books::PresenceRecord;
use super::effect::InboxEffect;
use super::load::left_behind;
use super::session::Presence;
use super::table::InboxTable;
use alloc::vec::Vec;
use bifro_core::ids::{ConnRef, Slot};
use bifro_core::ports::Receiver;
use bifro_core::settings::Resource;
use bifro_core::time::Instant;

impl InboxTable {
    /// Connections of other nodes are lost, as far as anybody here knows: their sessions go on as if the connections had broken `now`.
    pub fn lose_owners(&mut self, now: Instant, is_lost: impl Fn(ConnRef) -> bool, effects: &mut Vec<InboxEffect>) {
        let slots: Vec<_> = self.index.values().copied().collect();
        for slot in slots {
            let Some(inbox) = self.inboxes.occupant_mut(slot) else { continue };
            let Presence::Attached(conn, Some(terms)) = &mut inbox.presence else { continue };
            let conn = *conn;
            if !is_lost(conn) {
                continue;
            }
            let (expiry_s, will) = (terms.0, terms.1.take());
            inbox.presence = left_behind(PresenceRecord::Attached { expiry_s, will }, now);
            inbox.is_unsettled = !inbox.received_qos2.is_empty();
            inbox.restore_in_flight(true);
            inbox.rewind();
            effects.push(InboxEffect::Lost { conn });
            if !self.fire(now, slot, effects) {
                self.put_detached(slot);
            }
        }
    }

    /// Whether a session has this subscription.
    pub fn has_subscription(&self, inbox: Slot, subscription: u32) -> bool {
        self.inboxes.occupant(inbox).is_some_and(|inbox| inbox.subscriptions.at(subscription).is_some())
    }

    /// The range is not led here any more: nothing of this table is true from now on. Gives back what it has taken of the tenants' quotas,
    /// and emits the routes that have to go.
    pub fn retire(mut self, effects: &mut Vec<InboxEffect>) {
        let (range, slots) = (self.range(), core::mem::take(&mut self.index).into_values());
        for slot in slots {
            let Some(mut inbox) = self.inboxes.remove(slot) else { continue };
            let tenant = inbox.tenant;
            let subscriptions: Vec<_> = inbox.subscriptions.drain().collect();
            for (subscription, entry) in subscriptions {
                inbox.release_subscription(entry.target.group.is_some());
                let receiver = Receiver::Inbox { range, inbox: slot, subscription };
                effects.push(InboxEffect::RemoveRoute { tenant, route: entry.target, receiver });
            }
            drop(core::mem::take(&mut inbox.queue));
            inbox.settle(&mut self.books);
            inbox.quota.release(Resource::TotalPersistentSessions, 1);
        }
    }
}
