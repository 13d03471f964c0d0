//! What happens without a packet: Keep Alive runs out, credentials expire, a 3.x client has to be reminded.

use super::deliver::resend_rule;
use super::{Cx, Outbox, Session, Violation};
use crate::packet::Packet;
use bifro_core::event::EventKind;
use bifro_core::time::{Instant, earlier};
use core::time::Duration;

impl Session {
    /// When [`Session::handle_timeout`] wants to be called next. The driver may be late by a tick of its wheel, and need not
    /// ask again before it has fired unless a call returned a nearer time.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.is_connected() {
            return None;
        }
        let resend_at = self.outbound.as_deref().and_then(|outbound| outbound.resend_at);
        earlier(earlier(self.keep_alive_deadline(), self.expires_at()), resend_at)
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        if !self.is_connected() {
            return;
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        if is_due(self.keep_alive_deadline()) {
            return self.fail(cx, Violation::KeepAlive, out); // [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
        }
        if is_due(self.expires_at()) {
            return self.fail(cx, Violation::CredentialsExpired, out);
        }
        self.resend(cx, out);
    }

    /// One and a half Keep Alive after the last packet.
    fn keep_alive_deadline(&self) -> Option<Instant> {
        let keep_alive = Duration::from_secs(self.keep_alive_s.into());
        (self.keep_alive_s > 0).then(|| self.last_packet_at + keep_alive + keep_alive / 2)
    }

    fn expires_at(&self) -> Option<Instant> {
        self.client.as_deref().and_then(|client| client.expires_at)
    }

    fn resend(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let rule = resend_rule(self.version, &cx.tenant.settings);
        let Some(outbound) = self.outbound.as_deref_mut() else { return };
        if outbound.resend_at.is_none_or(|at| at > cx.now) {
            return;
        }
        let Some(rule) = rule else {
            outbound.resend_at = None; // switched off by a reload
            return;
        };
        if out.congested {
            outbound.resend_at = Some(cx.now + rule.after); // what is on its way need not be sent twice
            return;
        }
        let sent = outbound.resend(cx.now, rule, self.version, out.wire);
        out.tally.publishes_sent = out.tally.publishes_sent.wrapping_add(sent);
    }

    /// PINGREQ is answered with PINGRESP [MQTT-3.12.4-1] [MQTT5-3.12.4-1].
    pub(super) fn handle_pingreq(&self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        self.send(&Packet::PingResp, out);
        if cx.tenant.settings.debug_mode {
            self.event(EventKind::PingReq, "", out);
        }
    }
}
