//! Messages to the client. [`Session::deliver`] is the hot path: a QoS 0 message costs a few branches and the copy of its
//! encoding.
//!
//! Whatever waits keeps its place: as long as the queue is not empty, everything goes behind it, so that no message
//! overtakes another of its topic [MQTT-4.6.0-5] [MQTT5-4.6.0-5].

use super::alias::AliasUse;
use super::exchange::{Delivered, Delivery};
use super::in_flight::{Awaits, InFlight, Kept, ResendRule};
use super::queue::Queued;
use super::{Cx, Effect, Outbox, Session};
use crate::codec::{Fanout, PublishSpec};
use crate::packet::PacketId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::event::{DropReason, EventKind};
use bifro_core::ids::InboxSeq;
use bifro_core::message::QoS;
use bifro_core::ports::InboxMessage;
use bifro_core::settings::TenantSettings;
use core::time::Duration;

impl Session {
    /// Delivers a message that matched a subscription of this session.
    pub fn deliver(
        &mut self,
        cx: &Cx<'_>,
        message: &mut Fanout<'_>,
        delivery: &Delivery<'_>,
        out: &mut Outbox<'_>,
    ) -> Delivered {
        if !self.is_connected() {
            return Delivered::Dropped(DropReason::SessionClosed);
        }
        let waits = match self.outbound.as_deref() {
            None => false,
            Some(outbound) => {
                !outbound.is_clear() || (delivery.qos != QoS::AtMostOnce && !outbound.has_room(self.send_window))
            }
        };
        if waits || out.congested {
            return self.hold(cx, message, delivery, out);
        }
        self.transmit(cx, message, delivery, None, out)
    }

    /// Messages from the session's inbox.
    pub fn handle_inbox(&mut self, cx: &Cx<'_>, messages: Vec<InboxMessage>, out: &mut Outbox<'_>) {
        let last = messages.iter().rev().find_map(|message| message.seq);
        if let (Some(inbox), Some(last)) = (self.inbox.as_deref_mut(), last) {
            inbox.next = InboxSeq(last.0 + 1);
        }
        for InboxMessage { seq, message, qos, retain, subscription_ids, check_delivery } in &messages {
            let mut fanout = Fanout::new(message.view(), Some(message.clone()), cx.now);
            let (subscription_ids, check) = (subscription_ids.as_slice(), *check_delivery);
            let (qos, retain, seq) = (*qos, *retain, *seq);
            self.deliver(cx, &mut fanout, &Delivery { qos, retain, subscription_ids, check, seq, shared: None }, out);
        }
    }

    /// Room on the wire again: send what waited.
    pub fn handle_writable(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        self.drain(cx, out);
    }

    /// Something waits that the send window would let pass: it waits for the wire. The driver calls
    /// [`Session::handle_writable`] when the wire has drained.
    pub fn wants_writable(&self) -> bool {
        self.is_connected()
            && self.outbound.as_deref().is_some_and(|outbound| {
                let passes = |front: &Queued| front.qos == QoS::AtMostOnce || outbound.has_room(self.send_window);
                outbound.queue.front().is_some_and(passes)
            })
    }

    /// Puts a PUBLISH on the wire, or drops it.
    fn transmit(
        &mut self,
        cx: &Cx<'_>,
        message: &mut Fanout<'_>,
        delivery: &Delivery<'_>,
        resumes: Option<PacketId>,
        out: &mut Outbox<'_>,
    ) -> Delivered {
        // What an earlier connection has sent already is not judged again: its identifier is in use [MQTT5-4.4.0-1].
        if resumes.is_none() {
            if (delivery.check || self.flags.checks_all) && !self.may_receive(cx, message.view.topic) {
                return self.discard(cx, DropReason::NoSubPermission, message.view.topic, delivery, out);
            }
            if message.is_expired() {
                return self.discard(cx, DropReason::Expired, message.view.topic, delivery, out); // [MQTT5-3.3.2-5]
            }
        }
        let packet_id = match (delivery.qos, resumes) {
            (QoS::AtMostOnce, _) => None, // [MQTT-2.3.1-5]
            (_, Some(packet_id)) => Some(packet_id),
            (_, None) => Some(self.new_packet_id(delivery.seq)),
        };
        let alias = self.aliases_out().and_then(|aliases| aliases.choose(message.view.topic));
        let spec = PublishSpec {
            version: self.version,
            dup: resumes.is_some(), // [MQTT-3.3.1-1] [MQTT-3.3.1-3]
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id,
            alias: alias.map(|AliasUse { alias, sets }| (alias, sets)),
            subscription_ids: delivery.subscription_ids,
            packet_bytes_max: self.client_packet_bytes_max,
        };
        if !message.append(&spec, out.wire) {
            out.event(self.event_of(EventKind::OversizePacketDropped, "PUBLISH").on(message.view.topic));
            return self.discard(cx, DropReason::Oversize, message.view.topic, delivery, out); // [MQTT5-3.1.2-25]
        }
        out.tally.publishes_sent = out.tally.publishes_sent.wrapping_add(1);
        if let (Some(alias), Some(aliases)) = (alias, self.aliases_out()) {
            aliases.confirm(alias, message.view.topic);
        }
        match packet_id {
            Some(packet_id) => self.fly(cx, message, delivery, packet_id, resumes.is_none()),
            None => out.commit(delivery.seq),
        }
        if cx.tenant.settings.debug_mode {
            out.event(self.event_of(EventKind::Pushed, "").on(message.view.topic));
        }
        Delivered::Sent
    }

    /// The identifier of a message that is sent for the first time, as far as is known.
    fn new_packet_id(&mut self, seq: Option<InboxSeq>) -> PacketId {
        match seq {
            Some(seq) if self.has_durable_inbox() => seq.packet_id(),
            _ => self.outbound.get_or_insert_default().peek_id(),
        }
    }

    /// Enters a message that has just been sent in the books.
    fn fly(
        &mut self,
        cx: &Cx<'_>,
        message: &mut Fanout<'_>,
        delivery: &Delivery<'_>,
        packet_id: PacketId,
        is_new_id: bool,
    ) {
        let rule = resend_rule(self.version, &cx.tenant.settings);
        let is_given = self.has_durable_inbox() && delivery.seq.is_some();
        let may_be_given_back = self.inbox.is_none() && delivery.shared.is_some();
        let outbound = self.outbound.get_or_insert_default();
        if is_new_id && !is_given {
            outbound.use_id();
        }
        // Retained messages come from no inbox: it gets them if the connection goes before the client has them.
        let may_be_left = self.inbox.is_some() && delivery.seq.is_none();
        let kept = (rule.is_some() || may_be_given_back || may_be_left).then(|| {
            let shared = outbound.shared_name(delivery).filter(|_| may_be_given_back);
            Box::new(Kept::new(message.message().clone(), delivery, shared, cx.now))
        });
        if let Some(rule) = rule {
            outbound.resend_at.get_or_insert(cx.now + rule.after);
        }
        let awaits = if delivery.qos == QoS::ExactlyOnce { Awaits::Receipt } else { Awaits::Acknowledgement };
        outbound.in_flight.push_back(InFlight { packet_id, awaits, seq: delivery.seq, kept });
    }

    /// Puts a message into the queue, if its limits allow.
    fn hold(
        &mut self,
        cx: &Cx<'_>,
        message: &mut Fanout<'_>,
        delivery: &Delivery<'_>,
        out: &mut Outbox<'_>,
    ) -> Delivered {
        // What an inbox has stored waits however small its QoS.
        let exempt = delivery.seq.is_some();
        if out.congested && delivery.qos == QoS::AtMostOnce && !exempt {
            return self.discard(cx, DropReason::ChannelError, message.view.topic, delivery, out);
        }
        let view = &message.view;
        let bytes = view.topic.len() + view.properties.len() + view.payload.len();
        if !exempt && !self.make_room(cx, bytes, out) {
            return self.discard(cx, DropReason::Overflow, message.view.topic, delivery, out);
        }
        let outbound = self.outbound.get_or_insert_default();
        let shared = outbound.shared_name(delivery);
        outbound.queue.push(Queued {
            message: message.message().clone(),
            subscription_ids: delivery.subscription_ids.into(),
            seq: delivery.seq,
            shared,
            resumes: None,
            qos: delivery.qos,
            retain: delivery.retain,
            check: delivery.check,
            exempt,
        });
        Delivered::Queued
    }

    /// The overflow rule of an inbox: a new message is refused, unless an old QoS 0 message may be dropped for it.
    fn make_room(&mut self, cx: &Cx<'_>, bytes: usize, out: &mut Outbox<'_>) -> bool {
        let settings = &cx.tenant.settings;
        loop {
            let queue = &mut self.outbound.get_or_insert_default().queue;
            if queue.has_room(settings, bytes) {
                return true;
            }
            if !settings.qos0_drop_oldest {
                return false;
            }
            let Some(oldest) = queue.take_oldest_qos0() else { return false };
            self.discard(cx, DropReason::Overflow, oldest.message.topic(), &oldest.delivery(), out);
        }
    }

    /// Drops a message, counts it and commits it.
    fn discard(
        &self,
        cx: &Cx<'_>,
        reason: DropReason,
        topic: &str,
        delivery: &Delivery<'_>,
        out: &mut Outbox<'_>,
    ) -> Delivered {
        out.tally.dropped(reason);
        out.commit(delivery.seq);
        if cx.tenant.settings.debug_mode {
            let mut event = self.event_of(EventKind::Dropped, "").on(topic);
            event.qos = Some(delivery.qos);
            event.dropped = Some(reason);
            out.event(event);
        }
        Delivered::Dropped(reason)
    }

    /// Sends what waits, as far as window and wire allow, and no more in one go than a connection's share of a turn.
    pub(super) fn drain(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let start = out.wire.len();
        while !out.congested && out.wire.len() - start < out.share && self.wants_writable() {
            let Some(queued) = self.outbound.as_deref_mut().and_then(|outbound| outbound.queue.pop()) else { return };
            let mut fanout = Fanout::new(queued.message.view(), Some(queued.message.clone()), cx.now);
            self.transmit(cx, &mut fanout, &queued.delivery(), queued.resumes, out);
        }
    }

    /// Gives the shared messages of a transient session to other members of their groups: those not acknowledged with
    /// QoS 1 and those never sent, but not those sent with QoS 2 [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
    pub(super) fn give_back_shared(&mut self, out: &mut Outbox<'_>) {
        let Some(mut outbound) = self.outbound.take() else { return };
        let sent = outbound.in_flight.drain(..).filter(|message| message.awaits == Awaits::Acknowledgement);
        let sent = sent.filter_map(|message| {
            let Kept { message, shared, .. } = *message.kept?;
            Some((message, shared?))
        });
        for (message, shared) in sent {
            out.effects.push(Effect::Redeliver { filter: shared.filter.clone(), group: shared.group.clone(), message });
        }
        while let Some(queued) = outbound.queue.pop() {
            let Some(shared) = queued.shared.filter(|_| queued.qos != QoS::AtMostOnce) else { continue };
            let message = queued.message;
            out.effects.push(Effect::Redeliver { filter: shared.filter.clone(), group: shared.group.clone(), message });
        }
    }
}

/// How to resend on a live connection: never for MQTT 5 [MQTT5-4.4.0-1].
pub(super) fn resend_rule(version: Version, settings: &TenantSettings) -> Option<ResendRule> {
    let resends = version != Version::V5 && settings.resend_timeout_s > 0;
    resends.then(|| ResendRule {
        after: Duration::from_secs(settings.resend_timeout_s.into()),
        times_max: settings.resend_times_max,
    })
}
