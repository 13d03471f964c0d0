//! SUBSCRIBE: each filter is judged on its own and gets a code of its own; the packet is answered when all filters are.

use super::requests::{PendingFilter, Request};
use super::subscriptions::group_of;
use super::{Cx, Effect, Outbox, Session, Token, Violation};
use crate::packet::{Subscribe, SubscribeFilter};
use crate::reason::Reason;
use crate::topic::{ParsedFilter, TopicLimits};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::event::EventKind;
use bifro_core::message::QoS;
use bifro_core::plugin::{Action, Verdict};
use bifro_core::ports::{PortError, SubOptions};
use bifro_core::settings::Resource;
use core::num::NonZeroU32;

/// A filter that may be subscribed to.
struct Admitted<'a> {
    parsed: ParsedFilter<'a>,
    options: SubOptions,
    /// A subscription with this full filter exists.
    replaces: bool,
}

impl Session {
    pub(super) fn handle_subscribe(&mut self, cx: &Cx<'_>, subscribe: &Subscribe<'_>, out: &mut Outbox<'_>) {
        let settings = &cx.tenant.settings;
        let shares_without_local = |filter: &SubscribeFilter<'_>| filter.no_local && is_share_syntax(filter.filter);
        if subscribe.filters.iter().any(|filter| shares_without_local(&filter)) {
            return self.fail(cx, Violation::SharedNoLocal, out); // [MQTT5-3.8.3-4]
        }
        let count = subscribe.filters.iter().count();
        let mut request = Request {
            packet_id: subscribe.packet_id,
            unsubscribes: false,
            codes: vec![Reason::UNSPECIFIED_ERROR.0; count],
            first: Token(self.next_token),
            issued: 0,
            unanswered: 0,
            filters: Vec::new(),
        };
        let is_v5 = self.version == Version::V5;
        if count > settings.filters_per_packet_max as usize {
            self.event(EventKind::TooLargeSubscription, "too many filters in SUBSCRIBE", out);
            request.codes.fill(Reason::QUOTA_EXCEEDED.0);
        } else if is_v5 && self.requests.as_deref().is_some_and(|requests| requests.holds_id(subscribe.packet_id)) {
            request.codes.fill(Reason::PACKET_IDENTIFIER_IN_USE.0);
        } else {
            let subscription_id = subscribe.properties.subscription_ids().next();
            for (code_at, filter) in subscribe.filters.iter().enumerate() {
                // [MQTT-3.8.4-4] [MQTT5-3.8.4-5]: as if each filter had come in a packet of its own.
                match self.admit_filter(cx, &filter, subscription_id) {
                    Ok(admitted) => self.issue(&filter, admitted, code_at, &mut request, out),
                    Err((reason, kind)) => {
                        request.codes[code_at] = reason.0;
                        let mut event = self.event_of(kind, "").on(filter.filter);
                        event.qos = Some(filter.qos);
                        out.event(event);
                    }
                }
            }
        }
        self.requests.get_or_insert_default().push(request);
        self.flush_requests(cx, out); // [MQTT-3.8.4-1] [MQTT5-3.8.4-1]
    }

    /// # Errors
    /// The code for SUBACK, and the event for operators.
    fn admit_filter<'a>(
        &self,
        cx: &Cx<'_>,
        filter: &SubscribeFilter<'a>,
        subscription_id: Option<NonZeroU32>,
    ) -> Result<Admitted<'a>, (Reason, EventKind)> {
        let settings = &cx.tenant.settings;
        let parsed = ParsedFilter::parse(filter.filter, &TopicLimits::of(settings)).map_err(|error| {
            let kind = if error.is_limit() { EventKind::InvalidTopicFilter } else { EventKind::MalformedTopicFilter };
            (Reason::TOPIC_FILTER_INVALID, kind)
        })?;
        let refuse = |reason| Err((reason, EventKind::InvalidTopicFilter));
        if parsed.group.is_some() && !settings.shared_subscription_enabled {
            return refuse(Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if parsed.has_wildcard && !settings.wildcard_subscription_enabled {
            return refuse(Reason::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if subscription_id.is_some() && !settings.subscription_identifier_enabled {
            return refuse(Reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED);
        }
        let check_deliveries = match self.subscribe_verdict(cx, parsed.filter) {
            Verdict::Allowed => false,
            Verdict::Partly => true,
            Verdict::Denied => return Err((Reason::NOT_AUTHORIZED, EventKind::SubActionDisallow)),
        };
        let table = self.subscriptions.as_deref();
        let replaces = table.is_some_and(|table| table.find(filter.filter).is_some());
        let is_full = table.is_some_and(|table| table.len() >= settings.subscriptions_per_session_max as usize);
        let exhausted = Err((Reason::QUOTA_EXCEEDED, EventKind::OutOfTenantResource));
        if (!replaces && is_full) || !self.spend_subscribe(cx) {
            return exhausted;
        }
        if !replaces && !self.acquire_subscription(cx, parsed.group.is_some()) {
            return exhausted;
        }
        let granted = QoS::from_bits(settings.maximum_qos).unwrap_or(QoS::ExactlyOnce);
        let options = SubOptions {
            qos: filter.qos.min(granted), // [MQTT-3.8.4-6] [MQTT5-3.8.4-8]
            no_local: filter.no_local || (self.flags.bridge && parsed.group.is_none()),
            retain_as_published: filter.retain_as_published || self.flags.bridge,
            subscription_id,
            check_deliveries,
        };
        Ok(Admitted { parsed, options, replaces })
    }

    /// May the client subscribe to `filter`?
    pub(super) fn subscribe_verdict(&self, cx: &Cx<'_>, filter: &str) -> Verdict {
        let Some(client) = self.client.as_deref() else { return Verdict::Denied };
        cx.authorizer.check(client, Action::Subscribe, filter)
    }

    fn spend_subscribe(&self, cx: &Cx<'_>) -> bool {
        let resource = if self.is_persistent() {
            Resource::TotalPersistentSubscribePerSecond
        } else {
            Resource::TotalTransientSubscribePerSecond
        };
        cx.tenant.quota.spend(resource, 1, cx.now)
    }

    /// Enters the subscription in the table and asks for it.
    fn issue(
        &mut self,
        filter: &SubscribeFilter<'_>,
        admitted: Admitted<'_>,
        code_at: usize,
        request: &mut Request,
        out: &mut Outbox<'_>,
    ) {
        let Admitted { parsed, options, replaces } = admitted;
        let token = self.take_token();
        // [MQTT-3.8.4-3] [MQTT5-3.8.4-3]: the same filter replaces the subscription.
        let previous = self.subscriptions.get_or_insert_default().set(filter.filter, options, Some(token));
        let wants_retained = match filter.retain_handling {
            _ if parsed.group.is_some() => false, // MQTT 5, section 4.8.2: none when a shared subscription is made
            0 => true,                            // [MQTT-3.8.4-3] [MQTT5-3.3.1-9]
            1 => previous.is_none(),              // [MQTT5-3.3.1-10]
            _ => false,                           // [MQTT5-3.3.1-11]
        };
        out.effects.push(Effect::Subscribe {
            token,
            full: filter.filter.into(),
            filter: parsed.filter.into(),
            group: group_of(&parsed),
            options,
            replaces,
        });
        let full = filter.filter.into();
        request.filters.push(PendingFilter { full, code_at, options, previous, wants_retained, answered: false });
        request.issued += 1;
        request.unanswered += 1;
    }

    /// Answer to [`Effect::Subscribe`].
    pub fn handle_subscribed(
        &mut self,
        cx: &Cx<'_>,
        token: Token,
        result: Result<(), PortError>,
        out: &mut Outbox<'_>,
    ) {
        if !self.is_connected() {
            return;
        }
        let Some((request, place)) = self.requests.as_deref_mut().and_then(|requests| requests.find(token)) else {
            return;
        };
        let Some(filter) = request.filters.get_mut(place).filter(|filter| !filter.answered) else { return };
        filter.answered = true;
        request.unanswered -= 1;
        request.codes[filter.code_at] = match result {
            Ok(()) => filter.options.qos as u8,
            Err(PortError::QuotaExceeded) => Reason::QUOTA_EXCEEDED.0,
            Err(PortError::Unavailable) => Reason::IMPLEMENTATION_SPECIFIC_ERROR.0,
            Err(PortError::NotOwner) => Reason::UNSPECIFIED_ERROR.0,
        };
        if result.is_err() {
            let (full, previous) = (filter.full.clone(), filter.previous);
            self.undo_subscription(cx, token, &full, previous);
        }
        self.flush_requests(cx, out);
    }

    /// A subscription was refused: what was there before holds again, unless the client has changed it meanwhile.
    fn undo_subscription(&mut self, cx: &Cx<'_>, token: Token, full: &str, previous: Option<SubOptions>) {
        let Some(table) = self.subscriptions.as_deref_mut() else { return };
        if table.find(full).is_none_or(|subscription| subscription.token != Some(token)) {
            return;
        }
        match previous {
            Some(options) => drop(table.set(full, options, None)),
            None => drop(self.drop_subscription(cx, full)),
        }
    }
}

/// Written as a shared subscription, well-formed or not.
fn is_share_syntax(full: &str) -> bool {
    full.starts_with("$share/") || full.starts_with("$oshare/")
}
