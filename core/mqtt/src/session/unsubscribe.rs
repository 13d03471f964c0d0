//! UNSUBSCRIBE: subscriptions end one by one; the packet is answered when all have ended [MQTT-3.10.4-4] [MQTT5-3.10.4-4].

use super::requests::Request;
use super::subscriptions::take_apart;
use super::{Cx, Effect, Outbox, Session, Token};
use crate::packet::Unsubscribe;
use crate::reason::Reason;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::event::EventKind;
use bifro_core::settings::Resource;

impl Session {
    pub(super) fn handle_unsubscribe(&mut self, cx: &Cx<'_>, unsubscribe: &Unsubscribe<'_>, out: &mut Outbox<'_>) {
        let count = unsubscribe.filters.iter().count();
        let mut request = Request {
            packet_id: unsubscribe.packet_id,
            unsubscribes: true,
            codes: vec![Reason::NO_SUBSCRIPTION_EXISTED.0; count],
            first: Token(self.next_token),
            issued: 0,
            unanswered: 0,
            filters: Vec::new(),
        };
        let is_v5 = self.version == Version::V5;
        // UNSUBACK of 3.x knows no failure, so its limits are not enforced there: only what exists costs anything.
        if is_v5 && count > cx.tenant.settings.filters_per_packet_max as usize {
            self.event(EventKind::TooLargeUnsubscription, "too many filters in UNSUBSCRIBE", out);
            request.codes.fill(Reason::IMPLEMENTATION_SPECIFIC_ERROR.0);
        } else if is_v5 && self.requests.as_deref().is_some_and(|requests| requests.holds_id(unsubscribe.packet_id)) {
            request.codes.fill(Reason::PACKET_IDENTIFIER_IN_USE.0);
        } else {
            for (code, full) in request.codes.iter_mut().zip(unsubscribe.filters.iter()) {
                // [MQTT-3.10.4-6] [MQTT5-3.10.4-6]: as if each filter had come in a packet of its own.
                if !self.spend_unsubscribe(cx) && is_v5 {
                    *code = Reason::IMPLEMENTATION_SPECIFIC_ERROR.0;
                    self.event(EventKind::OutOfTenantResource, "too many unsubscriptions per second", out);
                // [MQTT-3.10.4-1] [MQTT5-3.10.4-1]: compared character by character.
                } else if self.end_subscription(cx, full, out) {
                    *code = Reason::SUCCESS.0;
                    request.issued += 1;
                    request.unanswered += 1;
                }
            }
        }
        self.requests.get_or_insert_default().push(request);
        self.flush_requests(cx, out);
    }

    fn spend_unsubscribe(&self, cx: &Cx<'_>) -> bool {
        let resource = if self.is_persistent() {
            Resource::TotalPersistentUnsubscribePerSecond
        } else {
            Resource::TotalTransientUnsubscribePerSecond
        };
        cx.tenant.quota.spend(resource, 1, cx.now)
    }

    /// Ends a subscription, if there is such a one [MQTT-3.10.4-2] [MQTT5-3.10.4-2].
    pub(super) fn end_subscription(&mut self, cx: &Cx<'_>, full: &str, out: &mut Outbox<'_>) -> bool {
        let Some(subscription) = self.drop_subscription(cx, full) else { return false };
        let token = self.take_token();
        let (filter, group) = take_apart(full);
        let filter: Box<str> = filter.into();
        out.effects.push(Effect::Unsubscribe { token, full: subscription.full, filter, group });
        true
    }

    /// Answer to [`Effect::Unsubscribe`].
    pub fn handle_unsubscribed(&mut self, cx: &Cx<'_>, token: Token, out: &mut Outbox<'_>) {
        if !self.is_connected() {
            return;
        }
        let Some((request, _)) = self.requests.as_deref_mut().and_then(|requests| requests.find(token)) else { return };
        if !request.unsubscribes {
            return;
        }
        request.unanswered = request.unanswered.saturating_sub(1);
        self.flush_requests(cx, out);
    }
}
