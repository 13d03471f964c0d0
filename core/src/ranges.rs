//! Replicas of ranges as operators see them, and what operators want of them.

use crate::ids::{NodeId, RangeId};
use alloc::string::String;
use alloc::vec::Vec;
use rkyv::{Archive, Deserialize, Serialize};

/// A replica, as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Of which range.
    pub range: RangeId,
    /// On which node.
    pub node: NodeId,
    /// Who leads the range, as far as is known there.
    pub leader: Option<NodeId>,
    /// For how long nobody has, in milliseconds; zero if somebody does.
    pub leaderless_ms: u64,
    /// The newest term it has seen.
    pub term: u64,
    /// Term of the last entry of its log.
    pub last_term: u64,
    /// Index of that.
    pub last_index: u64,
    /// Up to where its log is known to be committed.
    pub committed: u64,
    /// Up to where it is applied.
    pub applied: u64,
    /// Entries in its log; those before are in the checkpoint only.
    pub log_entries: u64,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who voted before the change under way.
    pub outgoing: Vec<NodeId>,
    /// Who is only sent the log.
    pub learners: Vec<NodeId>,
    /// How many entries the other members are not known to have, if it leads.
    pub lags: Vec<(NodeId, u64)>,
    /// What the range holds, where that is in memory: on the node that serves it.
    pub held: Option<Held>,
}

impl ReplicaReport {
    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.node)
    }
}

/// What a range holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Held {
    /// Persistent sessions.
    pub sessions: u64,
    /// Messages queued in them, or retained ones.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What an operator wants of the replicas of a node. All orders may come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RangeOrder {
    /// To tell what they are.
    Show,
    /// To have the range led by the node. Told to its leader, which hands it over, and before to that node, which keeps it then.
    Lead(RangeId, NodeId),
    /// To go on with the range alone, without a majority that is lost for good; with an empty replica, if it has none. In a term beyond this one,
    /// the newest that any replica which is left has seen.
    Recover(RangeId, u64),
}

impl RangeOrder {
    /// The range it is about; none if it is about all.
    pub const fn range(self) -> Option<RangeId> {
        match self {
            Self::Show => None,
            Self::Lead(range, _) | Self::Recover(range, _) => Some(range),
        }
    }
}

/// What a node answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RangeAnswer {
    /// Its replicas, if they were asked for.
    pub replicas: Vec<ReplicaReport>,
    /// Why it does not do what is wanted.
    pub refusal: Option<String>,
}

impl RangeAnswer {
    /// What was wanted is done, or begun; or why not.
    pub fn of(outcome: Result<(), String>) -> Self {
        Self { replicas: Vec::new(), refusal: outcome.err() }
    }

    /// With what another shard of the node answers.
    pub fn join(&mut self, other: Self) {
        self.replicas.extend(other.replicas);
        self.refusal = self.refusal.take().or(other.refusal);
    }
}
