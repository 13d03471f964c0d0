//! What a changed configuration means for a running node: most keys about tenants, logging and certificates take effect at
//! once, the others only at the next start, and then the operator is told which.

use super::Loaded;
use bifro_core::config::{ListenerConfig, NodeConfig};
use std::collections::BTreeMap;

/// The outcome of comparing the configuration in force with a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// The configuration to put in force now: the new one where a key can change, the old one elsewhere.
    pub config: NodeConfig,
    /// Keys that changed and take effect with it.
    pub applied: Vec<String>,
    /// Keys that changed but need a restart; `config` has their old values.
    pub needs_restart: Vec<String>,
}

/// Compares the configuration in force with one just loaded. What files contain (certificates, access rules, passwords) is
/// not compared: it is read again at each reload. `[auth]` and `[acl]` of the new one can be put in force as they are.
pub fn diff(old: &Loaded, new: &Loaded) -> Reload {
    let config = with_live_keys(&old.config, &new.config);
    let mut now = Loaded { config, ..new.clone() };
    now.auth.hash_threads = old.auth.hash_threads;
    now.auth.hash_queue_max = old.auth.hash_queue_max;
    let (before, after, now, config) = (leaves(old), leaves(new), leaves(&now), now.config);
    let mut changed: Vec<&String> =
        before.keys().chain(after.keys()).filter(|&key| before.get(key) != after.get(key)).collect();
    changed.sort_unstable();
    changed.dedup();
    let (applied, needs_restart) = changed.into_iter().cloned().partition(|key| now.get(key) == after.get(key));
    Reload { config, applied, needs_restart }
}

/// `old` with everything from `new` that a running node can take over.
fn with_live_keys(old: &NodeConfig, new: &NodeConfig) -> NodeConfig {
    let mut config = old.clone();
    config.log.level = new.log.level;
    config.log.events.clone_from(&new.log.events);
    config.tenant_defaults = new.tenant_defaults.clone();
    config.tenant.clone_from(&new.tenant);
    for (ours, theirs) in config.listener.iter_mut().zip(&new.listener) {
        let place = |listener: &ListenerConfig| (listener.protocol, listener.bind, listener.path.clone());
        if place(ours) == place(theirs) {
            ours.auth.clone_from(&theirs.auth);
            ours.tls.clone_from(&theirs.tls);
        }
    }
    config
}

/// Every value of a configuration under its dotted path; arrays of plain values count as one value.
fn leaves(loaded: &Loaded) -> BTreeMap<String, toml::Value> {
    let value =
        toml::Value::try_from(loaded.printed()).expect("a configuration is a TOML table: print-config relies on it");
    let mut out = BTreeMap::new();
    collect(String::new(), value, &mut out);
    out
}

fn collect(path: String, value: toml::Value, out: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                collect(path, value, out);
            }
        }
        toml::Value::Array(elements) if elements.iter().any(toml::Value::is_table) => {
            for (index, element) in elements.into_iter().enumerate() {
                collect(format!("{path}[{index}]"), element, out);
            }
        }
        leaf => drop(out.insert(path, leaf)),
    }
}
