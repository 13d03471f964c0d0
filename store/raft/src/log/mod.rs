//! The log as its group sees it: how far it reaches, which terms its entries have, how far they are written, durable,
//! committed and applied; and the newest entries themselves. Older ones are in the host's log only.
//!
//! ```text
//!  start        applied   handed_out   committed        last
//!    │ compacted? │           │            │              │
//!    └────────────┴───────────┴────────────┴──────────────┘
//!         written, durable: anywhere from handed_out to last
//! ```

mod tail;
mod terms;
#[cfg(test)]
mod tests;

use crate::effect::LogWrite;
use crate::types::{Entry, Index, LogId, Term};
use alloc::vec::Vec;
use tail::Tail;
use terms::TermRuns;

/// The log of one replica. Its marks are read freely and moved by the methods only.
#[derive(Debug)]
pub(crate) struct Log {
    start: LogId,
    last: LogId,
    terms: TermRuns,
    tail: Tail,
    /// The last entry handed to the host to be written.
    written: Index,
    durable: Index,
    committed: Index,
    handed_out: Index,
    applied: Index,
    /// The host's log must begin anew behind `start`.
    restarting: bool,
}

impl Log {
    /// A log without entries, of a state machine that contains everything up to `start`.
    pub(crate) fn new(start: LogId) -> Self {
        let at = start.index;
        Self {
            start,
            last: start,
            terms: TermRuns::default(),
            tail: Tail::default(),
            written: at,
            durable: at,
            committed: at,
            handed_out: at,
            applied: at,
            restarting: false,
        }
    }

    /// What the first entry follows.
    pub(crate) const fn start(&self) -> LogId {
        self.start
    }

    /// The last entry.
    pub(crate) const fn last(&self) -> LogId {
        self.last
    }

    /// The last entry known to be durable here.
    pub(crate) const fn durable(&self) -> Index {
        self.durable
    }

    /// The last entry known to be committed.
    pub(crate) const fn committed(&self) -> Index {
        self.committed
    }

    /// The last entry handed out to be applied.
    pub(crate) const fn handed_out(&self) -> Index {
        self.handed_out
    }

    /// The last entry that was applied.
    pub(crate) const fn applied(&self) -> Index {
        self.applied
    }

    /// The last entry that may be applied: committed, and durable here.
    pub(crate) fn appliable(&self) -> Index {
        self.committed.min(self.durable)
    }

    /// The entry's term; `None` if it is before `start` or behind the end.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            Some(self.start.term)
        } else if index < self.start.index || index > self.last.index {
            None
        } else {
            self.terms.term_at(index)
        }
    }

    /// The last entry at or before `at` whose term is not above `term`; at least `start`.
    pub(crate) fn last_not_above(&self, at: Index, term: Term) -> LogId {
        self.terms.last_not_above(at.min(self.last.index), term).unwrap_or(self.start)
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    /// If it does not follow the last one.
    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(entry.id.index == self.last.index.next(), "entries have no gaps");
        assert!(entry.id.term >= self.last.term, "terms never fall along the log");
        self.terms.push(entry.id);
        self.last = entry.id;
        self.tail.push(entry);
    }

    /// Takes over an entry that is in the host's log already.
    pub(crate) fn restore(&mut self, entry: Entry) {
        let index = entry.id.index;
        self.append(entry);
        (self.written, self.durable) = (index, index);
    }

    /// Notes that the state machine's checkpoint contains everything up to `index`.
    pub(crate) fn mark_restored_applied(&mut self, index: Index) {
        let index = self.committed.max(index);
        (self.committed, self.handed_out, self.applied) = (index, index, index);
    }

    /// Removes every entry from `index` on.
    ///
    /// # Panics
    /// If one of them is committed.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        assert!(index > self.committed, "what is committed stays (Leader Completeness)");
        self.terms.truncate_from(index);
        self.tail.truncate_from(index);
        let last = index.previous();
        let term = if last == self.start.index { Some(self.start.term) } else { self.terms.term_at(last) };
        self.last = LogId { index: last, term: term.expect("what is not committed is behind the start") };
        self.written = self.written.min(last);
        self.durable = self.durable.min(last);
    }

    /// Forgets everything: the log goes on behind `start`, up to which the state machine contains everything.
    pub(crate) fn restart(&mut self, start: LogId) {
        *self = Self { restarting: true, ..Self::new(start) };
    }

    /// Forgets the entries up to `to`, as far as they are durable.
    ///
    /// # Panics
    /// If one of them is not applied.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.applied, "only what is applied can be forgotten");
        let to = to.min(self.durable);
        let Some(term) = self.term_at(to) else { return };
        if to == self.last.index {
            self.terms.clear();
        } else {
            self.terms.forget_before(to.next());
        }
        self.start = LogId { term, index: to };
        while self.tail.first().is_some_and(|first| first <= to) {
            self.tail.drop_first();
        }
    }

    /// Notes that everything up to `index` was synced, as far as it has not been replaced meanwhile.
    pub(crate) fn mark_durable(&mut self, index: Index) {
        self.durable = self.durable.max(index.min(self.written));
    }

    /// Notes that everything up to `index` is committed, as far as it is here. Returns whether that was news.
    pub(crate) fn mark_committed(&mut self, index: Index) -> bool {
        let index = index.min(self.last.index);
        let news = index > self.committed;
        self.committed = self.committed.max(index);
        news
    }

    /// Notes that entries were handed out to be applied.
    pub(crate) fn mark_handed_out(&mut self, index: Index) {
        assert!(index <= self.appliable(), "only what is committed and durable is applied");
        self.handed_out = self.handed_out.max(index);
    }

    /// Notes that everything up to `index` was applied.
    ///
    /// # Panics
    /// If it was not handed out.
    pub(crate) fn mark_applied(&mut self, index: Index) {
        assert!(index <= self.handed_out, "only what was handed out can be applied");
        self.applied = self.applied.max(index);
    }

    /// Notes that the state machine was replaced by one that contains everything up to `index`.
    pub(crate) fn mark_installed(&mut self, index: Index) {
        self.mark_committed(index);
        assert!(index <= self.committed, "what a snapshot contains is committed");
        self.handed_out = self.handed_out.max(index);
        self.applied = self.applied.max(index);
    }

    /// Entries from `first` to `last` from memory; `None` if they must be fetched.
    pub(crate) fn slice(&self, first: Index, last: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        self.tail.slice(first, last, bytes_max)
    }

    /// Whether anything waits to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.restarting || self.written < self.last.index
    }

    /// What is to be written now.
    pub(crate) fn take_unwritten(&mut self) -> LogWrite {
        let first = self.written.next();
        let entries = self.tail.slice(first, self.last.index, usize::MAX).unwrap_or_default();
        assert!(entries.len() as u64 == self.last.index.0 - self.written.0, "what is not written is in memory");
        self.written = self.last.index;
        if core::mem::take(&mut self.restarting) {
            LogWrite::Restart { start: self.start, entries }
        } else if entries.is_empty() {
            LogWrite::Nothing
        } else {
            LogWrite::Append(entries)
        }
    }

    /// Entries from `first` on are to be written once more.
    ///
    /// # Panics
    /// If they were durable.
    pub(crate) fn unwrite(&mut self, first: Index) {
        assert!(first > self.durable, "what is durable was written");
        self.written = self.written.min(first.previous());
    }

    /// Cost of what is not durable.
    pub(crate) fn undurable_bytes(&self) -> usize {
        self.tail.cost_behind(self.durable)
    }

    /// Entries that are not applied.
    pub(crate) const fn pending_entries(&self) -> u64 {
        self.last.index.0 - self.applied.0
    }

    /// Their cost, as far as they are in memory.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.tail.cost_behind(self.applied)
    }

    /// Drops durable entries from memory: those applied when there is more than `bytes_max`, others when there is
    /// `pending_max` more than that.
    pub(crate) fn evict(&mut self, bytes_max: usize, pending_max: usize) {
        while let Some(first) = self.tail.first().filter(|&first| first <= self.durable) {
            let allowed = if first <= self.applied { bytes_max } else { bytes_max.saturating_add(pending_max) };
            if self.tail.cost() <= allowed {
                break;
            }
            self.tail.drop_first();
        }
    }

    /// Bytes of entries in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail.cost()
    }

    /// # Panics
    /// If the marks contradict each other.
    pub(crate) fn validate(&self) {
        assert!(self.start.index <= self.applied, "nothing unapplied was forgotten");
        assert!(self.applied <= self.handed_out, "nothing was applied that was not handed out");
        assert!(self.handed_out <= self.committed, "nothing was handed out that was not committed");
        assert!(self.committed <= self.last.index, "nothing is committed that is not here");
        assert!(self.durable <= self.written, "nothing is durable that was not written");
        assert!(self.written <= self.last.index, "nothing was written that is not here");
        assert!(self.term_at(self.last.index) == Some(self.last.term), "the last entry has its term");
        let in_order = |pair: &[LogId]| pair[0].index < pair[1].index && pair[0].term < pair[1].term;
        assert!(self.terms.firsts().windows(2).all(in_order), "terms never fall along the log");
        if let Some(first) = self.tail.first() {
            assert!(first > self.start.index, "what is forgotten is not in memory");
            assert!(self.tail.last() == Some(self.last.index), "what is in memory ends where the log ends");
        }
        let unwritten_in_memory = self.tail.first().is_some_and(|first| first <= self.written.next());
        assert!(self.written == self.last.index || unwritten_in_memory, "what is not written is in memory");
    }
}
