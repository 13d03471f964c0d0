//! What a role that the node does not have makes of the rest of its configuration.

use super::document::Document;
use super::error::ConfigError;
use bifro_core::config::{NodeConfig, StoreDurability};

/// Leaves out what belongs to roles that the node does not have. Returns what contradicts them: a key that would do nothing.
pub(super) fn apply(document: &Document<'_>, config: &mut NodeConfig) -> Vec<ConfigError> {
    let mut wrong = Vec::new();
    let states = |path: &str| document.entries().iter().any(|entry| entry.path == path);
    let roles = config.roles;
    let others = [("inbox", roles.inbox), ("retain", roles.retain), ("session_dict", roles.session_dict)];
    let missing = others.into_iter().chain([("mqtt", roles.mqtt)]).find(|(_, is_on)| !is_on);
    if let (Some((name, _)), None) = (missing, &config.cluster) {
        wrong.push(document.error(
            &format!("roles.{name}"),
            "a node that is alone does everything itself: without [cluster] there is nobody else to",
        ));
    }
    if !roles.inbox && config.store.durability == StoreDurability::Volatile {
        wrong.push(document.error(
            "roles.inbox",
            "a node that keeps nothing has its clients' sessions to itself: store.durability = \"volatile\" needs inbox = true",
        ));
    }
    if !roles.mqtt {
        if states("listener") && !config.listener.is_empty() {
            wrong.push(
                document.error("listener", "does nothing: roles.mqtt = false, so no client connects to this node"),
            );
        }
        config.listener.clear();
    }
    if !roles.api && config.admin.bind.is_some() {
        if states("admin.bind") {
            wrong.push(document.error("admin.bind", "does nothing: roles.api = false, so there is no endpoint"));
        }
        config.admin.bind = None;
    }
    wrong
}
