//! `[roles]`: what the node does for its cluster.

use crate::roles::Roles;
use serde::{Deserialize, Serialize};

/// `[roles]`: everything, unless a key says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolesConfig {
    /// Clients connect to it.
    pub mqtt: bool,
    /// It may have replicas of persistent sessions.
    pub inbox: bool,
    /// It has a copy of every retained message.
    pub retain: bool,
    /// It may be responsible for client ids.
    pub session_dict: bool,
    /// It has an admin endpoint.
    pub api: bool,
}

impl Default for RolesConfig {
    fn default() -> Self {
        Self { mqtt: true, inbox: true, retain: true, session_dict: true, api: true }
    }
}

impl RolesConfig {
    /// As a set.
    pub fn roles(&self) -> Roles {
        let Self { mqtt, inbox, retain, session_dict, api } = *self;
        let each = [
            (mqtt, Roles::MQTT),
            (inbox, Roles::INBOX),
            (retain, Roles::RETAIN),
            (session_dict, Roles::SESSION_DICT),
            (api, Roles::API),
        ];
        each.into_iter().filter(|(is_on, _)| *is_on).fold(Roles::NONE, |roles, (_, role)| roles.with(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_everything_unless_it_is_told_otherwise() {
        assert_eq!(RolesConfig::default().roles(), Roles::ALL);
        let front_end = RolesConfig { inbox: false, retain: false, session_dict: false, ..RolesConfig::default() };
        assert_eq!(front_end.roles(), Roles::MQTT.with(Roles::API));
    }
}
