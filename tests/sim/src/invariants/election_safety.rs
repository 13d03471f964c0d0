//! Election Safety: at most one leader is elected in a term (Raft figure 3), and it has voted for itself, durably.

use crate::disk::Stored;
use bifro_core::ids::NodeId;
use bifro_raft::Term;
use std::collections::BTreeMap;

/// Who led when.
#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    leaders: BTreeMap<Term, NodeId>,
}

impl ElectionSafety {
    /// A node has become leader.
    pub(crate) fn note(&mut self, node: NodeId, term: Term, stored: Option<&Stored>) {
        let known = *self.leaders.entry(term).or_insert(node);
        assert!(known == node, "election safety: {known} and {node} lead in term {}", term.0);
        let own_vote = (term, Some(node));
        let durable = stored.map(|stored| (stored.hard_state.term, stored.hard_state.vote));
        assert!(durable == Some(own_vote), "election safety: {node} counted its own vote before it was durable");
    }
}
