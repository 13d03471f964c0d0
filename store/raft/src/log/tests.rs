//! The log against the simplest thing that could be one: a list of all entries that were ever there.

use super::Log;
use crate::types::{Entry, EntryKind, Index, LogId};
use alloc::vec::Vec;
use bytes::Bytes;
use proptest::prelude::*;

/// Something that can be done to a log, with numbers that are made to fit.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append { term_grows: u64, bytes: usize },
    Truncate(u64),
    Write,
    Durable(u64),
    Commit(u64),
    Apply,
    Compact(u64),
    Evict(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_u64, 0..200_usize).prop_map(|(term_grows, bytes)| Step::Append { term_grows, bytes }),
        1 => any::<u64>().prop_map(Step::Truncate),
        3 => Just(Step::Write),
        3 => any::<u64>().prop_map(Step::Durable),
        2 => any::<u64>().prop_map(Step::Commit),
        2 => Just(Step::Apply),
        1 => any::<u64>().prop_map(Step::Compact),
        2 => (0..600_usize).prop_map(Step::Evict),
    ]
}

/// What the log must be.
#[derive(Default)]
struct Model {
    /// All entries, the first at index 1; what is compacted is still here.
    entries: Vec<Entry>,
    start: u64,
    committed: u64,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn term(&self, index: u64) -> u64 {
        index.checked_sub(1).map_or(0, |at| self.entries[at as usize].id.term.0)
    }
}

fn carry_out(step: Step, log: &mut Log, model: &mut Model) {
    match step {
        Step::Append { term_grows, bytes } => {
            let id = LogId::new(model.term(model.last()) + term_grows, model.last() + 1);
            let entry = Entry { id, kind: EntryKind::Data(Bytes::from(alloc::vec![7; bytes])) };
            model.entries.push(entry.clone());
            log.append(entry);
        }
        Step::Truncate(pick) if model.last() > model.committed => {
            let from = model.committed + 1 + pick % (model.last() - model.committed);
            model.entries.truncate(from as usize - 1);
            log.truncate_from(Index(from));
        }
        Step::Write => _ = log.take_unwritten(),
        Step::Durable(pick) => log.mark_durable(Index(pick % (model.last() + 1))),
        Step::Commit(pick) => {
            let to = pick % (model.last() + 1);
            assert_eq!(log.mark_committed(Index(to)), to > model.committed);
            model.committed = model.committed.max(to);
        }
        Step::Apply => {
            let to = log.appliable().max(log.handed_out());
            log.mark_handed_out(to.min(log.appliable()));
            log.mark_applied(log.handed_out());
        }
        Step::Compact(pick) => {
            let to = pick % (log.applied().0 + 1);
            log.compact(Index(to));
            model.start = model.start.max(to);
        }
        Step::Evict(bytes) => log.evict(bytes, bytes),
        Step::Truncate(_) => {}
    }
}

proptest! {
    #[test]
    fn a_log_is_a_list_with_a_forgotten_beginning(steps in proptest::collection::vec(step(), 0..120)) {
        let (mut log, mut model) = (Log::new(LogId::ZERO), Model::default());
        for step in steps {
            carry_out(step, &mut log, &mut model);
            log.validate();
            prop_assert_eq!(log.last(), LogId::new(model.term(model.last()), model.last()));
            prop_assert_eq!(log.start(), LogId::new(model.term(model.start), model.start));
            for index in 0..=model.last() + 1 {
                let here = (model.start..=model.last()).contains(&index);
                prop_assert_eq!(log.term_at(Index(index)).map(|term| term.0), here.then(|| model.term(index)));
            }
            if let Some(entries) = log.slice(log.written.max(log.start().index).next(), log.last().index, usize::MAX) {
                let unwritten = &model.entries[log.written.0 as usize..];
                prop_assert_eq!(&entries[..], unwritten);
            }
        }
    }

    #[test]
    fn the_last_entry_not_above_a_term_is_what_a_search_finds(terms in proptest::collection::vec(0..3_u64, 0..40), at in 0..50_u64, term in 0..60_u64) {
        let (mut log, mut model) = (Log::new(LogId::ZERO), Model::default());
        terms.iter().for_each(|grows| carry_out(Step::Append { term_grows: *grows, bytes: 0 }, &mut log, &mut model));
        let found = (0..=at.min(model.last())).rev().find(|index| model.term(*index) <= term).unwrap_or(0);
        prop_assert_eq!(log.last_not_above(Index(at), crate::Term(term)), LogId::new(model.term(found), found));
    }
}
