//! The will: checked at CONNECT, kept while the session is connected, published if the connection ends without a
//! DISCONNECT that takes it back [MQTT-3.1.2-8] [MQTT5-3.1.2-8].

use super::{Cx, Effect, Outbox, Session, Violation};
use crate::packet;
use crate::topic::{TopicLimits, check_name};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bifro_core::event::EventKind;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, Verdict};
use bifro_core::ports::FutureWill;
use bifro_core::time::Instant;
use core::time::Duration;

/// A will, as CONNECT brought it.
#[derive(Debug)]
pub(super) struct Will {
    topic: Box<str>,
    /// Encoded, as [`MessageView::properties`].
    properties: Box<[u8]>,
    payload: Box<[u8]>,
    qos: QoS,
    retain: bool,
    payload_is_utf8: bool,
    /// Will Delay Interval, in seconds.
    delay_s: u32,
    /// Message Expiry Interval, in seconds; it runs from the moment of publication [MQTT5-3.1.3.2.4].
    expiry_s: Option<u32>,
}

impl Will {
    /// # Errors
    /// The response topic is not one.
    pub(super) fn parse(will: &packet::Will<'_>) -> Result<Self, Violation> {
        let properties = &will.properties;
        if properties.response_topic().is_some_and(|topic| topic.contains(['+', '#'])) {
            return Err(Violation::WillResponseTopic); // [MQTT5-3.3.2-14]
        }
        Ok(Self {
            topic: will.topic.into(),
            properties: properties.forwardable().into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            payload_is_utf8: properties.payload_format() == Some(1),
            delay_s: properties.will_delay_interval().unwrap_or(0),
            expiry_s: properties.message_expiry(),
        })
    }

    /// Bytes on the heap.
    pub(super) const fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// The message that is published at `at`.
    fn message(&self, publisher: PublisherKey, at: Instant) -> Arc<Message> {
        self.message_expiring(publisher, self.expiry_s.map(|s| at + Duration::from_secs(s.into())))
    }

    fn message_expiring(&self, publisher: PublisherKey, expiry_at: Option<Instant>) -> Arc<Message> {
        let view = MessageView {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,       // [MQTT-3.1.2-9]
            retain: self.retain, // [MQTT-3.1.2-16] [MQTT-3.1.2-17]
            expiry_at,
            publisher,
        };
        view.to_message()
    }
}

impl Session {
    /// # Errors
    /// The first thing the tenant does not allow about `will`.
    pub(super) fn check_will(&self, cx: &Cx<'_>, will: &Will) -> Result<(), Violation> {
        let settings = &cx.tenant.settings;
        check_name(&will.topic, &TopicLimits::of(settings)).map_err(|error| {
            if error.is_limit() { Violation::WillTopicInvalid } else { Violation::WillTopicMalformed }
        })?;
        if will.qos as u8 > settings.maximum_qos {
            return Err(Violation::WillQos); // [MQTT5-3.2.2-12]
        }
        if will.retain && !settings.retain_enabled {
            return Err(Violation::WillRetain); // [MQTT5-3.2.2-13]
        }
        if will.payload.len() > settings.will_bytes_max as usize {
            return Err(Violation::WillTooLarge);
        }
        if settings.payload_format_validation && will.payload_is_utf8 && core::str::from_utf8(&will.payload).is_err() {
            return Err(Violation::WillPayloadFormat);
        }
        if !self.may_publish_will(cx, will) {
            return Err(Violation::WillDenied);
        }
        Ok(())
    }

    fn may_publish_will(&self, cx: &Cx<'_>, will: &Will) -> bool {
        self.client
            .as_deref()
            .is_some_and(|client| cx.authorizer.check(client, Action::Publish, &will.topic) == Verdict::Allowed)
    }

    /// The will, should the process end before the connection does.
    pub(super) fn future_will(&self) -> Option<FutureWill> {
        let will = self.will.as_deref()?;
        let expiry = will.expiry_s.map(|s| Duration::from_secs(s.into()));
        let delay = Duration::from_secs(will.delay_s.min(self.expiry_s).into());
        let message = will.message_expiring(self.publisher, None);
        Some(FutureWill { delay, expiry, message })
    }

    /// The connection ends, and the will is due: publishes it, or returns it for the inbox if its delay lets it wait.
    /// `outlives` is how long the session goes on, in seconds; 0 if it ends now.
    pub(super) fn release_will(
        &mut self,
        cx: &Cx<'_>,
        outlives_s: u32,
        out: &mut Outbox<'_>,
    ) -> Option<(Duration, Arc<Message>)> {
        let will = self.will.take()?; // [MQTT-3.1.2-10]: at most once
        // The permission may have been revoked since CONNECT.
        if !self.may_publish_will(cx, &will) {
            out.event(self.event_of(EventKind::WillDistError, "no permission to publish the will").on(&will.topic));
            return None;
        }
        // [MQTT5-3.1.3-9]: after the delay, or when the session ends, whichever comes first.
        let delay = Duration::from_secs(will.delay_s.min(outlives_s).into());
        let message = will.message(self.publisher, cx.now + delay);
        if !delay.is_zero() {
            return Some((delay, message));
        }
        out.event(self.event_of(EventKind::WillDisted, "").on(&will.topic));
        out.effects.push(Effect::PublishWill(message));
        None
    }
}
