//! What nodes ask each other, and what they reply.

use crate::ledger::{Ballot, ClusterGenesis, Vote};
use bifro_core::ids::NodeId;
use rkyv::{Archive, Deserialize, Serialize};

/// A question to a seed. Whoever knows what is decided replies that, whatever the question.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Question {
    /// Do you know of a cluster?
    Ask,
    /// Promise to accept nothing of a lower number, and tell what you have accepted (Paxos, 2.2, phase 1).
    Prepare {
        /// Number of the proposal.
        ballot: Ballot,
    },
    /// Accept this, unless you have promised otherwise (Paxos, 2.2, phase 2).
    Accept {
        /// Number and value of the proposal.
        vote: Vote,
    },
}

/// What a seed answers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// This is decided.
    Decided(ClusterGenesis),
    /// I know of no cluster.
    Undecided,
    /// I keep nothing, and so have no vote.
    NoVote,
    /// I accept nothing of a lower number.
    Promise {
        /// Than this.
        ballot: Ballot,
        /// What I have accepted before.
        accepted: Option<Vote>,
    },
    /// I have accepted the value of this proposal.
    Accepted {
        /// Its number.
        ballot: Ballot,
    },
    /// I have promised another to accept nothing of so low a number.
    Refused {
        /// The number of the other's proposal.
        promised: Ballot,
    },
}

/// An answer, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Reply {
    /// Who says so.
    pub from: NodeId,
    /// What.
    pub answer: Answer,
}
