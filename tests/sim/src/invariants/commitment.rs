//! What is committed: on a quorum of disks, by a leader whose own term it is (Raft sections 5.3 and 5.4.2), and for ever.

use crate::node::Node;
use bifro_core::ids::{NodeId, RangeId};
use bifro_raft::{Index, LogId, Membership, Role, Term};

/// Every committed entry, and the newest term in which one up to it was first seen to be.
#[derive(Debug, Default)]
pub(crate) struct Commitment {
    entries: Vec<(LogId, Term)>,
}

impl Commitment {
    /// The last committed entry that was so before `term`.
    pub(crate) fn before(&self, term: Term) -> Option<LogId> {
        let end = self.entries.partition_point(|(_, seen)| *seen < term);
        self.entries[..end].last().map(|(id, _)| *id)
    }

    /// The last committed entry.
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::ZERO, |(id, _)| *id)
    }

    fn known(&self, index: Index) -> Option<LogId> {
        self.entries.get(usize::try_from(index.0.checked_sub(1)?).ok()?).map(|(id, _)| *id)
    }

    /// A node's turn has ended: looks at what it has taken for committed in it.
    pub(crate) fn note(&mut self, nodes: &[Node], at: usize, range: RangeId) {
        let node = nodes[at].id();
        let (group, replica) = nodes[at].replica(range).expect("it has had a turn");
        let (before, after) = (replica.seen.committed, group.committed());
        if after <= before {
            return;
        }
        if group.role() == Role::Leader && replica.seen.role == Role::Leader {
            let of = replica.log.term_at(after);
            assert!(of == Some(group.term()), "commitment: {node} committed {} of an older term by counting", after.0);
        }
        for index in (before.0 + 1..=after.0).map(Index) {
            let Some(term) = replica.log.term_at(index) else { continue };
            let id = LogId { term, index };
            if let Some(known) = self.known(index) {
                assert!(known == id, "commitment: {known} is committed, {node} takes {id} for it");
                continue;
            }
            assert!(
                self.entries.len() as u64 + 1 == index.0,
                "commitment: {node} takes {id} for committed, nobody told it"
            );
            let since = replica.seen.since;
            let by_old = is_durable_on_quorum(nodes, range, id, &replica.seen.members);
            let by_new = index > since && is_durable_on_quorum(nodes, range, id, group.membership());
            assert!(by_old || by_new, "commitment: {node} takes {id} for committed, which is not durable on a quorum");
            let seen = self.entries.last().map_or(Term(0), |(_, seen)| *seen).max(group.term());
            self.entries.push((id, seen));
        }
    }
}

fn is_durable_on_quorum(nodes: &[Node], range: RangeId, id: LogId, members: &Membership) -> bool {
    let has = |node: NodeId| {
        let Some(stored) = nodes[node.0 as usize].disk.stored(range) else { return false };
        stored.checkpoint.meta.last.index >= id.index || stored.log.term_at(id.index) == Some(id.term)
    };
    members.reached_by_quorum(has)
}
