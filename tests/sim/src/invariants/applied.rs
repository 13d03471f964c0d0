//! State Machine Safety: if a replica has applied an entry at an index, no other will ever apply another one there (Raft
//! figure 3). And each applies them one after another.

use bifro_core::ids::NodeId;
use bifro_raft::{Entry, LogId};

/// Everything that was applied anywhere, by place.
#[derive(Debug, Default)]
pub(crate) struct StateMachineSafety {
    history: Vec<Entry>,
}

impl StateMachineSafety {
    /// A node applies an entry after `before`.
    pub(crate) fn note(&mut self, node: NodeId, before: LogId, entry: &Entry) {
        let follows = entry.id.index == before.index.next();
        assert!(follows, "state machine safety: {node} applies {} after {before}", entry.id);
        let at = before.index.0 as usize;
        if let Some(known) = self.history.get(at) {
            assert!(known == entry, "state machine safety: {node} applies {}, elsewhere {} was", entry.id, known.id);
            return;
        }
        assert!(at == self.history.len(), "state machine safety: {node} applies {} without what is before", entry.id);
        self.history.push(entry.clone());
    }

    /// The last entry applied anywhere.
    pub(crate) fn last(&self) -> LogId {
        self.history.last().map_or(LogId::ZERO, |entry| entry.id)
    }
}
