//! What is agreed on, and what a node must not forget meanwhile.

use alloc::vec::Vec;
use bifro_core::ids::{ClusterId, NodeId};
use rkyv::{Archive, Deserialize, Serialize};

/// What all nodes of a cluster agree on, once and for ever.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClusterGenesis {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Key of the hashes that decide about placement; secret.
    pub seed: u64,
    /// Ranges of persistent sessions, and as many of retained messages; at least one.
    pub ranges: u16,
    /// Who had a part in it, in ascending order, each once; at least one.
    pub founders: Vec<NodeId>,
}

impl ClusterGenesis {
    /// Whether it is one that can have been proposed.
    pub fn is_valid(&self) -> bool {
        let ascending = self.founders.is_sorted_by(|one, next| one < next);
        self.cluster.0 != 0 && self.ranges > 0 && ascending && (1..=crate::limits::SEEDS).contains(&self.founders.len())
    }

    /// Whether it tells of a node that has only ever been by itself.
    pub fn is_of_one(&self, node: NodeId) -> bool {
        self.founders == [node]
    }
}

/// The number of a proposal: no two proposals have the same, for a node keeps each it has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Archive, Serialize, Deserialize)]
pub struct Ballot {
    /// Higher than all the proposer knew of; zero of no proposal.
    pub round: u64,
    /// Number of the proposer's [`NodeId`].
    pub node: u64,
}

/// A value that an acceptor has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Vote {
    /// In which proposal.
    pub ballot: Ballot,
    /// Which value.
    pub value: ClusterGenesis,
}

/// A node's memory as acceptor and learner: on the disk before anybody hears what follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Nothing of a lower number is accepted any more.
    pub promised: Ballot,
    /// What was accepted last.
    pub accepted: Option<Vote>,
    /// What is decided, as far as this node knows.
    pub decided: Option<ClusterGenesis>,
}
