//! What a node does for its cluster, and whether it still takes on anything new.

use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

/// A set of things that a node does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Nothing but to know who is there: a node for others to find the cluster through.
    pub const NONE: Self = Self(0);
    /// Clients connect to it.
    pub const MQTT: Self = Self(1);
    /// It may have replicas of ranges of persistent sessions.
    pub const INBOX: Self = Self(1 << 1);
    /// It has a copy of every retained message.
    pub const RETAIN: Self = Self(1 << 2);
    /// It may be responsible for client ids.
    pub const SESSION_DICT: Self = Self(1 << 3);
    /// It has an admin endpoint.
    pub const API: Self = Self(1 << 4);
    /// Everything.
    pub const ALL: Self = Self(0b1_1111);

    /// Each role by the name that an operator gives it.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("mqtt", Self::MQTT),
        ("inbox", Self::INBOX),
        ("retain", Self::RETAIN),
        ("session_dict", Self::SESSION_DICT),
        ("api", Self::API),
    ];

    /// Whether all of these are among them.
    pub const fn has(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, roles: Self) -> Self {
        Self(self.0 | roles.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, roles: Self) -> Self {
        Self(self.0 & !roles.0)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.into_iter().filter(move |(_, role)| self.has(*role)).map(|(name, _)| name)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What others may expect of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Duties {
    /// What it does.
    pub roles: Roles,
    /// It is to go: it takes on nothing new, and gives away what it has.
    pub is_draining: bool,
}

impl Default for Duties {
    /// Of a node like any other.
    fn default() -> Self {
        Self { roles: Roles::ALL, is_draining: false }
    }
}

impl Duties {
    /// Whether it takes on something new of this kind.
    pub const fn takes_on(self, role: Roles) -> bool {
        self.roles.has(role) && !self.is_draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn roles_are_a_set_and_every_one_has_a_name() {
        let (one, both) = (Roles::MQTT, Roles::MQTT.with(Roles::API));
        assert!(both.has(one) && !one.has(both) && Roles::NONE.names().next().is_none());
        assert_eq!(both.without(Roles::API), one);
        assert_eq!(Roles::NAMED.iter().fold(Roles::NONE, |all, (_, role)| all.with(*role)), Roles::ALL);
        assert_eq!(format!("{both:?}"), "{\"mqtt\", \"api\"}");
    }

    #[test]
    fn a_draining_node_takes_on_nothing() {
        let going = Duties { is_draining: true, ..Duties::default() };
        assert!(Duties::default().takes_on(Roles::INBOX) && !going.takes_on(Roles::INBOX));
        assert!(!Duties { roles: Roles::MQTT, is_draining: false }.takes_on(Roles::INBOX));
    }
}
