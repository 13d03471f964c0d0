//! A copy of a replica's log as the host holds it: what was written, or what was synced.

use bifro_raft::{Entry, Index, LogId, LogWrite, Term};
use std::collections::VecDeque;

/// Entries without gaps behind `start`.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCopy {
    start: LogId,
    entries: VecDeque<Entry>,
}

impl LogCopy {
    /// What the first entry follows.
    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    /// The last entry.
    pub(crate) fn last(&self) -> LogId {
        self.entries.back().map_or(self.start, |entry| entry.id)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    /// The entry, if it is here.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of an entry, or of what stands before the first.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index { Some(self.start.term) } else { self.entry(index).map(|entry| entry.id.term) }
    }

    /// Carries out a write.
    ///
    /// # Panics
    /// If it leaves a gap.
    pub(crate) fn write(&mut self, write: &LogWrite) {
        match write {
            LogWrite::Nothing => {}
            LogWrite::Append(entries) => self.append(entries),
            LogWrite::Restart { start, entries } => {
                self.entries.clear();
                self.start = *start;
                self.append(entries);
            }
        }
    }

    fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.id.index.0.checked_sub(self.start.index.0 + 1).expect("what is compacted stays as it is");
        assert!(keep <= self.entries.len() as u64, "a log has no gaps");
        self.entries.truncate(keep as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Drops the entries up to `to`.
    pub(crate) fn compact(&mut self, to: Index) {
        while self.entries.front().is_some_and(|entry| entry.id.index <= to) {
            self.start = self.entries.pop_front().expect("there is a front").id;
        }
    }

    /// Entries from `first` to `last`, as many as cost no more than `bytes_max`, but at least one; `None` if `first` is not
    /// here.
    pub(crate) fn slice(&self, first: Index, last: Index, bytes_max: usize) -> Option<Vec<Entry>> {
        self.entry(first)?;
        let mut bytes = 0;
        let wanted = (first.0..=last.0).map_while(|index| self.entry(Index(index)));
        let fits = |entry: &&Entry| {
            bytes += entry.cost();
            bytes <= bytes_max || entry.id.index == first
        };
        Some(wanted.take_while(fits).cloned().collect())
    }
}
