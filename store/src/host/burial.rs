//! How replicas go for good, and how others come in their place.
//!
//! ```text
//!  replica ── removed ──► tombstone in place of the log ── durable ──► space dropped ── gone ──► absent
//!     ▲                                                                                            │
//!     └────────────── a leader or a candidate speaks to it: empty, from the tombstone ◄────────────┘
//! ```
//! The log goes before the space: a space without a log is known to be a rest (`restore.rs`), a log without its space would not start.
//!
//! A replica learns that it was removed from its own log, or from a node whose log says so: whoever has applied that the members do not
//! include some node tells that node when it asks for votes, and the leader tells it at once. That is bifro-raft's second way, and the
//! answer of any replica will do for it: what is applied is committed. What must not go is a copy that counts:
//! - a replica that has been added again, and is therefore counted, has the entry that says so in its log, or nothing behind the one that
//!   removed it;
//! - a replica whose log ends before an entry that was committed when it was no member was not counted for that one, nor for any after it.
//!
//! A leader that was removed may have entries behind its removal which nobody else has. It asks the members until the second holds.

use super::entry::write_hard_state;
use super::frame::Part;
use super::range::HostedRange;
use super::shard::{Host, Written};
use super::{Change, restore};
use crate::kv::{KvDone, KvSpace, SpaceId};
use crate::wal::{GroupId, Record};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;
use bifro_raft::{Body, Group, HardState, LogId, Membership, Message, Refusal, Restored, Role, SnapshotMeta, Term};
use std::time::Duration;

/// Until a replica that is removed and cannot be sure asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A replica on its way out.
pub(super) struct Burial {
    /// Until it can be dropped.
    space: Option<KvSpace>,
    rest: Absent,
    is_durable: bool,
}

/// What is left of a replica, and what the next one starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absent {
    pub(super) hard_state: HardState,
    pub(super) reigns_left: u64,
}

impl Host {
    /// Removes the replicas whose own log says that they are.
    pub(super) fn bury_leaving(&mut self, now: Instant) {
        let node = self.genesis.node;
        for (id, ask_at) in std::mem::take(&mut self.leaving) {
            let Some(group) = self.multi.group(id).filter(|group| !group.membership().contains(node)) else { continue };
            // With everything applied, nothing of it is on its way to the space.
            if group.is_removed() && group.applied() == group.last().index {
                self.bury(id, LogId::ZERO);
                continue;
            }
            if ask_at > now {
                self.leaving.insert(id, ask_at);
                continue;
            }
            for member in group.membership().members() {
                self.say(member, id, &Part::IsMember);
            }
            self.leaving.insert(id, now + ASK_AGAIN);
        }
    }

    /// Another node says that as of an entry this one is no member.
    pub(super) fn handle_not_member(&mut self, id: RangeId, since: LogId, as_of: LogId) {
        let Some(group) = self.multi.group(id) else { return };
        let knows = !group.membership().contains(self.genesis.node);
        // It may end with its removal, and not know that this is committed.
        if group.members_since() < since.index || knows && (group.last() == since || group.last() < as_of) {
            self.bury(id, as_of);
        }
    }

    /// Removes a replica; `removed` is as others told it. If a snapshot is just being put in place, nothing happens, and it is told again.
    fn bury(&mut self, id: RangeId, removed: LogId) {
        let finishes = |range: &HostedRange| range.incoming.as_ref().is_some_and(|incoming| incoming.is_finishing());
        if self.ranges.get(&id).is_none_or(finishes) {
            return;
        }
        self.abandon(id);
        let (Some(group), Some(range)) = (self.multi.remove(id), self.ranges.remove(&id)) else { return };
        let mut tombstone = group.tombstone();
        tombstone.removed = tombstone.removed.max(removed);
        tracing::info!(range = %id, removed = %tombstone.removed, "this node is no member any more; its replica goes");
        for ids in [&mut self.unproposed, &mut self.refused, &mut self.swollen] {
            ids.remove(&id);
        }
        self.fetches.retain(|_, (fetching, _)| *fetching != id);
        self.changes.push(Change::Follows { range: id, leader: None, term: tombstone.term });
        self.batch.delete_group(GroupId(id.0));
        self.batch.put_record(GroupId(id.0), Record::HARD_STATE, write_hard_state(&tombstone));
        self.batch_writes.push(Written::Burial(id));
        let rest = Absent { hard_state: tombstone, reigns_left: range.reigns_left() };
        self.burials.insert(id, Burial { space: Some(range.space), rest, is_durable: false });
    }

    /// Finishes a removal that a crash cut short.
    pub(super) fn bury_rest(&mut self, id: RangeId, rest: Absent, space: KvSpace) {
        self.burials.insert(id, Burial { space: Some(space), rest, is_durable: true });
        self.drop_buried(id);
    }

    /// The tombstone is durable.
    pub(super) fn handle_burial_durable(&mut self, id: RangeId) {
        if let Some(burial) = self.burials.get_mut(&id) {
            burial.is_durable = true;
            self.drop_buried(id);
        }
    }

    /// Has the space dropped when nothing reads or writes it any more.
    fn drop_buried(&mut self, id: RangeId) {
        let Some(burial) = self.burials.get_mut(&id).filter(|burial| burial.is_durable) else { return };
        if let Some(space) = burial.space.take_if(|space| space.is_settled()) {
            self.kv.drop_space(space);
        }
    }

    /// A job of a space whose replica is going has ended.
    pub(super) fn complete_buried(&mut self, id: RangeId, done: KvDone) {
        let Some(burial) = self.burials.get_mut(&id) else { return };
        match (done.dropped(), &mut burial.space) {
            (Some(Err(error)), _) => (self.fatal)(&format!("{id}: {error}")),
            (Some(Ok(())), _) => {
                let rest = burial.rest;
                self.burials.remove(&id);
                self.absent.insert(id, rest);
            }
            (None, Some(space)) => {
                let _nobody_asks = space.complete(done);
                self.drop_buried(id);
            }
            (None, None) => {}
        }
    }

    /// A message has reached no replica, or offended one.
    pub(super) fn handle_refusal(&mut self, now: Instant, from: NodeId, refusal: Refusal) {
        match refusal {
            Refusal::Violation { range, violation } => {
                tracing::error!(%range, %from, ?violation, "a replica broke the protocol; what it said is ignored");
            }
            Refusal::NoReplica { range, message } => {
                let asks = matches!(message.body, Body::PreVote { .. } | Body::Vote { .. });
                if (asks || message.body.is_from_leader()) && self.make_replica(now, range) {
                    self.retell(now, range, from, message);
                }
            }
        }
    }

    fn retell(&mut self, now: Instant, range: RangeId, from: NodeId, message: Message) {
        let told = self.multi.input(range).map(|group| group.handle_message(now, from, message));
        if let Some(Err(violation)) = told {
            tracing::error!(%range, %from, ?violation, "a replica broke the protocol; what it said is ignored");
        }
    }

    /// An empty replica of a range that this host was told of, unless there is one, or one is still going.
    fn make_replica(&mut self, now: Instant, id: RangeId) -> bool {
        if self.multi.group(id).is_some() {
            return true;
        }
        let Some(Absent { hard_state, reigns_left }) = self.absent.get(&id).copied() else { return false };
        let space = match self.kv.open(SpaceId(id.0)) {
            Ok(space) => space,
            Err(error) => {
                (self.fatal)(&format!("{id}: {error}"));
                return false;
            }
        };
        let identity = restore::identity(&self.genesis, id);
        let rng = restore::rng(&self.genesis, id, now);
        let restored = Restored { hard_state, ..Restored::default() };
        let group = Group::new(self.replication.raft.clone(), identity, restored, [], rng, now);
        let group = group.expect("a replica without a log has nothing that could contradict it");
        self.absent.remove(&id);
        self.multi.insert(group);
        self.ranges.insert(id, HostedRange::new(space, SnapshotMeta::default(), hard_state, reigns_left));
        true
    }

    /// Goes on with a range alone, although a majority of its replicas is lost for good; with an empty replica, if it has none. See
    /// [`Group::force_sole_voter`] for what that means. `newest` is the newest term that any replica which is left has seen.
    ///
    /// # Errors
    /// Why nothing was begun.
    pub fn force(&mut self, now: Instant, id: RangeId, newest: Term) -> Result<(), String> {
        if !self.make_replica(now, id) {
            return Err(format!("{id} is not of this node, or its replica is on its way out: try again"));
        }
        let group = self.multi.input(id).expect("it was there, or has been made");
        let at =
            group.force_sole_voter(now, newest).map_err(|error| format!("{id} cannot be recovered here: {error}"))?;
        tracing::warn!(range = %id, %at, "an operator has this replica go on alone: what only the lost ones had is lost");
        self.carry_out(now);
        Ok(())
    }

    /// Tells who asks for votes, or asks itself, if it is no member.
    pub(super) fn answer_stranger(&mut self, id: RangeId, from: NodeId) {
        let (Some(range), Some(group)) = (self.ranges.get(&id), self.multi.group(id)) else { return };
        let (since, members) = range.members();
        // One whose addition is not committed here yet is none.
        if !members.is_empty() && !members.contains(from) && !group.membership().contains(from) {
            let part = Part::NotMember { since: *since, as_of: range.applied_id() };
            self.say(from, id, &part);
        }
    }

    /// The members have changed, for good. Who is none any more is told, by the leader, since nobody sends it the log any longer.
    pub(super) fn dismiss(&mut self, id: RangeId, entry: LogId, before: &Membership) {
        let Some(group) = self.multi.group(id) else { return };
        let members = group.membership();
        let gone: Vec<NodeId> = before.members().into_iter().filter(|node| !members.contains(*node)).collect();
        let node = self.genesis.node;
        if gone.contains(&node) {
            self.leaving.insert(id, Instant::default());
        }
        if group.role() == Role::Leader {
            for peer in gone.into_iter().filter(|peer| *peer != node) {
                self.say(peer, id, &Part::NotMember { since: entry, as_of: entry });
            }
        }
    }
}
