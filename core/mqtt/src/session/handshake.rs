//! From the answer of authentication to CONNACK: identity, quotas, ownership of the client id, inbox.

use super::connect::{Connecting, Step};
use super::{Cx, Effect, Identity, InboxHandle, Outbox, Session, Stage, Violation};
use crate::packet::{Auth, Packet};
use crate::property::{Properties, PropertyId, PropertyWriter};
use crate::reason::Reason;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{ClientInfo, Peer, Version};
use bifro_core::ids::{InboxSeq, PublisherKey, TenantIdx};
use bifro_core::plugin::{AuthOutcome, Grant, Refusal};
use bifro_core::ports::{AttachTerms, Attached, PortError};
use bifro_core::settings::{Resource, TenantSettings};
use bifro_core::tenant::{DEFAULT_TENANT, TenantName};

impl Session {
    /// Answer to [`Effect::Authenticate`].
    pub fn handle_auth(&mut self, cx: &Cx<'_>, outcome: AuthOutcome, out: &mut Outbox<'_>) {
        let Stage::Connecting(connecting) = &mut self.stage else {
            return self.handle_reauth(cx, outcome, out);
        };
        if connecting.step != Step::Authenticating {
            return;
        }
        match outcome {
            AuthOutcome::Granted(grant) => self.identify(grant, out),
            AuthOutcome::Continue { data, state } => {
                let Some(enhanced) = &connecting.request.enhanced else {
                    // [MQTT5-4.12.0-6]: a client without a method gets no AUTH. The provider is at fault: fail closed.
                    return self.fail(cx, Violation::AuthUnavailable, out);
                };
                let method = enhanced.method.clone();
                connecting.step = Step::AwaitingAuth(state);
                self.send_auth(Reason::CONTINUE_AUTHENTICATION, &method, data.as_deref(), out); // [MQTT5-4.12.0-2]
            }
            AuthOutcome::Refused(refusal) => self.fail(cx, refused(refusal), out), // [MQTT5-4.12.0-4]
        }
    }

    /// AUTH with the method and data of one step [MQTT5-4.12.0-5].
    pub(super) fn send_auth(&self, reason: Reason, method: &str, data: Option<&[u8]>, out: &mut Outbox<'_>) {
        let mut block = Vec::new();
        let mut properties = PropertyWriter::new(&mut block);
        properties.str(PropertyId::AuthenticationMethod, method);
        if let Some(data) = data {
            properties.binary(PropertyId::AuthenticationData, data);
        }
        self.send(&Packet::Auth(Auth { reason, properties: Properties::new(&block) }), out);
    }

    fn identify(&mut self, mut grant: Box<Grant>, out: &mut Outbox<'_>) {
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        let request = &connecting.request;
        let client = Arc::new(ClientInfo {
            tenant: grant.tenant.clone().unwrap_or_else(|| TenantName::from(DEFAULT_TENANT)),
            user: core::mem::take(&mut grant.user),
            client_id: request.client_id.clone(),
            version: request.version,
            transport: request.transport,
            peer: request.peer.map(Peer::from),
            rules: core::mem::take(&mut grant.rules).into(),
            expires_at: grant.expires_at,
        });
        connecting.step = Step::Identifying;
        connecting.grant = Some(grant);
        self.client = Some(client.clone());
        out.effects.push(Effect::Identify(Box::new(Identity { client })));
    }

    /// Answer to [`Effect::Identify`]: the tenant is interned, `cx.tenant` is it from now on.
    pub fn handle_identified(&mut self, cx: &Cx<'_>, tenant: TenantIdx, publisher: PublisherKey, out: &mut Outbox<'_>) {
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        if connecting.step != Step::Identifying {
            return;
        }
        self.tenant = tenant;
        self.publisher = publisher;
        if self.redirect(cx, out) {
            return;
        }
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        let will = connecting.will.take();
        let checked = admit(cx, connecting)
            .and_then(|()| will.as_deref().map_or(Ok(()), |will| self.check_will(cx, will)))
            .and_then(|()| self.acquire_connection(cx));
        self.will = will;
        if let Err(violation) = checked {
            return self.fail(cx, violation, out);
        }
        self.adopt_settings(&cx.tenant.settings);
        self.flags.registered = true;
        out.effects.push(Effect::Register);
    }

    /// Sends the client elsewhere if its tenant is to be served elsewhere [MQTT5-4.11].
    pub(super) fn redirect(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) -> bool {
        let settings = &cx.tenant.settings;
        if settings.redirect_to.is_empty() {
            return false;
        }
        let reason = if settings.redirect_permanently { Reason::SERVER_MOVED } else { Reason::USE_ANOTHER_SERVER };
        self.close(cx, reason, Some(&settings.redirect_to), out);
        true
    }

    fn acquire_connection(&mut self, cx: &Cx<'_>) -> Result<(), Violation> {
        let quota = &cx.tenant.quota;
        if !quota.spend(Resource::TotalConnectPerSecond, 1, cx.now) {
            return Err(Violation::ConnectRate);
        }
        // Acquiring nothing asks whether the level is within its limit; the driver counts the bytes.
        if !quota.acquire(Resource::TotalSessionMemoryBytes, 0) {
            return Err(Violation::MemoryQuota);
        }
        if !quota.acquire(Resource::TotalConnections, 1) {
            return Err(Violation::ConnectionQuota);
        }
        self.flags.holds_connection = true;
        Ok(())
    }

    /// What was asked and what the tenant allows give what holds for this connection.
    fn adopt_settings(&mut self, settings: &TenantSettings) {
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        connecting.step = Step::Registering;
        self.expiry_s = clamp_expiry(settings, connecting.expiry_asked_s);
        self.keep_alive_s = effective_keep_alive(settings, connecting.keep_alive_asked_s);
        // [MQTT5-3.3.4-9]: never more in flight than the client's Receive Maximum, down to 1.
        self.send_window = connecting.receive_maximum.min(settings.send_maximum).max(1);
        self.receive_maximum = settings.receive_maximum.max(1);
        self.packet_bytes_max = settings.packet_bytes_max();
        if self.version == Version::V5 {
            self.alias_max = settings.topic_alias_max;
        }
    }

    /// Answer to [`Effect::Register`].
    pub fn handle_registered(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        if connecting.step != Step::Registering {
            return;
        }
        connecting.step = Step::Attaching;
        // [MQTT5-3.1.2-5]: MQTT 5 may resume a session with Clean Start 0 and end it with its connection, expiry being 0.
        let resumes = self.version == Version::V5 && !connecting.clean_start;
        let attaches = !cx.tenant.settings.force_transient && (self.expiry_s > 0 || resumes);
        out.effects.push(if attaches {
            // [MQTT-3.1.2-4] [MQTT5-3.1.2-4]
            let (clean_start, expiry_s) = (connecting.clean_start, self.expiry_s);
            Effect::Attach(AttachTerms { clean_start, expiry_s, will: self.future_will() })
        } else {
            Effect::Discard // [MQTT-3.1.2-6]
        });
    }

    /// Answer to [`Effect::Attach`] or [`Effect::Discard`].
    pub fn handle_attached(&mut self, cx: &Cx<'_>, result: Result<Box<Attached>, PortError>, out: &mut Outbox<'_>) {
        let Stage::Connecting(connecting) = &mut self.stage else { return };
        if connecting.step != Step::Attaching {
            return;
        }
        let attached = match result {
            Ok(attached) => attached,
            Err(error) if connecting.ending.is_none() => {
                let violation = match error {
                    PortError::QuotaExceeded => Violation::PersistentQuota,
                    PortError::NotOwner | PortError::Unavailable => Violation::InboxUnavailable,
                };
                connecting.step = Step::Registering;
                return self.fail(cx, violation, out);
            }
            Err(_) => Box::default(),
        };
        let Attached { epoch, durable, present, next, .. } = *attached;
        self.inbox = attached.inbox.map(|place| Box::new(InboxHandle { place, epoch, durable, present, next }));
        if durable {
            self.send_window = self.send_window.min(InboxSeq::PACKET_IDS);
        }
        let Stage::Connecting(connecting) = core::mem::replace(&mut self.stage, Stage::Connected(None)) else { return };
        self.take_over(cx, *attached, connecting, out);
    }
}

/// # Errors
/// What the client's tenant does not allow.
fn admit(cx: &Cx<'_>, connecting: &Connecting) -> Result<(), Violation> {
    let settings = &cx.tenant.settings;
    let enabled = match connecting.request.version {
        Version::V31 => settings.mqtt_31_enabled,
        Version::V311 => settings.mqtt_311_enabled,
        Version::V5 => settings.mqtt_5_enabled,
    };
    if !enabled {
        return Err(Violation::VersionDisabled); // [MQTT-3.1.2-2] [MQTT5-3.1.2-2]
    }
    if connecting.request.client_id.len() > usize::from(settings.client_id_bytes_max) && !connecting.assigned_client_id
    {
        return Err(Violation::ClientIdTooLong); // [MQTT5-3.1.3-8]
    }
    Ok(())
}

/// What the client is told when authentication refuses it.
pub(super) const fn refused(refusal: Refusal) -> Violation {
    match refusal {
        Refusal::BadCredentials => Violation::BadCredentials,
        Refusal::NotAuthorized => Violation::NotAdmitted,
        Refusal::Banned => Violation::Banned,
        Refusal::BadMethod => Violation::BadMethod,
        Refusal::Unavailable => Violation::AuthUnavailable,
    }
}

/// The Session Expiry Interval in force: 0 stays 0, everything else is brought into the tenant's range, in seconds.
pub(super) fn clamp_expiry(settings: &TenantSettings, asked_s: u32) -> u32 {
    if asked_s == 0 || settings.force_transient {
        return 0;
    }
    asked_s.max(settings.session_expiry_min_s).min(settings.session_expiry_max_s)
}

/// The Keep Alive in force, in seconds: what the client asked, raised to the tenant's minimum. 0 = off.
const fn effective_keep_alive(settings: &TenantSettings, asked_s: u16) -> u16 {
    if asked_s < settings.keep_alive_min_s { settings.keep_alive_min_s } else { asked_s }
}
