//! Which indexes each group's log holds, as of what is written and what is being merged.

use super::batch::GroupId;
use std::collections::HashMap;

/// A group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    /// First index; meaningless if empty.
    first: u64,
    /// One past the last index; `first` if empty.
    end: u64,
    /// The first index of a refused append: nothing beyond may be appended before it.
    refused: Option<u64>,
}

/// Whether an append may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It joins or replaces what is there.
    Fits,
    /// It begins beyond the end, or below what was compacted.
    Hole,
}

/// The spans, with an undo list for the write in work.
#[derive(Debug, Default)]
pub(super) struct Spans {
    groups: HashMap<GroupId, Span>,
    before: HashMap<GroupId, Option<Span>>,
}

impl Spans {
    /// At recovery: the group holds `first..end`.
    pub(super) fn recovered(&mut self, group: GroupId, first: u64, end: u64) {
        self.groups.insert(group, Span { first, end, refused: None });
    }

    pub(super) fn check(&self, group: GroupId, from: u64) -> Verdict {
        let Some(span) = self.groups.get(&group) else { return Verdict::Fits };
        let beyond_refused = span.refused.is_some_and(|refused| from > refused);
        let outside = span.first < span.end && !(span.first..=span.end).contains(&from);
        if beyond_refused || outside { Verdict::Hole } else { Verdict::Fits }
    }

    fn change(&mut self, group: GroupId) -> &mut Span {
        let before = self.groups.get(&group).copied();
        self.before.entry(group).or_insert(before);
        self.groups.entry(group).or_default()
    }

    pub(super) fn append(&mut self, group: GroupId, from: u64, count: u64) {
        let span = self.change(group);
        let first = if span.first < span.end { span.first } else { from };
        *span = Span { first, end: from + count, refused: None };
    }

    pub(super) fn refuse(&mut self, group: GroupId, from: u64) {
        let span = self.change(group);
        span.refused = Some(span.refused.map_or(from, |refused| refused.min(from)));
    }

    pub(super) fn compact(&mut self, group: GroupId, first_kept: u64) {
        let span = self.change(group);
        span.first = span.first.max(first_kept.min(span.end));
        // A log that is compacted beyond a refused append begins anew, after an installed snapshot.
        span.refused = span.refused.filter(|refused| *refused >= first_kept);
    }

    pub(super) fn delete(&mut self, group: GroupId) {
        *self.change(group) = Span::default();
    }

    /// The write succeeded.
    pub(super) fn commit(&mut self) {
        for (group, _) in self.before.drain() {
            if self.groups.get(&group) == Some(&Span::default()) {
                self.groups.remove(&group);
            }
        }
    }

    /// The write failed, or is built anew.
    pub(super) fn roll_back(&mut self) {
        for (group, before) in self.before.drain() {
            match before {
                Some(span) => self.groups.insert(group, span),
                None => self.groups.remove(&group),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn spans(first: u64, end: u64) -> Spans {
        let mut spans = Spans::default();
        spans.recovered(GROUP, first, end);
        spans
    }

    #[test]
    fn an_append_joins_or_replaces_but_leaves_no_hole() {
        let spans = spans(5, 9);
        let verdicts: Vec<Verdict> = [4, 5, 8, 9, 10].into_iter().map(|from| spans.check(GROUP, from)).collect();
        assert_eq!(verdicts, [Verdict::Hole, Verdict::Fits, Verdict::Fits, Verdict::Fits, Verdict::Hole]);
    }

    #[test]
    fn after_a_refusal_only_the_refused_append_or_an_earlier_one_fits() {
        let mut spans = Spans::default();
        spans.refuse(GROUP, 11);
        assert_eq!(spans.check(GROUP, 12), Verdict::Hole);
        assert_eq!(spans.check(GROUP, 11), Verdict::Fits);
        spans.append(GROUP, 11, 2);
        spans.commit();
        assert_eq!(spans.check(GROUP, 13), Verdict::Fits);
    }

    #[test]
    fn a_log_compacted_beyond_its_end_begins_anywhere() {
        let mut spans = spans(1, 4);
        spans.compact(GROUP, 100);
        assert_eq!(spans.check(GROUP, 100), Verdict::Fits);
        spans.roll_back();
        assert_eq!(spans.check(GROUP, 100), Verdict::Hole, "the write failed");
    }
}
