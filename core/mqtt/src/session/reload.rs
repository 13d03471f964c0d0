//! Permissions and settings change under a live session.

use super::subscriptions::{Subscription, take_apart};
use super::{Cx, Effect, Outbox, Session};
use alloc::vec::Vec;
use bifro_core::event::EventKind;
use bifro_core::plugin::Verdict;

impl Session {
    /// Permissions or settings have been reloaded: asks anew for every subscription, and ends those that are refused now.
    /// The answers to what it asks for are ignored.
    pub fn handle_reloaded(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        self.permissions = None;
        // What waits was accepted under the old permissions; so was what an inbox holds.
        let waits = self.outbound.as_deref().is_some_and(|outbound| outbound.queued_bytes() > 0);
        self.flags.checks_all |= waits || self.inbox.is_some();
        if self.is_connected() && !self.redirect(cx, out) {
            self.recheck_subscriptions(cx, out);
        }
    }

    /// See [`Session::handle_reloaded`].
    pub(super) fn recheck_subscriptions(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let Some(mut table) = self.subscriptions.take() else { return };
        let mut revoked = Vec::new();
        for subscription in table.iter_mut() {
            let (filter, group) = take_apart(&subscription.full);
            let check_deliveries = match self.subscribe_verdict(cx, filter) {
                Verdict::Allowed => false,
                Verdict::Partly => true,
                Verdict::Denied => {
                    revoked.push(subscription.full.clone());
                    continue;
                }
            };
            if check_deliveries == subscription.options.check_deliveries {
                continue;
            }
            subscription.options.check_deliveries = check_deliveries;
            let Subscription { full, options, .. } = &*subscription;
            let token = self.take_token();
            let (full, filter, options) = (full.clone(), filter.into(), *options);
            out.effects.push(Effect::Subscribe { token, full, filter, group, options, replaces: true });
        }
        self.subscriptions = Some(table);
        for full in revoked {
            self.end_subscription(cx, &full, out);
            out.event(self.event_of(EventKind::SubRevoked, "permission revoked").on(&full));
        }
    }
}
