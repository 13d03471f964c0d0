//! Of two connections of one client id that both have their CONNACK, at most one is served for what is asked later.

use super::super::talk::ConnId;
use crate::queue::Moment;
use std::collections::BTreeMap;

#[derive(Debug)]
struct Owner {
    connected: Moment,
    /// When the last thing was asked, or published, for which it was served.
    last_cause: Option<Moment>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<usize, BTreeMap<ConnId, Owner>>);

impl Owners {
    /// It has its CONNACK.
    pub(crate) fn connected(&mut self, client: usize, conn: ConnId, now: Moment) {
        self.0.entry(client).or_default().insert(conn, Owner { connected: now, last_cause: None });
    }

    /// It got an answer to what was asked then, or a message that was published then.
    pub(crate) fn served(&mut self, client: usize, conn: ConnId, cause: Option<Moment>) {
        let conns = self.0.entry(client).or_default();
        let Some(owner) = conns.get_mut(&conn) else { return };
        owner.last_cause = owner.last_cause.max(cause);
        let (connected, last) = (owner.connected, owner.last_cause);
        for (other, owner) in conns.iter().filter(|(other, _)| **other != conn) {
            let both = connected.max(owner.connected);
            let are_served = last > Some(both) && owner.last_cause > Some(both);
            assert!(!are_served, "client {client} has two owners, {conn:?} and {other:?}, since {both}");
        }
    }
}
