//! Leader Completeness: what is committed in a term is in the logs of the leaders of all later ones (Raft figure 3).

use super::commitment::Commitment;
use crate::logcopy::LogCopy;
use bifro_core::ids::NodeId;
use bifro_raft::Term;

/// A node has become leader.
pub(crate) fn check(committed: &Commitment, node: NodeId, term: Term, log: &LogCopy) {
    let Some(last) = committed.before(term) else { return };
    let has = log.term_at(last.index) == Some(last.term) || log.start().index > last.index;
    assert!(has, "leader completeness: {node} leads in term {} without {last}, which is committed", term.0);
}
