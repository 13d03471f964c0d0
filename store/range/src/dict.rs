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
use bifro_core::ids::{ConnRef, ReqId};
use bifro_core::time::Instant;
use hashbrown::HashMap;

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

#[derive(Clone, Copy, Debug)]
struct Claim {
    conn: ConnRef,
    req: ReqId,
}

#[derive(Debug)]
struct Entry {
    owner: ConnRef,
    /// By when the owner, having been kicked, has to be gone.
    deadline: Option<Instant>,
    waiting: VecDeque<Claim>,
}

/// Owners of client ids, and who waits for them.
#[derive(Debug, Default)]
pub struct OwnerTable {
    entries: HashMap<TenantKey, Entry>,
    deadlines: Deadlines<TenantKey>,
}

impl OwnerTable {
    /// Nobody owns anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Client ids that have an owner.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No client id has an owner.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The owner of a client id.
    pub fn owner(&self, client: TenantKeyRef<'_>) -> Option<ConnRef> {
        self.entries.get(&client).map(|entry| entry.owner)
    }

    /// Makes `conn` the owner, at once or when everybody before it has gone.
    pub fn register(
        &mut self,
        now: Instant,
        client: TenantKeyRef<'_>,
        conn: ConnRef,
        req: ReqId,
        effects: &mut Vec<DictEffect>,
    ) {
        let Some((key, entry)) = self.entries.get_key_value_mut(&client) else {
            self.entries.insert(client.to_key(), Entry { owner: conn, deadline: None, waiting: VecDeque::new() });
            effects.push(DictEffect::Registered { conn, req });
            return;
        };
        if entry.owner == conn {
            effects.push(DictEffect::Registered { conn, req });
            return;
        }
        entry.waiting.push_back(Claim { conn, req });
        if entry.waiting.len() > TAKEOVERS_WAITING_MAX
            && let Some(unserved) = entry.waiting.pop_front()
        {
            effects.push(DictEffect::Kick { conn: unserved.conn });
        }
        if entry.deadline.is_none() {
            kick(now, key, entry, &mut self.deadlines, effects);
        }
    }

    /// `conn` has gone, or no longer wants the client id. Whoever is neither owner nor waiting is ignored: it has been
    /// succeeded at its deadline.
    pub fn unregister(&mut self, now: Instant, client: TenantKeyRef<'_>, conn: ConnRef, effects: &mut Vec<DictEffect>) {
        let Some(entry) = self.entries.get_mut(&client) else { return };
        if entry.owner == conn {
            self.succeed(now, client, effects);
        } else {
            entry.waiting.retain(|claim| claim.conn != conn);
        }
    }

    /// When [`OwnerTable::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Gives up on owners that have not gone in time.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<DictEffect>) {
        while let Some(key) = self.deadlines.pop_due(now) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.deadline = None;
            if !entry.waiting.is_empty() {
                self.succeed(now, TenantKeyRef { tenant: key.tenant, name: &key.name }, effects);
            }
        }
    }

    /// The owner's place goes to whoever has waited longest, who is kicked in its turn if others wait as well.
    fn succeed(&mut self, now: Instant, client: TenantKeyRef<'_>, effects: &mut Vec<DictEffect>) {
        let Some((key, entry)) = self.entries.get_key_value_mut(&client) else { return };
        if let Some(deadline) = entry.deadline.take() {
            self.deadlines.clear(deadline, key.clone());
        }
        let Some(next) = entry.waiting.pop_front() else {
            self.entries.remove(&client);
            return;
        };
        entry.owner = next.conn;
        effects.push(DictEffect::Registered { conn: next.conn, req: next.req });
        if !entry.waiting.is_empty() {
            kick(now, key, entry, &mut self.deadlines, effects);
        }
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        for (key, entry) in &self.entries {
            assert!(entry.waiting.is_empty() || entry.deadline.is_some(), "{key:?}: waiting for an owner never kicked");
            assert!(entry.waiting.len() <= TAKEOVERS_WAITING_MAX, "{key:?}: too many wait");
            assert!(entry.waiting.iter().all(|claim| claim.conn != entry.owner), "{key:?}: waits for itself");
        }
    }
}

fn kick(
    now: Instant,
    key: &TenantKey,
    entry: &mut Entry,
    deadlines: &mut Deadlines<TenantKey>,
    effects: &mut Vec<DictEffect>,
) {
    let deadline = now + TAKEOVER_DEADLINE;
    entry.deadline = Some(deadline);
    deadlines.set(deadline, key.clone());
    // The server must disconnect the existing client [MQTT-3.1.4-2] [MQTT5-3.1.4-3].
    effects.push(DictEffect::Kick { conn: entry.owner });
}

#[cfg(test)]
mod tests;
