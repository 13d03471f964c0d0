//! Configuration Safety: members change one step at a time, each step only when the one before is committed, and voters only by way
//! of a joint phase, so that any two quorums that may decide meet (Raft section 6).

use crate::replica::Replica;
use bifro_core::ids::NodeId;
use bifro_raft::{Entry, EntryKind, Index, Membership};

/// Remembers nothing: each step is judged by the leader's own log.
#[derive(Debug, Default)]
pub(crate) struct ConfigurationSafety;

impl ConfigurationSafety {
    /// A leader appends entries to its log.
    pub(crate) fn note(&mut self, node: NodeId, replica: &Replica, committed: Index, entries: &[Entry]) {
        let (mut current, mut since) = (&replica.seen.members, replica.seen.since);
        for entry in entries {
            let EntryKind::Membership(next) = &entry.kind else { continue };
            let id = entry.id;
            assert!(
                since <= committed,
                "configuration: {node} begins change {id} before the one at {} is committed",
                since.0
            );
            assert!(next.is_well_formed(), "configuration: {node} appends malformed members at {id}");
            assert!(is_step(current, next), "configuration: {node} goes from {current:?} to {next:?} at once");
            (current, since) = (next, id.index);
        }
    }
}

/// Whether every quorum of the one meets every quorum of the other.
fn is_step(current: &Membership, next: &Membership) -> bool {
    if current.is_joint() {
        return !next.is_joint() && next.voters == current.voters;
    }
    if next.is_joint() { next.outgoing == current.voters } else { next.voters == current.voters }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: &[u64], outgoing: &[u64]) -> Membership {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        Membership { voters: nodes(voters), outgoing: nodes(outgoing), learners: Vec::new() }
    }

    #[test]
    fn voters_change_by_way_of_a_joint_phase_only() {
        assert!(is_step(&members(&[1, 2, 3], &[]), &members(&[3, 4], &[1, 2, 3])));
        assert!(is_step(&members(&[3, 4], &[1, 2, 3]), &members(&[3, 4], &[])));
        assert!(!is_step(&members(&[1, 2, 3], &[]), &members(&[1, 2], &[])));
        assert!(!is_step(&members(&[3, 4], &[1, 2, 3]), &members(&[4], &[])));
        assert!(!is_step(&members(&[1, 2, 3], &[]), &members(&[4], &[1, 2])));
    }
}
