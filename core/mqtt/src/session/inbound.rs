//! PUBLISH from the client: what is checked before a message is routed, and how it is acknowledged afterwards.
//!
//! What breaks the protocol ends the session. What is well-formed but not allowed is acknowledged with an error where
//! MQTT 5 has an acknowledgement, and dropped where there is none; 3.x clients get the success that the standard permits
//! for publishes without permission [MQTT-3.3.5-2], and silence, so that they try again, for what failed on our side.
//!
//! A client above its publish rate is disconnected (MQTT 5: 0x96): whoever is slowed down instead cannot tell a limit from
//! a slow server, and 3.x has no way to refuse a single message. A tenant above its bytes per second has its QoS 0
//! dropped and the rest refused, since the single client may not be the one at fault.

use super::ack_order::{Answer, Known, Ready, Release};
use super::exchange::{PublishRequest, PublishToken, Published, TopicName};
use super::{Cx, Effect, Outbox, Session, Violation};
use crate::packet::{Ack, Packet, PacketId, Publish};
use crate::property::Properties;
use crate::reason::Reason;
use crate::topic::{TopicLimits, check_name};
use bifro_core::client::Version;
use bifro_core::event::EventKind;
use bifro_core::message::QoS;
use bifro_core::ports::PortError;
use bifro_core::settings::Resource;
use core::time::Duration;

/// A publish rate may be exceeded for as long as this, so that bursts of a second's worth pass.
const RATE_BURST: Duration = Duration::from_secs(1);

/// Why a well-formed PUBLISH is not routed.
#[derive(Clone, Copy, Debug)]
enum Denial {
    /// No permission.
    Permission,
    /// The payload is not what its format indicator says.
    PayloadFormat,
    /// The tenant's bytes per second are used up.
    TenantRate,
}

impl Session {
    pub(super) fn handle_publish<'p>(
        &mut self,
        cx: &Cx<'_>,
        publish: &Publish<'p>,
        out: &mut Outbox<'_>,
    ) -> Option<PublishRequest<'p>> {
        match self.accept_publish(cx, publish, out) {
            Ok(request) => request,
            Err(violation) => {
                if violation == Violation::PublishRate {
                    out.tally.publish_rate_exceeded += 1;
                }
                self.fail(cx, violation, out);
                None
            }
        }
    }

    /// # Errors
    /// What ends the session.
    fn accept_publish<'p>(
        &mut self,
        cx: &Cx<'_>,
        publish: &Publish<'p>,
        out: &mut Outbox<'_>,
    ) -> Result<Option<PublishRequest<'p>>, Violation> {
        let settings = &cx.tenant.settings;
        self.check_features(cx, publish)?;
        let topic = self.resolve_topic(cx, publish)?;
        let token = match publish.packet_id {
            None => None,
            Some(packet_id) => match self.admit(packet_id, publish.qos, publish.dup)? {
                Some(token) => Some(token),
                None => {
                    self.flush_acknowledgements(cx, out);
                    return Ok(None);
                }
            },
        };
        if publish.payload.len() > settings.payload_bytes_max as usize {
            return Err(Violation::PayloadTooLarge);
        }
        if !self.is_within_rate(cx) {
            return Err(Violation::PublishRate);
        }
        if let Err(denial) = self.check_denial(cx, publish, topic.as_str()) {
            self.deny(cx, denial, publish, topic.as_str(), token, out)?;
            return Ok(None);
        }
        Ok(Some(PublishRequest {
            topic,
            properties: publish.properties.forward(),
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain && settings.retain_enabled,
            expiry_at: publish.properties.message_expiry.map(|s| cx.now + Duration::from_secs(s.into())),
            token,
        }))
    }

    /// # Errors
    /// What the client was told at CONNECT that it must not use.
    fn check_features(&self, cx: &Cx<'_>, publish: &Publish<'_>) -> Result<(), Violation> {
        let settings = &cx.tenant.settings;
        if publish.qos as u8 > settings.maximum_qos {
            return Err(Violation::QosNotSupported); // [MQTT5-3.2.2-11]
        }
        // 3.x clients cannot be told that nothing is retained here, so their messages are routed and not kept.
        if publish.retain && !settings.retain_enabled && self.version == Version::V5 {
            return Err(Violation::RetainNotSupported); // [MQTT5-3.2.2-14]
        }
        if publish.properties.has_subscription_ids {
            return Err(Violation::SubscriptionIdFromClient); // [MQTT5-3.3.4-6]
        }
        if publish.properties.response_topic.is_some_and(|topic| topic.is_empty() || topic.contains(['+', '#'])) {
            return Err(Violation::ResponseTopicInvalid); // [MQTT5-3.3.2-14]
        }
        Ok(())
    }

    /// # Errors
    /// There is no valid topic.
    fn resolve_topic<'p>(&mut self, cx: &Cx<'_>, publish: &Publish<'p>) -> Result<TopicName<'p>, Violation> {
        let alias = publish.properties.topic_alias;
        if alias.is_some_and(|alias| alias == 0 || alias > self.alias_max) {
            return Err(Violation::AliasInvalid); // [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
        }
        if publish.topic.is_empty() {
            let alias = alias.ok_or(Violation::TopicMissing)?; // [MQTT-4.7.3-1] [MQTT5-4.7.3-1]
            let topic = self.aliases.as_ref().and_then(|aliases| aliases.inbound.find(alias));
            return topic.map(TopicName::Alias).ok_or(Violation::AliasUnknown);
        }
        check_name(publish.topic, &TopicLimits::of(&cx.tenant.settings)).map_err(|error| {
            if error.is_limit() { Violation::TopicInvalid } else { Violation::TopicMalformed } // [MQTT-3.3.2-2]
        })?;
        if let Some(alias) = alias {
            self.aliases.get_or_insert_default().inbound.set(alias, publish.topic); // [MQTT5-3.3.2-12]
        }
        Ok(TopicName::Packet(publish.topic))
    }

    /// Enters a QoS 1 or 2 PUBLISH in the books. None if it is a repetition, which is not routed again; what is to be
    /// said to it is in the books too.
    ///
    /// # Errors
    /// More in flight than Receive Maximum.
    fn admit(&mut self, packet_id: PacketId, qos: QoS, dup: bool) -> Result<Option<PublishToken>, Violation> {
        let is_v5 = self.version == Version::V5;
        let limit = usize::from(self.receive_maximum);
        let inbound = self.inbound.get_or_insert_default();
        let known = inbound.known(packet_id, qos);
        let takes_a_place = matches!(known, Known::New | Known::Resumed);
        if is_v5 && takes_a_place && inbound.window_used() >= limit {
            return Err(Violation::ReceiveMaximum); // [MQTT5-3.3.4-7]
        }
        match known {
            Known::New => {
                // What was left unanswered comes first on the next connection [MQTT-4.4.0-1] [MQTT5-4.4.0-1], but not from all clients with DUP.
                let goes_on = self.inbox.as_deref().is_some_and(|inbox| inbox.present);
                let dup = dup || (goes_on && inbound.may_repeat(self.receive_maximum));
                return Ok(Some(inbound.begin(packet_id, qos, dup)));
            }
            Known::InProgress => {}
            Known::Open => inbound.answer_in_turn(packet_id, qos, Reason::SUCCESS), // [MQTT-4.3.3-2] [MQTT5-4.3.3-10]
            Known::Resumed => {
                inbound.reopen(packet_id);
                inbound.answer_in_turn(packet_id, qos, Reason::SUCCESS);
            }
            // [MQTT5-2.2.1-3]; the older versions have no word for it, and one answer is on its way.
            Known::OtherQos if is_v5 => inbound.answer_in_turn(packet_id, qos, Reason::PACKET_IDENTIFIER_IN_USE),
            Known::OtherQos => {}
        }
        Ok(None)
    }

    /// Publishes unanswered at which the driver stops reading.
    pub(super) fn pending_publishes_max(&self) -> usize {
        let receive_maximum = usize::from(self.receive_maximum);
        // MQTT 5: Receive Maximum is enforced, and repetitions have as much room again.
        if self.version == Version::V5 { 2 * receive_maximum } else { receive_maximum }
    }

    /// The generic cell rate algorithm: on average at most the tenant's rate, with bursts of one second's worth.
    fn is_within_rate(&mut self, cx: &Cx<'_>) -> bool {
        let per_second = cx.tenant.settings.publish_rate_max;
        if per_second == 0 {
            return true;
        }
        let interval = Duration::from_secs(1) / per_second;
        let until = self.rate_until.max(cx.now) + interval;
        let admitted = until.since(cx.now) <= RATE_BURST;
        if admitted {
            self.rate_until = until;
        }
        admitted
    }

    fn check_denial(&mut self, cx: &Cx<'_>, publish: &Publish<'_>, topic: &str) -> Result<(), Denial> {
        let settings = &cx.tenant.settings;
        if publish.properties.payload_is_utf8
            && settings.payload_format_validation
            && core::str::from_utf8(publish.payload).is_err()
        {
            return Err(Denial::PayloadFormat); // [MQTT5-3.3.2.3.2]
        }
        if !self.may_publish(cx, topic) {
            return Err(Denial::Permission);
        }
        let bytes = (publish.payload.len() + publish.topic.len()) as u64;
        if !cx.tenant.quota.spend(Resource::TotalInboundBytesPerSecond, bytes, cx.now) {
            return Err(Denial::TenantRate);
        }
        Ok(())
    }

    /// # Errors
    /// There is no other way to tell the client.
    fn deny(
        &mut self,
        cx: &Cx<'_>,
        denial: Denial,
        publish: &Publish<'_>,
        topic: &str,
        token: Option<PublishToken>,
        out: &mut Outbox<'_>,
    ) -> Result<(), Violation> {
        let (reason, v3_answer, kind) = match denial {
            Denial::PayloadFormat if token.is_none() => return Err(Violation::PayloadFormat),
            Denial::PayloadFormat => (Reason::PAYLOAD_FORMAT_INVALID, Answer::Nothing, EventKind::BadPacket),
            Denial::Permission => {
                // [MQTT-3.3.5-2]: a positive acknowledgement is what 3.x leaves, short of closing.
                (Reason::NOT_AUTHORIZED, Answer::Send(Reason::SUCCESS), EventKind::PubActionDisallow)
            }
            Denial::TenantRate => {
                out.tally.publish_rate_exceeded += 1;
                (Reason::QUOTA_EXCEEDED, Answer::Nothing, EventKind::Discard)
            }
        };
        let mut event = self.event_of(kind, "").on(topic);
        event.qos = Some(publish.qos);
        out.event(event);
        if let Some(token) = token {
            let answer = if self.version == Version::V5 { Answer::Send(reason) } else { v3_answer };
            self.settle(cx, token, answer, out);
        }
        Ok(())
    }

    /// Answer to a [`PublishRequest`] with a token.
    pub fn handle_published(&mut self, cx: &Cx<'_>, token: PublishToken, result: Published, out: &mut Outbox<'_>) {
        if !self.is_connected() {
            return;
        }
        let is_v5 = self.version == Version::V5;
        let answer = match result {
            Published::Done { matched: false } if is_v5 => Answer::Send(Reason::NO_MATCHING_SUBSCRIBERS),
            Published::Done { .. } => Answer::Send(Reason::SUCCESS),
            Published::Failed(error) => {
                self.event(EventKind::PubDistError, "not taken over", out);
                match error {
                    _ if !is_v5 => Answer::Nothing,
                    PortError::QuotaExceeded => Answer::Send(Reason::QUOTA_EXCEEDED),
                    PortError::NotOwner | PortError::Unavailable => Answer::Send(Reason::IMPLEMENTATION_SPECIFIC_ERROR),
                }
            }
        };
        self.settle(cx, token, answer, out);
    }

    fn settle(&mut self, cx: &Cx<'_>, token: PublishToken, answer: Answer, out: &mut Outbox<'_>) {
        if let Some(inbound) = self.inbound.as_deref_mut() {
            inbound.settle(token, answer);
        }
        self.flush_acknowledgements(cx, out);
    }

    /// Sends every acknowledgement whose turn it is [MQTT-4.6.0-2] [MQTT-4.6.0-3].
    fn flush_acknowledgements(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        while let Some(Ready { packet_id, qos2, answer }) = self.inbound.as_deref_mut().and_then(|i| i.next_ready()) {
            let Answer::Send(reason) = answer else { continue };
            let ack = Ack { packet_id, reason, properties: Properties::default() };
            // [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT5-4.3.2-4] [MQTT5-4.3.3-8]
            self.send(&if qos2 { Packet::PubRec(ack) } else { Packet::PubAck(ack) }, out);
            if cx.tenant.settings.debug_mode {
                self.event(if qos2 { EventKind::PubReced } else { EventKind::PubAcked }, "", out);
            }
        }
    }

    /// PUBREL: the client has let go of a QoS 2 message.
    pub(super) fn handle_pubrel(&mut self, _cx: &Cx<'_>, ack: &Ack<'_>, out: &mut Outbox<'_>) {
        let packet_id = ack.packet_id;
        let durable = self.has_durable_inbox();
        let known = match self.inbound.as_deref_mut() {
            // Once PUBCOMP is out the client may use the identifier for another message, so nobody may remember it then.
            Some(inbound) if durable => match inbound.begin_release(packet_id) {
                Release::Begun => return out.effects.push(Effect::Release { packet_id }),
                Release::UnderWay => return,
                Release::Unknown => false,
            },
            Some(inbound) => inbound.release(packet_id),
            None => false,
        };
        // [MQTT-4.3.3-2] [MQTT5-4.3.3-11]: answered whether it is known or not; only MQTT 5 can say which.
        let reason =
            if known || self.version != Version::V5 { Reason::SUCCESS } else { Reason::PACKET_IDENTIFIER_NOT_FOUND };
        self.send_pubcomp(packet_id, reason, out);
    }

    /// Answer to [`Effect::Release`]: the inbox has forgotten the identifier.
    pub fn handle_released(&mut self, packet_id: PacketId, out: &mut Outbox<'_>) {
        if !self.is_connected() {
            return;
        }
        if let Some(inbound) = self.inbound.as_deref_mut() {
            inbound.finish_release(packet_id);
        }
        self.send_pubcomp(packet_id, Reason::SUCCESS, out);
    }

    fn send_pubcomp(&self, packet_id: PacketId, reason: Reason, out: &mut Outbox<'_>) {
        self.send(&Packet::PubComp(Ack { packet_id, reason, properties: Properties::default() }), out);
    }

    /// Packet identifier of a QoS 2 publish whose [`PublishRequest`] has not been answered, and whether its client says that it may have sent it
    /// before (DUP).
    pub fn qos2_publish(&self, token: PublishToken) -> Option<(PacketId, bool)> {
        self.inbound.as_deref()?.qos2_publish(token)
    }
}
