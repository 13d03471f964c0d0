//! Clients that send no credentials.

use super::chain::{Answer, Attempt, Call, Provider};
use super::config::AnonymousConfig;
use bifro_core::client::Transport;
use bifro_core::plugin::{AuthRequest, Grant, Refusal};
use bifro_core::tenant::TenantName;
use std::sync::Arc;

/// Admits who says nothing about themselves, as far as the configuration trusts where they come from.
#[derive(Debug)]
pub(super) struct Anonymous {
    loopback_only: bool,
    ignore_credentials: bool,
    tenant: Option<TenantName>,
}

impl Anonymous {
    pub(super) fn new(config: &AnonymousConfig) -> Self {
        Self {
            loopback_only: config.loopback_only,
            ignore_credentials: config.ignore_credentials,
            tenant: config.tenant.as_deref().map(TenantName::from),
        }
    }

    fn answer(&self, request: &AuthRequest) -> Answer {
        let sends_credentials = request.username.is_some() || request.password.is_some();
        if request.enhanced.is_some() || (sends_credentials && !self.ignore_credentials) {
            return Answer::NotMine;
        }
        if self.loopback_only && !is_local(request) {
            return Answer::Refused(Refusal::NotAuthorized);
        }
        Answer::Granted(Box::new(Grant { tenant: self.tenant.clone(), ..Grant::default() }))
    }
}

impl Provider for Anonymous {
    fn attempt(self: Arc<Self>, call: &Arc<Call>) -> Attempt {
        Attempt::Now(self.answer(&call.request))
    }
}

/// On this machine: a loopback address or a Unix socket. A peer without an address on any other transport is not.
fn is_local(request: &AuthRequest) -> bool {
    match request.peer {
        Some(peer) => peer.ip().to_canonical().is_loopback(),
        None => request.transport == Transport::Unix,
    }
}
