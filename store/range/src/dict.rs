//! The session dictionary of one partition: one owner per (tenant, client id) [MQTT-3.1.4-2] [MQTT5-3.1.4-3].
//!
//! ```text
//!             register                     register (other)
//!   (nobody) ──────────► owned by A ───────────────────────► A kicked, B waits ──┐ register: C waits too
//!       ▲                  │    ▲                                │       ▲───────┘
//!       └──────────────────┘    └────────────────────────────────┘
//!            A unregisters        A unregisters, or its deadline passes: B owns, and is kicked at once if C waits
//! ```
//! Invariants: a client id has at most one owner; those who wait are served in the order they came; an owner with somebody
//! waiting has been kicked and has a deadline.

use crate::deadlines::Deadlines;
use crate::key::{TenantKey, TenantKeyRef};
use crate::limits::{TAKEOVER_DEADLINE, TAKEOVERS_WAITING_MAX};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, NodeIdx, ReqId, TenantIdx};
use bifro_core::time::Instant;
use core::hash::{Hash, Hasher};
use hashbrown::{Equivalent, HashMap, HashSet};

/// What the dictionary wants told, each to the shard of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DictEffect {
    /// The connection owns its client id now.
    Registered {
        /// The connection.
        conn: ConnRef,
        /// Its request.
        req: ReqId,
    },
    /// The connection must close its session and unregister.
    Kick {
        /// The connection.
        conn: ConnRef,
    },
}

/// The owner of its client's id. Every connection has one of these, in a hash table between half and wholly full.
#[derive(Debug)]
struct Owned {
    client: Client,
    tenant: TenantIdx,
    conn: ConnRef,
}

const _: () = assert!(size_of::<Owned>() <= 24);

impl Owned {
    fn key(&self) -> TenantKeyRef<'_> {
        TenantKeyRef { tenant: self.tenant, name: &self.client.client_id }
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Owned {}

impl Hash for Owned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Equivalent<Owned> for TenantKeyRef<'_> {
    fn equivalent(&self, owned: &Owned) -> bool {
        *self == owned.key()
    }
}

/// Somebody who wants to be the owner.
#[derive(Debug)]
struct Claim {
    client: Client,
    conn: ConnRef,
    req: ReqId,
}

/// Others want what the owner has.
#[derive(Debug)]
struct Contest {
    /// By when the owner, having been kicked, has to be gone.
    deadline: Instant,
    waiting: VecDeque<Claim>,
}

/// Owners of client ids, and who waits for them.
#[derive(Debug, Default)]
pub struct OwnerTable {
    owners: HashSet<Owned>,
    contests: HashMap<TenantKey, Contest>,
    deadlines: Deadlines<TenantKey>,
}

impl OwnerTable {
    /// Nobody owns anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Client ids that have an owner.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// No client id has an owner.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The owner of a client id.
    pub fn owner(&self, client: TenantKeyRef<'_>) -> Option<ConnRef> {
        self.owners.get(&client).map(|owned| owned.conn)
    }

    /// Makes `conn` the owner of `client`'s id, at once or when everybody before it has gone.
    pub fn register(
        &mut self,
        now: Instant,
        tenant: TenantIdx,
        client: &Client,
        conn: ConnRef,
        req: ReqId,
        effects: &mut Vec<DictEffect>,
    ) {
        let key = TenantKeyRef { tenant, name: &client.client_id };
        let client = client.clone();
        let Some(owner) = self.owner(key) else {
            self.owners.insert(Owned { client, tenant, conn });
            effects.push(DictEffect::Registered { conn, req });
            return;
        };
        if owner == conn {
            effects.push(DictEffect::Registered { conn, req });
            return;
        }
        let claim = Claim { client, conn, req };
        let Some(contest) = self.contests.get_mut(&key) else {
            self.contend(now, key, owner, VecDeque::from([claim]), effects);
            return;
        };
        contest.waiting.push_back(claim);
        if contest.waiting.len() > TAKEOVERS_WAITING_MAX
            && let Some(unserved) = contest.waiting.pop_front()
        {
            effects.push(DictEffect::Kick { conn: unserved.conn });
        }
    }

    /// `conn`, registered elsewhere before, names its client id here. If somebody owns it or waits for it here, that is the newer
    /// connection, and `conn` is kicked.
    pub fn reregister(&mut self, tenant: TenantIdx, client: &Client, conn: ConnRef, effects: &mut Vec<DictEffect>) {
        match self.owner(TenantKeyRef { tenant, name: &client.client_id }) {
            None => {
                self.owners.insert(Owned { client: client.clone(), tenant, conn });
            }
            Some(owner) if owner == conn => {}
            Some(_) => effects.push(DictEffect::Kick { conn }),
        }
    }

    /// All connections of a node have gone with it.
    pub fn remove_node(&mut self, now: Instant, node: NodeIdx, effects: &mut Vec<DictEffect>) {
        for contest in self.contests.values_mut() {
            contest.waiting.retain(|claim| claim.conn.node != node);
        }
        let gone = self.owners.iter().filter(|owned| owned.conn.node == node);
        let mut gone: Vec<_> = gone.map(|owned| (owned.key().to_key(), owned.conn)).collect();
        // Any order will do, but not another one in each run.
        gone.sort_unstable_by_key(|(_, conn)| *conn);
        for (key, conn) in gone {
            self.unregister(now, TenantKeyRef { tenant: key.tenant, name: &key.name }, conn, effects);
        }
    }

    /// `conn` has gone, or no longer wants the client id. Whoever is neither owner nor waiting is ignored: it has been
    /// succeeded at its deadline.
    pub fn unregister(&mut self, now: Instant, client: TenantKeyRef<'_>, conn: ConnRef, effects: &mut Vec<DictEffect>) {
        if self.owner(client) == Some(conn) {
            self.succeed(now, client, effects);
        } else if let Some(contest) = self.contests.get_mut(&client) {
            contest.waiting.retain(|claim| claim.conn != conn);
        }
    }

    /// When [`OwnerTable::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Gives up on owners that have not gone in time.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<DictEffect>) {
        while let Some(key) = self.deadlines.pop_due(now) {
            let client = TenantKeyRef { tenant: key.tenant, name: &key.name };
            if self.contests.get(&client).is_some_and(|contest| contest.waiting.is_empty()) {
                // Nobody wants it any more: the owner stays.
                self.contests.remove(&client);
            } else {
                self.succeed(now, client, effects);
            }
        }
    }

    /// The owner's place goes to whoever has waited longest, who is kicked in its turn if others wait as well.
    fn succeed(&mut self, now: Instant, client: TenantKeyRef<'_>, effects: &mut Vec<DictEffect>) {
        let (key, contest) = self.contests.remove_entry(&client).unzip();
        let mut waiting = VecDeque::new();
        if let Some((key, contest)) = key.zip(contest) {
            self.deadlines.clear(contest.deadline, key);
            waiting = contest.waiting;
        }
        let Some(next) = waiting.pop_front() else {
            self.owners.remove(&client);
            return;
        };
        effects.push(DictEffect::Registered { conn: next.conn, req: next.req });
        self.owners.replace(Owned { client: next.client, tenant: client.tenant, conn: next.conn });
        if !waiting.is_empty() {
            self.contend(now, client, next.conn, waiting, effects);
        }
    }

    /// Tells `owner` to go, for the sake of those who wait.
    fn contend(
        &mut self,
        now: Instant,
        client: TenantKeyRef<'_>,
        owner: ConnRef,
        waiting: VecDeque<Claim>,
        effects: &mut Vec<DictEffect>,
    ) {
        let (key, deadline) = (client.to_key(), now + TAKEOVER_DEADLINE);
        self.deadlines.set(deadline, key.clone());
        self.contests.insert(key, Contest { deadline, waiting });
        // The server must disconnect the existing client [MQTT-3.1.4-2] [MQTT5-3.1.4-3].
        effects.push(DictEffect::Kick { conn: owner });
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        for (key, contest) in &self.contests {
            let owner = self.owner(TenantKeyRef { tenant: key.tenant, name: &key.name });
            let owner = owner.unwrap_or_else(|| panic!("{key:?}: a contest for what nobody owns"));
            assert!(contest.waiting.len() <= TAKEOVERS_WAITING_MAX, "{key:?}: too many wait");
            assert!(contest.waiting.iter().all(|claim| claim.conn != owner), "{key:?}: waits for itself");
        }
    }
}

#[cfg(test)]
mod tests;
