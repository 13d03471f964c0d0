//! SIGHUP: everything that can change while the node runs is read again, checked as a whole, and only then put in force.
//!
//! Invariant: if anything is wrong (configuration, certificate, password file, access rules), nothing changes, and the log
//! says which file and line.

use super::listeners::{self, ListenerError};
use super::policy::ConfiguredTenants;
use crate::acl::AclAuthorizer;
use crate::auth::AuthPlane;
use crate::config::{self, Loaded};
use crate::logging::Logging;
use bifro_core::config::NodeConfig;
use bifro_net::broker::{BrokerSettings, Command, Reload, TenantRegistry};
use bifro_net::mesh::InletSender;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the shards may take to put a reload in force before it is reported without them.
const SHARD_PATIENCE: Duration = Duration::from_secs(5);

/// What is in force, and what has to be told of changes.
#[derive(Debug)]
pub(super) struct Reloader {
    loaded: Loaded,
    settings: Arc<BrokerSettings>,
    auth: AuthPlane,
    tenants: Arc<TenantRegistry>,
    senders: Vec<InletSender<Command>>,
}

impl Reloader {
    pub(super) const fn new(
        loaded: Loaded,
        settings: Arc<BrokerSettings>,
        auth: AuthPlane,
        tenants: Arc<TenantRegistry>,
        senders: Vec<InletSender<Command>>,
    ) -> Self {
        Self { loaded, settings, auth, tenants, senders }
    }

    /// Reloads, and logs how that went.
    pub(super) fn reload(&mut self, logging: &Logging) {
        match self.try_reload(logging) {
            Ok(needs_restart) if needs_restart.is_empty() => tracing::info!("reload done"),
            Ok(keys) => tracing::warn!(?keys, "reload done; these keys change only with a restart"),
            Err(error) => tracing::error!(%error, "reload refused, nothing has changed"),
        }
    }

    fn try_reload(&mut self, logging: &Logging) -> Result<Vec<String>, Box<dyn Error>> {
        let new = self.loaded.load_again()?;
        let difference = config::diff(&self.loaded, &new);
        let next = Loaded { config: difference.config, ..new };
        let certificates = self.load_certificates(&next.config)?;
        let acl = Arc::new(AclAuthorizer::load(&next.acl)?);
        // The last step that can fail; it changes nothing if it does.
        self.auth.reload(&next.auth, &next.auth_chains())?;
        for (index, certificate) in certificates {
            if let Some(cell) = &self.settings.listeners[index].stages.tls {
                cell.replace(certificate);
            }
        }
        let tenants = self.tenants.reload(Arc::new(ConfiguredTenants::of(&next.config)));
        logging.apply(&next.config.log);
        let reload = Arc::new(Reload { authorizer: acl, tenants });
        for sender in &self.senders {
            send(sender, || Command::Reload(reload.clone()));
        }
        wait_for_shards(&reload);
        self.loaded = next;
        Ok(difference.needs_restart)
    }

    fn load_certificates(&self, config: &NodeConfig) -> Result<Vec<(usize, Arc<rustls::ServerConfig>)>, ListenerError> {
        let mut loaded = Vec::new();
        for (index, listener) in config.listener.iter().enumerate().take(self.settings.listeners.len()) {
            if let Some(tls) = listener.tls.as_ref().filter(|_| listener.protocol.is_tls()) {
                let certificate = listeners::load_tls(tls);
                let named = |source| ListenerError::Tls { name: listeners::name(listener), source };
                loaded.push((index, certificate.map_err(named)?));
            }
        }
        Ok(loaded)
    }
}

/// Waits until every shard has taken the new rules over and let go of its copy, so that "done" means in force.
fn wait_for_shards(reload: &Arc<Reload>) {
    let deadline = Instant::now() + SHARD_PATIENCE;
    while Arc::strong_count(reload) > 1 {
        if Instant::now() >= deadline {
            tracing::warn!("a shard has not taken over the reload yet");
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a command that must not be lost: a full mailbox is tried again, since the shard empties it every turn.
pub(super) fn send(sender: &InletSender<Command>, command: impl Fn() -> Command) {
    while sender.send(command()).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
