//! Which term each entry of the log has, without the entries: terms change rarely, so a run per term is enough.

use crate::types::{Index, LogId, Term};
use alloc::vec::Vec;

/// Terms of a stretch of the log, as runs of equal terms.
///
/// Invariant: runs are in order, both by index and by term.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct TermRuns {
    /// The first entry of each run.
    runs: Vec<LogId>,
}

impl TermRuns {
    /// The term of the run that `index` is in; `None` before the first run. The caller knows where the log ends.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        let after = self.runs.partition_point(|first| first.index <= index);
        after.checked_sub(1).map(|run| self.runs[run].term)
    }

    /// Adds the entry at the end.
    pub(super) fn push(&mut self, id: LogId) {
        match self.runs.last() {
            Some(run) if run.term == id.term => {}
            _ => self.runs.push(id),
        }
    }

    /// Forgets every entry from `index` on.
    pub(super) fn truncate_from(&mut self, index: Index) {
        let keep = self.runs.partition_point(|first| first.index < index);
        self.runs.truncate(keep);
    }

    /// Forgets every entry before `index`.
    pub(super) fn forget_before(&mut self, index: Index) {
        let Some(run) = self.runs.partition_point(|first| first.index <= index).checked_sub(1) else { return };
        self.runs.drain(..run);
        self.runs[0].index = index;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// The last entry at or before `at` whose term is not above `term`; `None` if it is before the first run.
    pub(super) fn last_not_above(&self, at: Index, term: Term) -> Option<LogId> {
        let in_reach = self.runs.partition_point(|first| first.index <= at);
        let not_above = self.runs[..in_reach].partition_point(|first| first.term <= term);
        let run = not_above.checked_sub(1)?;
        let index = self.runs[..in_reach].get(not_above).map_or(at, |above| above.index.previous());
        Some(LogId { term: self.runs[run].term, index })
    }

    /// The first entries of the runs.
    pub(super) fn firsts(&self) -> &[LogId] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1.1 1.2 1.3 4.4 4.5 7.6
    fn runs() -> TermRuns {
        let mut runs = TermRuns::default();
        for (term, index) in [(1, 1), (1, 2), (1, 3), (4, 4), (4, 5), (7, 6)] {
            runs.push(LogId::new(term, index));
        }
        runs
    }

    #[test]
    fn each_entry_has_the_term_of_its_run() {
        let terms: Vec<_> = (0..=6).map(|index| runs().term_at(Index(index)).map(|term| term.0)).collect();
        assert_eq!(terms, [None, Some(1), Some(1), Some(1), Some(4), Some(4), Some(7)]);
    }

    #[test]
    fn forgetting_cuts_runs_at_either_end() {
        let mut cut = runs();
        cut.truncate_from(Index(5));
        assert_eq!(cut.firsts(), [LogId::new(1, 1), LogId::new(4, 4)]);
        cut.forget_before(Index(3));
        assert_eq!(cut.firsts(), [LogId::new(1, 3), LogId::new(4, 4)]);
        cut.forget_before(Index(5));
        assert_eq!(cut.firsts(), [LogId::new(4, 5)]);
    }

    #[test]
    fn the_hint_is_the_last_entry_whose_term_can_still_agree() {
        assert_eq!(runs().last_not_above(Index(6), Term(7)), Some(LogId::new(7, 6)));
        assert_eq!(runs().last_not_above(Index(6), Term(6)), Some(LogId::new(4, 5)));
        assert_eq!(runs().last_not_above(Index(4), Term(9)), Some(LogId::new(4, 4)));
        assert_eq!(runs().last_not_above(Index(6), Term(3)), Some(LogId::new(1, 3)));
        assert_eq!(runs().last_not_above(Index(6), Term(0)), None);
    }
}
