//! AUTH [MQTT5-4.12]: the steps of an enhanced authentication, before CONNACK and again on a live connection.

use super::connect::{Connecting, Step};
use super::{Cx, Effect, Outbox, Session, Stage, Violation};
use crate::packet::Auth;
use crate::reason::Reason;
use alloc::boxed::Box;
use alloc::sync::Arc;
use bifro_core::client::ClientInfo;
use bifro_core::event::EventKind;
use bifro_core::plugin::{AuthOutcome, AuthRequest, EnhancedAuth, Grant};

/// Kept by a session whose client chose an authentication method, so that it may authenticate again.
#[derive(Debug)]
pub(super) struct ReAuth {
    request: AuthRequest,
    step: ReAuthStep,
}

#[derive(Debug)]
enum ReAuthStep {
    /// Nothing is under way.
    Idle,
    /// The authentication chain is asked.
    Asking,
    /// The client's next AUTH is due; the provider's state goes with it.
    AwaitingAuth(Box<[u8]>),
}

impl Session {
    /// AUTH from the client.
    pub(super) fn handle_auth_packet(&mut self, cx: &Cx<'_>, auth: &Auth<'_>, out: &mut Outbox<'_>) {
        let step = match &mut self.stage {
            Stage::Connecting(connecting) => next_step(connecting, auth),
            Stage::Connected(Some(re_auth)) => re_auth.next_step(auth),
            Stage::Connected(None) => Err(Violation::AuthWithoutMethod), // [MQTT5-4.12.0-7]
            Stage::Fresh(_) | Stage::Closed => return,
        };
        match step {
            Ok(request) => out.effects.push(Effect::Authenticate(Box::new(request))),
            Err(violation) => self.fail(cx, violation, out),
        }
    }

    /// Remembers what re-authentication needs, if the client chose a method.
    pub(super) fn keep_for_re_authentication(&mut self, connecting: Connecting) {
        let Connecting { mut request, .. } = connecting;
        let Some(enhanced) = &mut request.enhanced else { return };
        enhanced.data = None;
        enhanced.state = None;
        enhanced.reauthenticates = self.client.clone();
        request.password = None;
        if let Stage::Connected(re_auth) = &mut self.stage {
            *re_auth = Some(Box::new(ReAuth { request, step: ReAuthStep::Idle }));
        }
    }

    /// Answer to [`Effect::Authenticate`] on a live connection.
    pub(super) fn handle_reauth(&mut self, cx: &Cx<'_>, outcome: AuthOutcome, out: &mut Outbox<'_>) {
        let Stage::Connected(Some(re_auth)) = &mut self.stage else { return };
        let ReAuthStep::Asking = re_auth.step else { return };
        let method = re_auth.method();
        match outcome {
            AuthOutcome::Granted(grant) => {
                re_auth.step = ReAuthStep::Idle;
                self.adopt_grant(cx, *grant, &method, out);
            }
            AuthOutcome::Continue { data, state } => {
                re_auth.step = ReAuthStep::AwaitingAuth(state);
                self.send_auth(Reason::CONTINUE_AUTHENTICATION, &method, data.as_deref(), out);
            }
            AuthOutcome::Refused(_) => self.fail(cx, Violation::ReAuthRefused, out), // [MQTT5-4.12.1-2]
        }
    }

    fn adopt_grant(&mut self, cx: &Cx<'_>, grant: Grant, method: &str, out: &mut Outbox<'_>) {
        let Some(before) = &self.client else { return };
        // A session belongs to one tenant: who turns out to be another's client has no business here.
        if grant.tenant.as_ref().is_some_and(|tenant| *tenant != before.tenant) {
            return self.fail(cx, Violation::ReAuthRefused, out);
        }
        let client = Arc::new(ClientInfo {
            tenant: before.tenant.clone(),
            user: grant.user,
            client_id: before.client_id.clone(),
            version: before.version,
            transport: before.transport,
            peer: before.peer,
            rules: grant.rules.into(),
            expires_at: grant.expires_at,
        });
        self.client = Some(client.clone());
        self.send_auth(Reason::SUCCESS, method, grant.data.as_deref(), out);
        self.event(EventKind::ClientConnected, "re-authenticated", out);
        out.effects.push(Effect::Reidentified(client));
        self.handle_reloaded(cx, out);
    }
}

impl ReAuth {
    fn method(&self) -> Box<str> {
        self.request.enhanced.as_ref().map(|enhanced| enhanced.method.clone()).unwrap_or_default()
    }

    fn next_step(&mut self, auth: &Auth<'_>) -> Result<AuthRequest, Violation> {
        let state = match (&mut self.step, auth.reason) {
            (ReAuthStep::Idle, Reason::RE_AUTHENTICATE) => None, // [MQTT5-4.12.1-1]
            (ReAuthStep::AwaitingAuth(state), Reason::CONTINUE_AUTHENTICATION) => Some(core::mem::take(state)),
            _ => return Err(Violation::AuthUnexpected),
        };
        let request = with_step(&self.request, auth, state)?;
        self.step = ReAuthStep::Asking;
        Ok(request)
    }
}

/// The client's next step of the exchange that CONNECT began [MQTT5-4.12.0-3].
fn next_step(connecting: &mut Connecting, auth: &Auth<'_>) -> Result<AuthRequest, Violation> {
    let Step::AwaitingAuth(state) = &mut connecting.step else { return Err(Violation::AuthUnexpected) };
    if auth.reason != Reason::CONTINUE_AUTHENTICATION {
        return Err(Violation::AuthUnexpected);
    }
    let state = core::mem::take(state);
    let request = with_step(&connecting.request, auth, Some(state))?;
    connecting.step = Step::Authenticating;
    Ok(request)
}

/// # Errors
/// The method is not the one CONNECT chose [MQTT5-4.12.0-5].
fn with_step(base: &AuthRequest, auth: &Auth<'_>, state: Option<Box<[u8]>>) -> Result<AuthRequest, Violation> {
    let mut request = base.clone();
    let Some(enhanced) = &mut request.enhanced else { return Err(Violation::AuthWithoutMethod) };
    let EnhancedAuth { method, .. } = enhanced;
    if auth.properties.authentication_method() != Some(&**method) {
        return Err(Violation::AuthMethodChanged);
    }
    enhanced.data = auth.properties.authentication_data().map(Into::into);
    enhanced.state = state;
    Ok(request)
}
