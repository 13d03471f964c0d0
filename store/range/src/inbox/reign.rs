//! What happens to a table whose range is led now here and now there: owners on other nodes that are lost, those that go on, and the end of
//! a reign.

use super::effect::InboxEffect;
use super::load::Witness;
use super::session::{Inbox, Presence};
use super::table::{InboxTable, OwnerRef};
use crate::limits::REATTACH_WITHIN;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bifro_core::ids::{ConnRef, NodeIdx, Slot};
use bifro_core::ports::{FutureWill, InHand, Receiver};
use bifro_core::settings::Resource;
use bifro_core::time::Instant;
use core::time::Duration;

impl InboxTable {
    /// Connections of other nodes are lost, as far as anybody here knows: those that may go on are expected to, of the others the sessions go
    /// on as if the connections had broken `now`.
    pub fn lose_owners(
        &mut self,
        now: Instant,
        is_lost: impl Fn(ConnRef) -> bool,
        may_go_on: bool,
        effects: &mut Vec<InboxEffect>,
    ) {
        let slots: Vec<_> = self.index.values().copied().collect();
        for slot in slots {
            let Some(inbox) = self.inboxes.occupant_mut(slot) else { continue };
            let Presence::Attached(conn, claim, terms) = &mut inbox.presence else { continue };
            let (conn, claim) = (*conn, *claim);
            if !is_lost(conn) {
                continue;
            }
            let Some(terms) = terms.take() else { continue };
            inbox.lose_owner(terms, Some(if may_go_on { now + REATTACH_WITHIN } else { now }));
            inbox.settle(&mut self.books);
            if may_go_on {
                self.set_deadline(slot);
                continue;
            }
            effects.push(InboxEffect::Lost { conn, claim });
            if !self.fire(now, slot, effects) {
                self.put_detached(slot);
            }
        }
    }

    /// The range's reign begins: the time runs in which the connections of its sessions must have gone on with them.
    pub fn expect_owners(&mut self, now: Instant) {
        let slots: Vec<_> = self.index.values().copied().collect();
        for slot in slots {
            let Some(inbox) = self.inboxes.occupant_mut(slot) else { continue };
            if let Presence::Expected { until: until @ None, .. } = &mut inbox.presence {
                *until = Some(now + REATTACH_WITHIN);
                self.set_deadline(slot);
            }
        }
    }

    /// A connection, which counts this leader as `claim`, goes on with its session: what it has in hand is not pushed again.
    pub fn reattach(
        &mut self,
        now: Instant,
        (conn, claim): (ConnRef, u32),
        owner: OwnerRef,
        in_hand: &InHand,
        effects: &mut Vec<InboxEffect>,
    ) {
        let found = self.inboxes.occupant_mut(owner.inbox).filter(|inbox| inbox.epoch == owner.epoch);
        let Some(inbox) = found.filter(|inbox| matches!(inbox.presence, Presence::Expected { .. })) else {
            effects.push(InboxEffect::Lost { conn, claim });
            return;
        };
        let before = core::mem::replace(&mut inbox.presence, Presence::Attached(conn, claim, None));
        if let Presence::Expected { terms, .. } = before {
            inbox.presence = Presence::Attached(conn, claim, (conn.node != NodeIdx::HERE).then_some(terms));
        }
        inbox.reclaim(in_hand, &mut self.books);
        let before = effects.len();
        inbox.push(now, &mut self.books, effects);
        if !effects[before..].iter().any(|effect| matches!(effect, InboxEffect::Push { .. })) {
            // So that the connection hears that it is the owner still.
            effects.push(InboxEffect::Push { conn, claim, messages: Vec::new() });
        }
        inbox.settle(&mut self.books);
        self.set_deadline(owner.inbox);
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

impl Inbox {
    /// Nobody goes on with the session: it is as if its connection had broken `now`.
    pub(super) fn give_up_owner(&mut self, now: Instant) {
        if let Presence::Expected { terms, .. } = &mut self.presence {
            let (expiry_s, will) = (terms.0, terms.1.take());
            let expires_at = (expiry_s != u32::MAX).then(|| now + Duration::from_secs(expiry_s.into()));
            self.presence = Presence::Detached { expires_at, will: will.map(|will| will.due(now)) };
        }
    }

    /// Whoever had the session may go on with it, or somebody attaches to it anew: then whatever may have reached the client is sent again. Without
    /// `until` it was another table's owner.
    pub(super) fn lose_owner(&mut self, terms: Box<(u32, Option<FutureWill>)>, until: Option<Instant>) {
        let witness = if until.is_some() { Witness::Table } else { Witness::Nobody };
        self.presence = Presence::Expected { until, terms };
        self.restore(witness);
    }
}
