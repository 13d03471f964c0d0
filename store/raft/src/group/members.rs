//! The members over time: a change counts from the moment its entry is in the log and is undone with it.

use crate::membership::Membership;
use crate::types::{Index, SnapshotMeta};
use alloc::collections::VecDeque;
use bifro_core::ids::NodeId;

/// The committed members and every later set that the log contains. A leader appends a change only when the one before is
/// committed, so there is rarely more than one.
#[derive(Debug)]
pub(super) struct MemberHistory {
    committed: (Index, Membership),
    later: VecDeque<(Index, Membership)>,
}

impl MemberHistory {
    /// Members as of a checkpoint or a snapshot.
    pub(super) fn new(meta: &SnapshotMeta) -> Self {
        Self { committed: (meta.last.index, meta.membership.clone()), later: VecDeque::new() }
    }

    /// The members that count.
    pub(super) fn current(&self) -> &Membership {
        self.later.back().map_or(&self.committed.1, |(_, members)| members)
    }

    /// Whether the node votes, or did before a change that can still be undone. The change may be in its log alone, and everybody else
    /// need its vote for another that they cannot get; so it campaigns until it is certain that it is gone (dissertation, 4.2.2).
    pub(super) fn may_campaign(&self, node: NodeId) -> bool {
        let mut newest = self.later.iter().rev();
        let (last, before) = (newest.next(), newest.next());
        let Some((_, last)) = last else { return self.committed.1.is_voter(node) };
        let before = before.map_or(&self.committed.1, |(_, members)| members);
        last.is_voter(node) || before.is_voter(node)
    }

    /// The entry they come from.
    pub(super) fn since(&self) -> Index {
        self.later.back().map_or(self.committed.0, |(index, _)| *index)
    }

    /// Adds the members of a new entry.
    pub(super) fn push(&mut self, index: Index, members: Membership) {
        assert!(index > self.since(), "entries are added at the end");
        self.later.push_back((index, members));
    }

    /// Undoes every change from `index` on. Returns whether there was one.
    pub(super) fn truncate_from(&mut self, index: Index) -> bool {
        let before = self.later.len();
        self.later.retain(|(at, _)| *at < index);
        self.later.len() != before
    }

    /// Notes what can no longer be undone.
    pub(super) fn commit(&mut self, index: Index) {
        while self.later.front().is_some_and(|(at, _)| *at <= index) {
            self.committed = self.later.pop_front().expect("there is a front");
        }
    }
}
