//! Who a client is: authentication providers, and the chains in which listeners ask them.
//!
//! [`AuthPlane`] is shared by the process and reloadable as a whole; [`ShardAuthenticator`] is what one shard asks. Nothing slow runs
//! on a shard: passwords are verified on threads of their own, and HTTP is spoken on the admin runtime. The chain is documented in
//! `chain`, each provider in its module, every configuration key in [`config`].
//!
//! Invariant: whatever goes wrong refuses the client. `anonymous` admits only where a listener names it, and only clients that no
//! provider before it has an opinion on.

mod anonymous;
mod cache;
mod certificate;
mod chain;
pub mod config;
pub(crate) mod error;
pub(crate) mod grant;
mod http_client;
mod jwt;
pub(crate) mod name;
pub(crate) mod password;
mod pool;
pub(crate) mod scram;
pub(crate) mod source;
mod webhook;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::chain::Reply;
pub use self::config::{AuthConfig, ProviderKind};
pub use self::error::LoadError;

use self::chain::{Call, Chain, Engines, Provider, Run};
use self::jwt::Jwt;
use self::pool::HashPool;
use self::webhook::Webhook;
use bifro_core::ids::{ReqId, ShardId};
use bifro_core::plugin::{AuthOutcome, AuthRequest, Authenticator};
use bifro_core::time::Instant;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// The chain of each listener, by the listener's index.
pub type ListenerChains = Vec<Vec<ProviderKind>>;

/// Everything that authenticates. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct AuthPlane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Read once per CONNECT, replaced at reload.
    current: RwLock<Arc<Providers>>,
    engines: Engines,
}

/// One load of the configuration.
#[derive(Debug)]
struct Providers {
    chains: Vec<Arc<Chain>>,
    jwt: Option<Arc<Jwt>>,
    http: Option<Arc<Webhook>>,
}

/// How busy authentication is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthUsage {
    /// Passwords waiting for or under verification.
    pub hashes_pending: usize,
    /// Clients refused because `auth.hash_queue_max` was reached, since the start.
    pub hashes_refused: u64,
    /// Calls of `auth.http` waiting or under way.
    pub http_pending: usize,
    /// Calls of `auth.http` that failed, since the last reload.
    pub http_failures: u64,
    /// Fetches of `auth.jwt.jwks_url` that failed, since its place last changed.
    pub jwks_failures: u64,
}

impl AuthPlane {
    /// Loads every provider that `config` has and starts the threads it needs. Call it before the thread is pinned to a core,
    /// since threads inherit that; `runtime` must be driven by somebody, or clients of slow providers wait in vain.
    ///
    /// # Errors
    /// [`LoadError`]; nothing runs then.
    pub fn new(
        config: &AuthConfig,
        listeners: &[Vec<ProviderKind>],
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, LoadError> {
        config.check()?;
        let pool = Arc::new(HashPool::start(config.hash_threads, config.hash_queue_max as usize)?);
        let engines = Engines { pool, runtime };
        let providers = Providers::load(config, listeners, &engines, None)?;
        Ok(Self { shared: Arc::new(Shared { current: RwLock::new(Arc::new(providers)), engines }) })
    }

    /// Loads everything anew; also how files are re-read. Steps under way end as they began.
    ///
    /// # Errors
    /// [`LoadError`]; what was in force stays in force.
    pub fn reload(&self, config: &AuthConfig, listeners: &[Vec<ProviderKind>]) -> Result<(), LoadError> {
        config.check()?;
        let before = self.shared.providers();
        let providers = Providers::load(config, listeners, &self.shared.engines, Some(&before))?;
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(providers);
        Ok(())
    }

    /// The authenticator of one shard. `reply` is called from other threads, once for each step that was not answered at once.
    pub fn for_shard(&self, shard: ShardId, reply: Reply) -> ShardAuthenticator {
        ShardAuthenticator {
            shard,
            shared: Arc::clone(&self.shared),
            reply,
            pending: HashMap::new(),
            prune_at: PRUNE_MIN,
        }
    }

    /// How busy authentication is.
    pub fn usage(&self) -> AuthUsage {
        let providers = self.shared.providers();
        let pool = &self.shared.engines.pool;
        AuthUsage {
            hashes_pending: pool.taken(),
            hashes_refused: pool.refused(),
            http_pending: providers.http.as_ref().map_or(0, |http| http.pending()),
            http_failures: providers.http.as_ref().map_or(0, |http| http.failures()),
            jwks_failures: providers.jwt.as_ref().map_or(0, |jwt| jwt.failures()),
        }
    }
}

impl Shared {
    fn providers(&self) -> Arc<Providers> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Providers {
    fn load(
        config: &AuthConfig,
        listeners: &[Vec<ProviderKind>],
        engines: &Engines,
        before: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let anonymous = Arc::new(anonymous::Anonymous::new(&config.anonymous));
        let password = optional(config.password_file.as_ref(), |config| {
            password::PasswordFile::load(config, Arc::clone(&engines.pool))
        })?;
        let scram = optional(config.scram.as_ref(), scram::Scram::load)?;
        let old_jwt = before.and_then(|before| before.jwt.as_deref());
        let jwt = optional(config.jwt.as_ref(), |config| Jwt::load(config, &engines.runtime, old_jwt))?;
        let http = optional(config.http.as_ref(), Webhook::new)?;
        let certificate = optional(config.certificate.as_ref(), |config| Ok(certificate::Certificate::new(config)))?;
        let provider = |kind: ProviderKind| -> Option<Arc<dyn Provider>> {
            match kind {
                ProviderKind::Anonymous => Some(Arc::clone(&anonymous) as _),
                ProviderKind::PasswordFile => password.clone().map(|provider| provider as _),
                ProviderKind::Scram => scram.clone().map(|provider| provider as _),
                ProviderKind::Jwt => jwt.clone().map(|provider| provider as _),
                ProviderKind::Http => http.clone().map(|provider| provider as _),
                ProviderKind::Certificate => certificate.clone().map(|provider| provider as _),
            }
        };
        let mut chains = Vec::with_capacity(listeners.len());
        for (listener, kinds) in listeners.iter().enumerate() {
            let mut chain = Chain::default();
            for kind in kinds {
                let missing = LoadError::NotConfigured { listener, provider: *kind };
                chain.providers.push(provider(*kind).ok_or(missing)?);
            }
            chains.push(Arc::new(chain));
        }
        Ok(Self { chains, jwt, http })
    }
}

fn optional<C, P>(
    config: Option<&C>,
    load: impl FnOnce(&C) -> Result<P, LoadError>,
) -> Result<Option<Arc<P>>, LoadError> {
    config.map(load).transpose().map(|provider| provider.map(Arc::new))
}

/// Steps a shard remembers before it looks which of them are over.
const PRUNE_MIN: usize = 64;

/// One shard's access to the [`AuthPlane`].
pub struct ShardAuthenticator {
    shard: ShardId,
    shared: Arc<Shared>,
    reply: Reply,
    /// Steps that were not answered at once. Those that are over are found by their references being dead.
    pending: HashMap<ReqId, Weak<Call>>,
    prune_at: usize,
}

impl fmt::Debug for ShardAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardAuthenticator").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl ShardAuthenticator {
    fn remember(&mut self, req: ReqId, call: Weak<Call>) {
        if self.pending.len() >= self.prune_at {
            self.pending.retain(|_, call| call.strong_count() > 0);
            self.prune_at = PRUNE_MIN.max(self.pending.len() * 2);
        }
        self.pending.insert(req, call);
    }
}

impl Authenticator for ShardAuthenticator {
    fn start(&mut self, req: ReqId, request: AuthRequest, now: Instant) -> Option<AuthOutcome> {
        let providers = self.shared.providers();
        // A listener without a chain admits nobody: an empty chain is exhausted at once.
        let chain = providers.chains.get(usize::from(request.listener)).cloned().unwrap_or_default();
        let call = Arc::new(Call::new(request, now));
        let weak = Arc::downgrade(&call);
        let outcome = Run::new(chain, call, req, Arc::clone(&self.reply), self.shared.engines.clone()).start();
        if outcome.is_none() {
            self.remember(req, weak);
        }
        outcome
    }

    fn cancel(&mut self, req: ReqId) {
        if let Some(call) = self.pending.remove(&req).and_then(|call| call.upgrade()) {
            call.abandon();
        }
    }
}
