//! What must always be true, one invariant per file, and what must be true again when all faults are over.

pub(crate) mod acknowledged;
pub(crate) mod applied;
pub(crate) mod commitment;
pub(crate) mod configuration;
pub(crate) mod election_safety;
pub(crate) mod leader_completeness;
pub(crate) mod lease_promise;
pub(crate) mod linearizable;
pub(crate) mod liveness;
pub(crate) mod log_matching;
pub(crate) mod promises;

use crate::disk::Stored;
use crate::replica::Replica;
use bifro_core::ids::NodeId;
use bifro_raft::Term;

/// The invariants of one group, with what they remember.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) election_safety: election_safety::ElectionSafety,
    pub(crate) log_matching: log_matching::LogMatching,
    pub(crate) commitment: commitment::Commitment,
    pub(crate) applied: applied::StateMachineSafety,
    pub(crate) configuration: configuration::ConfigurationSafety,
    pub(crate) acknowledged: acknowledged::Acknowledged,
    pub(crate) linearizable: linearizable::Linearizable,
    pub(crate) promises: promises::Promises,
}

impl Checks {
    /// A replica leads from now on.
    pub(crate) fn note_leader(&mut self, node: NodeId, term: Term, replica: &Replica, stored: Option<&Stored>) {
        self.election_safety.note(node, term, stored);
        leader_completeness::check(&self.commitment, node, term, &replica.log);
    }
}
