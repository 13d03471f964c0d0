//! CONNECT up to the question who the client is: what can be judged before its tenant is known.

use super::will::Will;
use super::{Cx, Effect, Origin, Outbox, Session, Stage, Violation};
use crate::packet::Connect;
use alloc::boxed::Box;
use alloc::format;
use bifro_core::client::Version;
use bifro_core::plugin::{AuthRequest, EnhancedAuth, Grant};
use core::net::SocketAddr;

/// What is remembered of a CONNECT until its CONNACK.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) step: Step,
    /// What authentication was asked; without secrets unless the exchange may go on.
    pub(super) request: AuthRequest,
    pub(super) will: Option<Box<Will>>,
    pub(super) grant: Option<Box<Grant>>,
    /// The server has chosen the client identifier.
    pub(super) assigned_client_id: bool,
    pub(super) clean_start: bool,
    /// Session Expiry Interval asked for, in seconds; for 3.x the longest if Clean Session is 0.
    pub(super) expiry_asked_s: u32,
    pub(super) keep_alive_asked_s: u16,
    /// The client's Receive Maximum.
    pub(super) receive_maximum: u16,
    /// The client's Topic Alias Maximum.
    pub(super) alias_maximum: u16,
    pub(super) wants_response_information: bool,
    /// Where packet identifiers begin if an earlier session goes on.
    pub(super) first_packet_id: u16,
    /// The session is over; `Close` waits for the inbox.
    pub(super) ending: Option<super::close::Ending>,
}

/// What a CONNECT waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The authentication chain.
    Authenticating,
    /// The client's next AUTH; the provider's state goes with it.
    AwaitingAuth(Box<[u8]>),
    /// The driver's `handle_identified`.
    Identifying,
    /// Ownership of the client id.
    Registering,
    /// The inbox.
    Attaching,
}

impl Connecting {
    /// The client's next packet is due.
    pub(super) const fn awaits_client(&self) -> bool {
        matches!(self.step, Step::AwaitingAuth(_))
    }

    pub(super) const fn peer(&self) -> Option<SocketAddr> {
        self.request.peer
    }
}

impl Session {
    pub(super) fn handle_connect(&mut self, cx: &Cx<'_>, connect: &Connect<'_>, out: &mut Outbox<'_>) {
        let Stage::Fresh(origin) = &self.stage else { return };
        let properties = &connect.properties;
        self.version = connect.version;
        // [MQTT5-3.1.2-24]: whatever is sent from here on has to fit.
        self.client_packet_bytes_max = properties.maximum_packet_size().unwrap_or(0);
        self.flags.no_problem_information = properties.request_problem_information() == Some(false);
        self.flags.bridge = connect.bridge;
        let connecting = match connecting(cx, origin, connect) {
            Ok(connecting) => connecting,
            Err(violation) => return self.fail(cx, violation, out),
        };
        self.flags.asked_to_persist = connecting.expiry_asked_s > 0;
        let request = first_step(origin, connect, &connecting);
        self.stage = Stage::Connecting(Box::new(connecting));
        out.effects.push(Effect::Authenticate(Box::new(request)));
    }
}

/// # Errors
/// The first thing that makes the CONNECT unacceptable whoever the client may be.
fn connecting(cx: &Cx<'_>, origin: &Origin, connect: &Connect<'_>) -> Result<Connecting, Violation> {
    if cx.over_budget {
        return Err(Violation::OverBudget);
    }
    let properties = &connect.properties;
    let assigned = match (connect.client_id.is_empty(), connect.version) {
        (false, _) => None,
        (true, Version::V31) => return Err(Violation::ClientIdEmpty),
        (true, Version::V311) if !connect.clean_start => return Err(Violation::ClientIdEmpty), // [MQTT-3.1.3-8]
        (true, _) => Some(format!("auto-{:032x}", origin.nonce)), // [MQTT-3.1.3-6] [MQTT5-3.1.3-6]
    };
    let enhanced = properties.authentication_method().map(|method| EnhancedAuth {
        method: method.into(),
        data: properties.authentication_data().map(Into::into),
        state: None,
        reauthenticates: None,
    });
    let is_enhanced = enhanced.is_some();
    let request = AuthRequest {
        listener: origin.listener,
        version: connect.version,
        transport: origin.transport,
        peer: origin.peer,
        client_id: assigned.as_deref().unwrap_or(connect.client_id).into(),
        username: connect.username.map(Into::into),
        password: connect.password.filter(|_| is_enhanced).map(Into::into),
        certificate: origin.certificate.clone().filter(|_| is_enhanced),
        enhanced,
    };
    let expiry_asked_s = match connect.version {
        Version::V5 => properties.session_expiry_interval().unwrap_or(0), // [MQTT5-3.1.2.11.2]
        _ if connect.clean_start => 0,
        _ => u32::MAX, // [MQTT-3.1.2-4]
    };
    Ok(Connecting {
        step: Step::Authenticating,
        request,
        will: connect.will.as_ref().map(Will::parse).transpose()?.map(Box::new),
        grant: None,
        assigned_client_id: assigned.is_some(),
        clean_start: connect.clean_start,
        expiry_asked_s,
        keep_alive_asked_s: connect.keep_alive,
        receive_maximum: properties.receive_maximum().unwrap_or(u16::MAX), // [MQTT5-3.1.2.11.3]
        alias_maximum: properties.topic_alias_maximum().unwrap_or(0),      // [MQTT5-3.1.2.11.5]
        wants_response_information: properties.request_response_information() == Some(true),
        first_packet_id: u16::try_from(origin.nonce & 0x7fff).unwrap_or(0) + 1,
        ending: None,
    })
}

/// The whole first question: with secrets, even if only the answer is kept.
fn first_step(origin: &Origin, connect: &Connect<'_>, connecting: &Connecting) -> AuthRequest {
    AuthRequest {
        password: connect.password.map(Into::into),
        certificate: origin.certificate.clone(),
        ..connecting.request.clone()
    }
}
