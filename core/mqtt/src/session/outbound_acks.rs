//! PUBACK, PUBREC and PUBCOMP: the client's side of deliveries with QoS 1 and 2.

use super::deliver::resend_rule;
use super::in_flight::{Awaits, InFlight, pubrel};
use super::{Cx, Effect, Outbox, Session, Violation};
use crate::packet::{Ack, PacketId};
use crate::reason::Reason;
use bifro_core::client::Version;
use bifro_core::event::EventKind;

impl Session {
    /// PUBACK: a QoS 1 message is done with [MQTT-4.3.2-1] [MQTT5-4.3.2-3], whatever its reason [MQTT5-4.4.0-2].
    pub(super) fn handle_puback(&mut self, cx: &Cx<'_>, ack: &Ack<'_>, out: &mut Outbox<'_>) {
        match self.awaited(ack.packet_id) {
            Some((at, Awaits::Acknowledgement)) => self.finish_delivery(cx, at, out),
            Some(_) => self.handle_wrong_acknowledgement(cx, out),
            None => {}
        }
    }

    /// PUBREC: a QoS 2 message has arrived; it is released, or done with if the client refuses it.
    pub(super) fn handle_pubrec(&mut self, cx: &Cx<'_>, ack: &Ack<'_>, out: &mut Outbox<'_>) {
        match self.awaited(ack.packet_id) {
            Some((at, Awaits::Receipt)) if ack.reason.is_error() => self.finish_delivery(cx, at, out), // [MQTT5-4.4.0-2]
            Some((at, Awaits::Receipt)) if self.is_held_first(at) => self.hold_delivery(at, out),
            Some((_, Awaits::Nothing)) => {}
            Some((at, Awaits::Receipt | Awaits::Completion)) => self.release_delivery(cx, at, ack.packet_id, out),
            Some((_, Awaits::Acknowledgement)) => self.handle_wrong_acknowledgement(cx, out),
            // Nothing is known of it, so it is released; MQTT 5 hears that this is not how it should be.
            None if ack.reason.is_error() => {}
            None => {
                let is_v5 = self.version == Version::V5;
                let reason = if is_v5 { Reason::PACKET_IDENTIFIER_NOT_FOUND } else { Reason::SUCCESS };
                self.send(&pubrel(ack.packet_id, reason), out);
            }
        }
    }

    /// Whether the inbox has to note a PUBREC before PUBREL is sent: after a crash nobody else could know that the client has the
    /// message, and sending it again would be a second delivery [MQTT-4.3.3-1] [MQTT5-4.3.3-4].
    fn is_held_first(&self, at: usize) -> bool {
        let seq = self.outbound.as_deref().and_then(|outbound| outbound.in_flight.get(at)?.seq);
        self.has_durable_inbox() && seq.is_some()
    }

    fn hold_delivery(&mut self, at: usize, out: &mut Outbox<'_>) {
        let in_flight = self.outbound.as_deref_mut().and_then(|outbound| outbound.in_flight.get_mut(at));
        if let Some(InFlight { packet_id, awaits, seq: Some(seq), .. }) = in_flight {
            *awaits = Awaits::Nothing;
            out.effects.push(Effect::Hold { seq: *seq, packet_id: *packet_id });
        }
    }

    /// Answer to [`Effect::Hold`]: the inbox has noted that the client has the message.
    pub fn handle_held(&mut self, cx: &Cx<'_>, packet_id: PacketId, out: &mut Outbox<'_>) {
        if self.is_connected()
            && let Some((at, Awaits::Nothing)) = self.awaited(packet_id)
        {
            self.release_delivery(cx, at, packet_id, out);
        }
    }

    /// The client has the message: PUBREL.
    fn release_delivery(&mut self, cx: &Cx<'_>, at: usize, packet_id: PacketId, out: &mut Outbox<'_>) {
        let resends = resend_rule(self.version, &cx.tenant.settings).is_some();
        let persistent = self.inbox.is_some();
        if let Some(outbound) = self.outbound.as_deref_mut() {
            outbound.await_pubcomp(at, cx.now, resends, persistent);
        }
        self.send(&pubrel(packet_id, Reason::SUCCESS), out); // [MQTT-4.3.3-1] [MQTT5-4.3.3-4]
    }

    /// PUBCOMP: a QoS 2 message is done with [MQTT-4.3.3-1] [MQTT5-4.3.3-5].
    pub(super) fn handle_pubcomp(&mut self, cx: &Cx<'_>, ack: &Ack<'_>, out: &mut Outbox<'_>) {
        match self.awaited(ack.packet_id) {
            Some((at, Awaits::Completion)) => self.finish_delivery(cx, at, out),
            Some(_) => self.handle_wrong_acknowledgement(cx, out),
            None => {}
        }
    }

    fn awaited(&self, packet_id: PacketId) -> Option<(usize, Awaits)> {
        let outbound = self.outbound.as_deref()?;
        let at = outbound.find(packet_id)?;
        outbound.in_flight.get(at).map(|message| (at, message.awaits))
    }

    fn finish_delivery(&mut self, cx: &Cx<'_>, at: usize, out: &mut Outbox<'_>) {
        let Some(message) = self.outbound.as_deref_mut().and_then(|outbound| outbound.in_flight.remove(at)) else {
            return;
        };
        out.commit(message.seq);
        if cx.tenant.settings.debug_mode {
            self.event(EventKind::Confirmed, "", out);
        }
        self.drain(cx, out); // [MQTT5-4.9.0-2]: a place in the window is free again
    }

    /// MQTT 5 calls it a protocol error; older clients confuse identifiers, and are better served by waiting.
    fn handle_wrong_acknowledgement(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        if self.version == Version::V5 {
            self.fail(cx, Violation::WrongAcknowledgement, out);
        }
    }
}
