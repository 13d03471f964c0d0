//! What a follower does with a leader's entries.

use super::rig::*;
use crate::types::{Entry, Index, LogId, WriteId};
use crate::{Body, Effect, Message, Role, Round, Term, Violation};
use alloc::vec;
use alloc::vec::Vec;

fn append(prev: (u64, u64), entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append { prev: LogId::new(prev.0, prev.1), entries, commit: Index(commit), round: Round(7) }
}

fn accepted(matched: u64) -> Body {
    Body::Accepted { matched: Index(matched), round: Round(7) }
}

#[test]
fn entries_are_confirmed_when_durable_and_applied_when_committed_too() {
    let mut rig = Rig::follower(&[1]);
    assert_eq!(
        rig.tell(N2, 1, append((1, 1), vec![data(1, 2), data(1, 3)], 2)),
        [
            role(Role::Follower, 1, Some(N2)),
            persist_entries(1, &[data(1, 2), data(1, 3)]),
            send(N2, 1, accepted(3), 1),
            Effect::Apply { entries: vec![data(1, 1)] },
        ],
        "what is committed but not durable here is not applied"
    );
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.group.handle_applied(rig.now, Index(1));
    assert_eq!(rig.poll(), [Effect::Apply { entries: vec![data(1, 2)] }]);
}

#[test]
fn a_repeated_append_changes_nothing_and_is_confirmed_again() {
    let mut rig = Rig::follower(&[1]);
    rig.tell(N2, 1, append((1, 1), vec![data(1, 2)], 0));
    assert_eq!(
        rig.tell(N2, 1, append((1, 1), vec![data(1, 2)], 0)),
        [send(N2, 1, accepted(2), 1)],
        "still not durable"
    );
    rig.group.handle_durable(rig.now, WriteId(1));
    assert_eq!(rig.tell(N2, 1, append((1, 1), vec![data(1, 2)], 0)), [send(N2, 1, accepted(2), 0)]);
}

#[test]
fn a_conflicting_entry_goes_with_everything_behind_it() {
    let mut rig = Rig::follower(&[1, 1, 1, 2]);
    assert_eq!(
        rig.tell(N3, 3, append((1, 2), vec![data(3, 3)], 0)).get(1),
        Some(&Effect::Persist {
            write: WriteId(1),
            hard_state: Some(crate::HardState { term: Term(3), ..Default::default() }),
            log: crate::LogWrite::Append(vec![data(3, 3)])
        })
    );
    assert_eq!(rig.group.last(), LogId::new(3, 3));
}

#[test]
fn a_write_that_was_overtaken_by_a_truncation_makes_nothing_durable() {
    let mut rig = Rig::follower(&[1]);
    rig.tell(N2, 1, append((1, 1), vec![data(1, 2), data(1, 3)], 0));
    rig.tell(N3, 2, append((1, 1), vec![data(2, 2), data(2, 3)], 0));
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.poll();
    assert_eq!(rig.group.durable(), Index(1));
    rig.group.handle_durable(rig.now, WriteId(2));
    assert_eq!(rig.group.durable(), Index(3));
}

#[test]
fn a_refusal_names_the_last_entry_that_can_still_agree() {
    for (terms, prev, hint) in [
        (&[1, 1][..], (1, 5), (1, 2)),
        (&[1, 1, 4, 4], (5, 9), (4, 4)),
        (&[1, 1, 4, 4], (3, 4), (1, 2)),
        (&[4, 4, 4], (3, 3), (0, 0)),
    ] {
        let mut rig = Rig::follower(terms);
        let hint = LogId::new(hint.0, hint.1);
        let rejected = Body::Rejected { at: Index(prev.1), hint, round: Round(7) };
        let effects = rig.tell(N2, 5, append(prev, vec![], 0));
        assert!(
            matches!(effects.last(), Some(Effect::Send { message, .. }) if message.body == rejected),
            "{terms:?} asked about {prev:?}: {effects:?}"
        );
    }
}

#[test]
fn the_commit_index_is_believed_only_as_far_as_the_logs_agree() {
    let mut rig = Rig::follower(&[1, 1, 1]);
    rig.tell(N3, 2, append((1, 1), vec![], 3));
    assert_eq!(rig.group.committed(), Index(1), "2 and 3 may be others than the leader's");
}

#[test]
fn unlawful_messages_are_named_and_ignored() {
    let rig = || {
        let mut rig = Rig::follower(&[1, 1]);
        rig.tell(N2, 1, append((1, 2), vec![], 2));
        rig
    };
    for (from, term, body, violation) in [
        (N1, 1, Body::TimeoutNow, Violation::FromSelf),
        (N3, 1, Body::TimeoutNow, Violation::TwoLeaders { known: N2 }),
        (N2, 1, append((1, 2), vec![data(1, 4)], 0), Violation::EntriesOutOfOrder),
        (N2, 1, append((1, 2), vec![data(2, 3)], 0), Violation::EntriesOutOfOrder),
        (N3, 2, append((1, 1), vec![data(2, 2)], 0), Violation::ContradictsCommitted { at: Index(2) }),
        (N2, u64::MAX, Body::TermIsOver, Violation::NumberTooLarge),
        (N2, 1, append((1, u64::MAX), vec![], 0), Violation::NumberTooLarge),
    ] {
        let mut rig = rig();
        let message = Message { term: Term(term), body };
        assert_eq!(rig.group.handle_message(rig.now, from, message.clone()), Err(violation), "{message:?}");
        rig.poll();
        assert_eq!(rig.group.last(), LogId::new(1, 2));
    }
}
