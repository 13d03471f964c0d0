//! Retained messages for a new subscription [MQTT-3.3.1-6] [MQTT5-3.3.1-9].

use super::queue::Queued;
use super::subscriptions::Subscription;
use super::{Cx, Outbox, Session, Token};
use alloc::vec::Vec;
use bifro_core::event::{DropReason, EventKind};
use bifro_core::plugin::{Action, Verdict};
use bifro_core::ports::{RetainedMessage, SubOptions};
use smallvec::SmallVec;

impl Session {
    /// Answer to [`Effect::FindRetained`](super::Effect::FindRetained). The messages go through the queue, exempt from its
    /// limits, so that as many as the lookup's own limits allow reach even a slow client.
    pub fn handle_retained(&mut self, cx: &Cx<'_>, token: Token, messages: Vec<RetainedMessage>, out: &mut Outbox<'_>) {
        if !self.is_connected() {
            return;
        }
        let Some(lookup) = self.requests.as_deref_mut().and_then(|requests| requests.take_lookup(token)) else {
            return;
        };
        self.forget_idle_requests();
        // The client may have unsubscribed meanwhile.
        let subscription = self.subscriptions.as_deref().and_then(|table| table.find(&lookup.full));
        let Some(options) = subscription.map(|Subscription { options, .. }| *options) else { return };
        if !messages.is_empty() {
            out.event(self.event_of(EventKind::RetainMsgMatched, "").on(&lookup.full));
        }
        for retained in messages {
            self.queue_retained(cx, retained, &options, out);
        }
        self.drain(cx, out);
    }

    fn queue_retained(&mut self, cx: &Cx<'_>, retained: RetainedMessage, options: &SubOptions, out: &mut Outbox<'_>) {
        let RetainedMessage { message, publisher } = retained;
        let view = message.view();
        if options.no_local && view.publisher == self.publisher {
            return; // [MQTT5-3.8.3-3]
        }
        // Whoever may not publish to the topic any more is not heard through what was retained before.
        if cx.authorizer.check(&publisher, Action::Publish, view.topic) != Verdict::Allowed {
            out.tally.dropped(DropReason::NoSubPermission);
            return;
        }
        let qos = view.qos.min(options.qos); // [MQTT-3.8.4-6] [MQTT5-3.8.4-8]
        let subscription_ids: SmallVec<_> = options.subscription_id.into_iter().collect(); // [MQTT5-3.3.4-3]
        self.outbound.get_or_insert_default().queue.push(Queued {
            message,
            subscription_ids,
            seq: None,
            shared: None,
            resumes: None,
            qos,
            retain: true, // [MQTT-3.3.1-8] [MQTT5-3.3.1-8]
            check: options.check_deliveries,
            exempt: true,
        });
    }
}
