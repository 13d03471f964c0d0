//! Log Matching: if two logs contain an entry with the same index and term, the logs are identical in all entries up to that one
//! (Raft figure 3). Held by induction: an entry is always the same, and always follows the same one.

use bifro_core::ids::NodeId;
use bifro_raft::{Entry, LogId};
use std::collections::BTreeMap;

/// Every entry that was ever written, with what it follows.
#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    entries: BTreeMap<LogId, (LogId, Entry)>,
}

impl LogMatching {
    /// A node writes entries behind `before`.
    pub(crate) fn note(&mut self, node: NodeId, before: LogId, entries: &[Entry]) {
        let mut before = before;
        for entry in entries {
            let known = self.entries.entry(entry.id).or_insert_with(|| (before, entry.clone()));
            let follows = known.0;
            assert!(follows == before, "log matching: {} follows {follows} and, on {node}, {before}", entry.id);
            assert!(known.1 == *entry, "log matching: {node} has another entry {}", entry.id);
            before = entry.id;
        }
    }
}
