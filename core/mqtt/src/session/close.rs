//! The end of a session, whichever side ends it: will, inbox, ownership, quotas, and exactly one `Close`.

use super::connect::Step;
use super::{Closed, Cx, Effect, Outbox, Session, Stage, Violation};
use crate::codec::{DecodeError, encode};
use crate::packet::{ConnAck, Disconnect, Packet};
use crate::property::{Properties, PropertyId, PropertyWriter};
use crate::reason::Reason;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::event::EventKind;
use bifro_core::ports::DetachState;
use bifro_core::settings::Resource;

/// How a session ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    closed: Closed,
    publishes_will: bool,
}

impl Session {
    /// Ends the session because of `violation`: CONNACK before it is connected, DISCONNECT afterwards.
    pub(super) fn fail(&mut self, cx: &Cx<'_>, violation: Violation, out: &mut Outbox<'_>) {
        self.fail_with(cx, violation.reason(), violation.event(), violation.detail(), violation.is_peers_fault(), out);
    }

    /// The first packet is not CONNECT, so nobody knows what the peer would understand: it is told nothing.
    pub(super) fn fail_silently(&mut self, cx: &Cx<'_>, violation: Violation, out: &mut Outbox<'_>) {
        self.event(violation.event(), violation.detail(), out);
        self.end(cx, Ending { closed: Closed::Violation(violation.reason()), publishes_will: false }, out);
    }

    fn fail_with(
        &mut self,
        cx: &Cx<'_>,
        reason: Reason,
        kind: EventKind,
        detail: &str,
        peers_fault: bool,
        out: &mut Outbox<'_>,
    ) {
        let closed = match self.stage {
            Stage::Closed => return,
            Stage::Fresh(_) | Stage::Connecting(_) => {
                self.send_refusal(reason, detail, None, out);
                Closed::Refused(reason)
            }
            Stage::Connected(_) => {
                self.send_disconnect(reason, detail, None, out);
                if peers_fault { Closed::Violation(reason) } else { Closed::Server(reason) }
            }
        };
        self.event(kind, detail, out);
        self.end(cx, Ending { closed, publishes_will: true }, out);
    }

    /// The bytes received are no packet.
    pub(super) fn end_malformed(&mut self, cx: &Cx<'_>, error: DecodeError, out: &mut Outbox<'_>) {
        let reason = error.reason();
        let detail = format!("{error}");
        if !matches!(self.stage, Stage::Fresh(_)) {
            return self.fail_with(cx, reason, EventKind::BadPacket, &detail, true, out);
        }
        let kind = match reason {
            Reason::UNSUPPORTED_PROTOCOL_VERSION => EventKind::UnacceptedProtocolVer,
            _ => EventKind::ProtocolError,
        };
        if let Some(version) = error.connack_version() {
            // [MQTT-3.1.2-2] [MQTT5-3.1.2-2]: the one thing a peer of an unknown version is told.
            let properties = Properties::default();
            let connack = ConnAck { session_present: false, reason, properties };
            encode(&Packet::ConnAck(connack), version, &mut out.wire.bytes);
        }
        self.event(kind, &detail, out);
        self.end(cx, Ending { closed: Closed::Violation(reason), publishes_will: false }, out);
    }

    /// DISCONNECT from the client.
    pub(super) fn handle_disconnect(&mut self, cx: &Cx<'_>, disconnect: &Disconnect<'_>, out: &mut Outbox<'_>) {
        if matches!(self.stage, Stage::Connecting(_)) {
            self.event(EventKind::EnhancedAuthAbortByClient, "DISCONNECT during authentication", out);
            return self.end(cx, Ending { closed: Closed::ByClient, publishes_will: false }, out);
        }
        if let Some(expiry_s) = disconnect.properties.session_expiry_interval() {
            if expiry_s > 0 && !self.flags.asked_to_persist {
                return self.fail(cx, Violation::ExpiryAfterZero, out); // [MQTT5-3.14.2.2.2]
            }
            self.expiry_s = super::handshake::clamp_expiry(&cx.tenant.settings, expiry_s);
        }
        self.event(EventKind::ByClient, "DISCONNECT", out);
        // [MQTT-3.14.4-3] [MQTT5-3.14.4-3]: the normal way takes the will back; 0x04 and every error publish it.
        let publishes_will = disconnect.reason != Reason::SUCCESS;
        self.end(cx, Ending { closed: Closed::ByClient, publishes_will }, out);
    }

    /// The client has closed the transport.
    pub fn handle_closed(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        self.hang_up(EventKind::ByClient, "closed without DISCONNECT", cx, out);
    }

    /// The transport is broken, or refuses to carry on.
    pub fn handle_broken(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        self.hang_up(EventKind::ClientChannelError, "the connection broke", cx, out);
    }

    fn hang_up(&mut self, connected: EventKind, detail: &str, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let kind = match self.stage {
            Stage::Closed => return,
            Stage::Fresh(_) | Stage::Connecting(_) => EventKind::ChannelError,
            Stage::Connected(_) => connected,
        };
        if !self.is_ending() {
            self.event(kind, detail, out);
        }
        self.end(cx, Ending { closed: Closed::Transport, publishes_will: true }, out);
    }

    /// Ends the session from the server's side: takeover, shutdown, operator, redirection.
    pub fn close(&mut self, cx: &Cx<'_>, reason: Reason, server_reference: Option<&str>, out: &mut Outbox<'_>) {
        match self.stage {
            Stage::Closed => return,
            Stage::Fresh(_) => {}
            Stage::Connecting(_) if self.is_ending() => {}
            Stage::Connecting(_) => self.send_refusal(in_connack(reason), "", server_reference, out),
            Stage::Connected(_) => self.send_disconnect(reason, "", server_reference, out),
        }
        let kind = match reason {
            Reason::SESSION_TAKEN_OVER => EventKind::Kicked,
            Reason::USE_ANOTHER_SERVER | Reason::SERVER_MOVED => EventKind::ServerRedirected,
            Reason::SERVER_BUSY => EventKind::ServerBusy,
            _ => EventKind::ByServer,
        };
        self.event(kind, &format!("{reason}"), out);
        // Only a node that is to go itself cannot say where to.
        let is_node_going = reason == Reason::SERVER_SHUTTING_DOWN
            || reason == Reason::USE_ANOTHER_SERVER && server_reference.is_none();
        let publishes_will = !(is_node_going && cx.tenant.settings.no_will_at_shutdown);
        self.end(cx, Ending { closed: Closed::Server(reason), publishes_will }, out);
    }

    /// CONNACK with an error: Session Present is 0 [MQTT-3.2.2-4] [MQTT5-3.2.2-6], and the connection is closed
    /// [MQTT-3.2.2-5] [MQTT5-3.2.2-7].
    fn send_refusal(&self, reason: Reason, detail: &str, reference: Option<&str>, out: &mut Outbox<'_>) {
        self.send_explained(refusal, reason, detail, reference, out);
    }

    /// DISCONNECT, which only MQTT 5 has in this direction; the reason is an error [MQTT5-3.14.0-1].
    fn send_disconnect(&self, reason: Reason, detail: &str, reference: Option<&str>, out: &mut Outbox<'_>) {
        if self.version == Version::V5 {
            self.send_explained(farewell, reason, detail, reference, out);
        }
    }

    /// Sends a packet with reason string and server reference, or without if it would not fit [MQTT5-3.2.2-19]
    /// [MQTT5-3.14.2-3].
    fn send_explained(
        &self,
        packet: for<'b> fn(Reason, Properties<'b>) -> Packet<'b>,
        reason: Reason,
        detail: &str,
        reference: Option<&str>,
        out: &mut Outbox<'_>,
    ) {
        let mut block = Vec::new();
        if self.version == Version::V5 {
            let mut properties = PropertyWriter::new(&mut block);
            if let Some(reference) = reference {
                properties.str(PropertyId::ServerReference, reference);
            }
            if !detail.is_empty() && !self.flags.no_problem_information {
                properties.str(PropertyId::ReasonString, detail);
            }
        }
        if !self.send(&packet(reason, Properties::new(&block)), out) {
            self.send(&packet(reason, Properties::default()), out);
        }
    }

    /// A `Close` is waiting for the inbox.
    fn is_ending(&self) -> bool {
        matches!(&self.stage, Stage::Connecting(connecting) if connecting.ending.is_some())
    }

    /// The one way out of every stage.
    fn end(&mut self, cx: &Cx<'_>, ending: Ending, out: &mut Outbox<'_>) {
        match &mut self.stage {
            Stage::Closed => {}
            Stage::Connecting(connecting) if connecting.step == Step::Attaching => {
                // The inbox is about to be ours: it is left in order once it is, see `take_over`.
                connecting.ending.get_or_insert(ending);
            }
            Stage::Fresh(_) | Stage::Connecting(_) => {
                self.will = None; // [MQTT-3.1.2-8]: a will is stored when CONNECT is accepted, so there is none yet.
                self.finish(cx, ending, out);
            }
            Stage::Connected(_) => self.finish(cx, ending, out),
        }
    }

    /// Carries `ending` out.
    pub(super) fn finish(&mut self, cx: &Cx<'_>, ending: Ending, out: &mut Outbox<'_>) {
        let outlives_s = if self.inbox.is_some() { self.expiry_s } else { 0 };
        if !ending.publishes_will {
            self.will = None; // [MQTT-3.1.2-10] [MQTT5-3.14.4-3]
        }
        let will = self.release_will(cx, outlives_s, out);
        if self.inbox.is_some() {
            let mut state = DetachState { will, expiry_s: outlives_s, ..DetachState::default() };
            let undecided = self.leave_in_flight(&mut state);
            out.effects.push(Effect::Detach { state: Box::new(state), undecided });
        } else {
            self.give_back_shared(out); // [MQTT5-4.8.2-5]
        }
        self.release_quotas(cx);
        if self.flags.registered {
            self.flags.registered = false;
            out.effects.push(Effect::Unregister);
        }
        if self.flags.started && outlives_s == 0 {
            self.event(EventKind::MqttSessionStop, "", out);
        }
        self.stage = Stage::Closed;
        out.effects.push(Effect::Close(ending.closed));
    }

    fn release_quotas(&mut self, cx: &Cx<'_>) {
        if self.flags.holds_connection {
            self.flags.holds_connection = false;
            cx.tenant.quota.release(Resource::TotalConnections, 1);
        }
        self.release_subscriptions(cx);
    }
}

const fn refusal(reason: Reason, properties: Properties<'_>) -> Packet<'_> {
    Packet::ConnAck(ConnAck { session_present: false, reason, properties })
}

const fn farewell(reason: Reason, properties: Properties<'_>) -> Packet<'_> {
    Packet::Disconnect(Disconnect { reason, properties })
}

/// The code of CONNACK that comes closest to one of DISCONNECT.
const fn in_connack(reason: Reason) -> Reason {
    match reason {
        Reason::USE_ANOTHER_SERVER
        | Reason::SERVER_MOVED
        | Reason::SERVER_BUSY
        | Reason::QUOTA_EXCEEDED
        | Reason::NOT_AUTHORIZED
        | Reason::CONNECTION_RATE_EXCEEDED => reason,
        _ => Reason::SERVER_UNAVAILABLE,
    }
}
