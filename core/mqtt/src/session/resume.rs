//! The moment of CONNACK: what an earlier connection left behind is taken over, and what was in flight is sent again, in
//! order [MQTT-4.4.0-1] [MQTT5-4.4.0-1]. And its opposite: what this connection leaves behind.

use super::connect::Connecting;
use super::in_flight::{Awaits, InFlight, Kept, pubrel};
use super::queue::Queued;
use super::{Cx, Effect, Outbox, PublishToken, Session, Violation};
use crate::packet::PacketId;
use crate::reason::Reason;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bifro_core::event::EventKind;
use bifro_core::message::QoS;
use bifro_core::ports::{self, Attached, DetachState, InHand, InboxMessage, Left};

impl Session {
    /// The inbox, if any, is ours: the session is connected. Or it is left at once, if it has ended meanwhile.
    pub(super) fn take_over(
        &mut self,
        cx: &Cx<'_>,
        attached: Attached,
        connecting: Box<Connecting>,
        out: &mut Outbox<'_>,
    ) {
        let Attached { present, subscriptions, received_qos2, in_flight, .. } = attached;
        if present {
            self.restore_in_flight(in_flight, connecting.first_packet_id);
        }
        if self.has_durable_inbox() {
            self.outbound.get_or_insert_default().reserve_ids();
        }
        if !received_qos2.is_empty() {
            self.inbound.get_or_insert_default().resume(received_qos2);
        }
        if let Some(ending) = connecting.ending {
            self.will = None; // there was no CONNACK, so there is no will
            return self.finish(cx, ending, out);
        }
        if let Some(outbound) =
            super::alias::OutboundAliases::new(connecting.alias_maximum, cx.tenant.settings.topic_alias_max)
        {
            self.aliases.get_or_insert_default().outbound = Some(outbound);
        }
        let told = self.send_connack(cx, &connecting, present, out); // [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT5-3.2.2-2]
        if !told {
            self.will = None; // as above
            return self.fail(cx, Violation::ConnAckTooLarge, out);
        }
        self.flags.started = true;
        self.event(EventKind::ClientConnected, if present { "session present" } else { "" }, out);
        if !present {
            self.event(EventKind::MqttSessionStart, "", out);
        }
        self.keep_for_re_authentication(*connecting);
        for (filter, options) in subscriptions {
            self.subscriptions.get_or_insert_default().restore(filter, options);
        }
        // Permissions may have changed while the client was away.
        self.flags.checks_all = present;
        self.resend_released(out);
        self.drain(cx, out);
        self.recheck_subscriptions(cx, out);
    }

    /// PUBLISHes wait in the queue with their identifiers, since the client's Receive Maximum may be smaller now;
    /// PUBRELs are in flight at once.
    fn restore_in_flight(&mut self, in_flight: Vec<ports::InFlight>, first_packet_id: u16) {
        let outbound = self.outbound.get_or_insert_default();
        outbound.start_ids_at(first_packet_id);
        for ports::InFlight { packet_id, released, message } in in_flight {
            let InboxMessage { seq, message, qos, retain, subscription_ids, check_delivery } = message;
            if released {
                outbound.in_flight.push_back(InFlight { packet_id, awaits: Awaits::Completion, seq, kept: None });
                continue;
            }
            outbound.queue.push(Queued {
                message,
                subscription_ids,
                seq,
                shared: None,
                resumes: Some(packet_id),
                qos,
                retain,
                check: check_delivery,
                exempt: true,
            });
        }
    }

    /// PUBREL again for what was released [MQTT-4.4.0-1] [MQTT5-4.4.0-1].
    fn resend_released(&self, out: &mut Outbox<'_>) {
        let Some(outbound) = self.outbound.as_deref() else { return };
        for message in &outbound.in_flight {
            self.send(&pubrel(message.packet_id, Reason::SUCCESS), out);
        }
    }

    /// Another leads the inbox from now on.
    pub fn handle_inbox_moved(&self, out: &mut Outbox<'_>) {
        if self.is_connected() && self.inbox.is_some() {
            out.effects.push(Effect::Reattach(self.in_hand()));
        }
    }

    fn in_hand(&self) -> InHand {
        let next = self.inbox.as_deref().map(|inbox| inbox.next).unwrap_or_default();
        let Some(outbound) = self.outbound.as_deref() else { return InHand { seqs: Vec::new(), next } };
        let in_flight = outbound.in_flight.iter().filter_map(|message| message.seq);
        let waiting = outbound.queue.iter().filter_map(|queued| queued.seq);
        InHand { seqs: in_flight.chain(waiting).collect(), next }
    }

    /// What the next connection of this session has to know. Returns the QoS 2 publishes whose fate is not known yet.
    pub(super) fn leave_in_flight(&mut self, state: &mut DetachState) -> Vec<(PublishToken, PacketId)> {
        state.in_hand = self.in_hand();
        let inbound = self.inbound.take();
        state.received_qos2 = inbound.as_ref().map(|inbound| inbound.received_qos2()).unwrap_or_default();
        let undecided = inbound.map(|inbound| inbound.undecided_qos2()).unwrap_or_default();
        let Some(outbound) = self.outbound.take() else { return undecided };
        for message in outbound.in_flight {
            let released = message.awaits == Awaits::Completion;
            let left = match (message.seq, message.kept) {
                (Some(seq), _) => Left::Stored(seq),
                (None, Some(kept)) => Left::Unstored(Box::new(unstored(*kept, message.awaits))),
                (None, None) => continue,
            };
            state.in_flight.push((message.packet_id, released, left));
        }
        for queued in outbound.queue.into_items() {
            match (queued.resumes, queued.seq) {
                (Some(packet_id), Some(seq)) => state.in_flight.push((packet_id, false, Left::Stored(seq))),
                (None, None) if queued.qos != QoS::AtMostOnce => state.waiting.push(queued.into_inbox_message()),
                _ => {}
            }
        }
        undecided
    }
}

/// What the inbox has to store of a message in flight that it does not have.
fn unstored(kept: Kept, awaits: Awaits) -> InboxMessage {
    let qos = if awaits == Awaits::Acknowledgement { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
    let Kept { message, retain, subscription_ids, .. } = kept;
    InboxMessage { seq: None, message, qos, retain, subscription_ids, check_delivery: false }
}
