//! What a host keeps about one replica besides the group: gone with a crash.

use crate::disk::{Checkpoint, Stored};
use crate::invariants::lease_promise::LeasePromise;
use crate::logcopy::LogCopy;
use crate::machine::Machine;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use bifro_raft::{Entry, EntryKind, Group, HardState, Index, Membership, ReadId, Role, SnapshotMeta, Term};
use std::collections::BTreeMap;

/// Names one operation of one client, and which attempt at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) client: usize,
    pub(crate) attempt: u64,
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Tells it from the replicas that this node had of the group before.
    pub(crate) life: u64,
    /// The log as written.
    pub(crate) log: LogCopy,
    /// Term and vote as written.
    pub(crate) hard_state: HardState,
    pub(crate) machine: Machine,
    /// The members as of the last entry applied.
    pub(crate) members: Membership,
    /// Handed out, not applied yet.
    pub(crate) applying: Vec<Entry>,
    /// Proposals whose fate is open, by place, with the term they were proposed in.
    pub(crate) proposals: BTreeMap<Index, (Term, Ticket)>,
    pub(crate) reads: BTreeMap<ReadId, (usize, Ticket)>,
    /// Snapshots that peers may fetch.
    pub(crate) offered: BTreeMap<NodeId, Checkpoint>,
    pub(crate) installing: Option<SnapshotMeta>,
    pub(crate) promise: LeasePromise,
    /// What was seen of the group when the last turn ended.
    pub(crate) seen: Seen,
}

/// What the invariants compare a turn's end with.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) committed: Index,
    pub(crate) role: Role,
    pub(crate) members: Membership,
    /// The entry that `members` come from.
    pub(crate) since: Index,
    pub(crate) quiet: bool,
}

impl Replica {
    /// What the host of a replica that has just been started knows.
    pub(crate) fn new(life: u64, group: &Group, stored: &Stored, now: Instant) -> Self {
        let seen = Seen {
            committed: group.committed(),
            role: group.role(),
            members: group.membership().clone(),
            since: stored.checkpoint.meta.last.index,
            quiet: false,
        };
        let mut replica = Self {
            life,
            log: stored.log.clone(),
            hard_state: stored.hard_state,
            machine: stored.checkpoint.machine.clone(),
            members: stored.checkpoint.meta.membership.clone(),
            applying: Vec::new(),
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            offered: BTreeMap::new(),
            installing: None,
            promise: LeasePromise::new(now),
            seen,
        };
        replica.seen.since = replica.members_since();
        replica
    }

    /// The entry that the newest members come from.
    pub(crate) fn members_since(&self) -> Index {
        let is_change = |entry: &&Entry| matches!(entry.kind, EntryKind::Membership(_));
        self.log.entries().rev().find(is_change).map_or(self.log.start().index, |entry| entry.id.index)
    }

    /// The state machine as it is now.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let meta = SnapshotMeta { last: self.machine.applied, membership: self.members.clone() };
        Checkpoint { meta, machine: self.machine.clone() }
    }

    /// The state machine becomes another one.
    pub(crate) fn install(&mut self, checkpoint: &Checkpoint) {
        self.machine = checkpoint.machine.clone();
        self.members = checkpoint.meta.membership.clone();
        self.applying.clear();
        self.installing = None;
    }
}
