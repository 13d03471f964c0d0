//! All replicas of one shard: finds the group for each input, ends the turn for those that had one, joins messages per peer.

mod batch;
mod outbox;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Beat, BeatReply};
pub use outbox::Outbox;

use crate::effect::Effect;
use crate::error::Violation;
use crate::group::Group;
use crate::message::Message;
use crate::types::WriteId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;

/// The replicas of one shard. Feed inputs, end the turn with [`Multi::poll_effects`], send [`Multi::take_batches`].
///
/// A group that had no input costs nothing in a turn: what is done is in proportion to the groups that had one.
#[derive(Debug, Default)]
pub struct Multi {
    groups: BTreeMap<RangeId, Member>,
    deadlines: BTreeSet<(Instant, RangeId)>,
    /// Groups with inputs since the last turn ended.
    touched: BTreeSet<RangeId>,
    outbox: Outbox,
    scratch: Vec<Effect>,
}

#[derive(Debug)]
struct Member {
    group: Group,
    /// Where it stands in `deadlines`.
    deadline: Option<Instant>,
}

/// A message that reached no group or offended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such replica. To a leader and to a candidate the host gives one, from the tombstone if there is one: the node
    /// may be a member by now, whose vote is needed.
    NoReplica {
        /// The group.
        range: RangeId,
        /// What was said to it.
        message: Message,
    },
    /// The peer broke the protocol.
    Violation {
        /// The group.
        range: RangeId,
        /// How.
        violation: Violation,
    },
}

impl Multi {
    /// Adds a replica.
    ///
    /// # Panics
    /// If there is one of that group.
    pub fn insert(&mut self, group: Group) {
        let range = group.identity().range;
        let before = self.groups.insert(range, Member { group, deadline: None });
        assert!(before.is_none(), "a shard has one replica of a group at most");
        self.touched.insert(range);
    }

    /// Takes a replica out, with everything it still wanted to say.
    pub fn remove(&mut self, range: RangeId) -> Option<Group> {
        let member = self.groups.remove(&range)?;
        if let Some(deadline) = member.deadline {
            self.deadlines.remove(&(deadline, range));
        }
        self.touched.remove(&range);
        self.outbox.forget(range);
        Some(member.group)
    }

    /// A replica, to look at.
    pub fn group(&self, range: RangeId) -> Option<&Group> {
        self.groups.get(&range).map(|member| &member.group)
    }

    /// All replicas, in order.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(|member| &member.group)
    }

    /// A replica, to give it an input; its turn ends with the shard's. `None` if there is none.
    pub fn input(&mut self, range: RangeId) -> Option<&mut Group> {
        let member = self.groups.get_mut(&range)?;
        self.touched.insert(range);
        Some(&mut member.group)
    }

    /// What a peer's shard said in one of its turns. Adds to `refused` what could not be delivered.
    pub fn handle_batch(&mut self, now: Instant, from: NodeId, batch: Batch, refused: &mut Vec<Refusal>) {
        for (range, message) in batch.into_messages() {
            match self.input(range) {
                None => refused.push(Refusal::NoReplica { range, message }),
                Some(group) => {
                    if let Err(violation) = group.handle_message(now, from, message) {
                        refused.push(Refusal::Violation { range, violation });
                    }
                }
            }
        }
    }

    /// A group's write has been synced. Unknown groups are ignored: they were removed meanwhile.
    pub fn handle_durable(&mut self, now: Instant, range: RangeId, write: WriteId) {
        if let Some(group) = self.input(range) {
            group.handle_durable(now, write);
            self.outbox.handle_durable(range, write);
        }
    }

    /// The underlay has declared a node dead: quiet groups that it belongs to wake. Told once, so what the node said before and what
    /// comes after this is to be dropped, until the underlay has it back: its last word might send a group to sleep.
    pub fn handle_node_down(&mut self, now: Instant, node: NodeId) {
        for (range, member) in &mut self.groups {
            if member.group.is_quiet() {
                member.group.handle_node_down(now, node);
                self.touched.insert(*range);
            }
        }
    }

    /// The earliest deadline has come: see [`Multi::next_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, range)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(member) = self.groups.get_mut(&range) {
                member.deadline = None;
                member.group.handle_timeout(now);
                self.touched.insert(range);
            }
        }
    }

    /// When [`Multi::handle_timeout`] is due. Changes only when a turn ends.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ends the turn of every group that had an input: appends to `out` what is to be done, in order, except for messages,
    /// which go to the batches.
    pub fn poll_effects(&mut self, now: Instant, out: &mut Vec<(RangeId, Effect)>) {
        while let Some(range) = self.touched.pop_first() {
            let Some(member) = self.groups.get_mut(&range) else { continue };
            member.group.poll_effects(now, &mut self.scratch);
            for effect in self.scratch.drain(..) {
                match effect {
                    Effect::Send { to, message, after } => self.outbox.push(range, to, message, after),
                    effect => out.push((range, effect)),
                }
            }
            let deadline = member.group.next_timeout();
            if deadline != member.deadline {
                if let Some(before) = member.deadline {
                    self.deadlines.remove(&(before, range));
                }
                self.deadlines.extend(deadline.map(|deadline| (deadline, range)));
                member.deadline = deadline;
            }
        }
    }

    /// What may be sent now, one batch per peer.
    pub fn take_batches(&mut self) -> impl Iterator<Item = (NodeId, Batch)> + use<> {
        self.outbox.take_batches()
    }
}
