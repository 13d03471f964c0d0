//! What is left of a group that has lost its majority.

use super::rig::*;
use crate::types::{Index, LogId, Term, WriteId};
use crate::{Body, Effect, EntryKind, ForceError, LogWrite, Membership, Role, Round};
use alloc::vec;

#[test]
fn the_replica_that_is_left_leads_by_itself_when_its_vote_and_its_members_are_durable() {
    let mut rig = Rig::follower(&[1, 1]);
    // It had heard of a leader in term 3 and of no entry of it.
    let id = rig.group.force_sole_voter(rig.now, Term(3)).expect("nobody leads");
    assert_eq!(id, LogId::new(1_003, 3));
    let effects = rig.poll();
    let Effect::Persist { write, hard_state: Some(state), log: LogWrite::Append(entries) } = &effects[1] else {
        panic!("{effects:?}")
    };
    assert_eq!((state.term, state.vote, *write), (Term(1_003), Some(N1), WriteId(1)));
    assert_eq!(entries[0].kind, EntryKind::Membership(Membership::single(N1)));
    assert_eq!(rig.group.role(), Role::Candidate, "nothing is durable yet");
    rig.group.handle_durable(rig.now, WriteId(1));
    let effects = rig.poll();
    assert_eq!(rig.group.role(), Role::Leader);
    // The entry is of its own term, and it is all the voters there are: with it everything is committed that it had.
    let applied = effects.iter().find_map(|effect| match effect {
        Effect::Apply { entries } => Some(entries.iter().map(|entry| entry.id.index.0).collect::<vec::Vec<_>>()),
        _ => None,
    });
    assert_eq!(applied, Some(vec![1, 2, 3]));
    assert_eq!(rig.group.membership(), &Membership::single(N1));
    rig.group.validate();
}

#[test]
fn whoever_comes_back_in_an_older_term_is_told_that_it_is_over() {
    let mut rig = Rig::follower(&[1]);
    rig.group.force_sole_voter(rig.now, Term(1)).expect("nobody leads");
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(2));
    let append = Body::Append { prev: LogId::new(1, 1), entries: vec![data(7, 2)], commit: Index(2), round: Round(1) };
    rig.tell(N2, 7, append);
    assert_eq!((rig.group.role(), rig.group.term()), (Role::Leader, Term(1_001)));
}

#[test]
fn a_replica_that_leads_or_is_no_member_is_not_made_the_only_one() {
    let mut rig = Rig::settled_leader();
    assert_eq!(rig.group.force_sole_voter(rig.now, Term(1)), Err(ForceError::Leads));
    let mut rig = Rig::with_voters(&[N2, N3]);
    assert_eq!(rig.group.force_sole_voter(rig.now, Term(1)), Err(ForceError::NoMember));
    let mut rig = Rig::with_voters(&[]);
    assert!(rig.group.force_sole_voter(rig.now, Term(1)).is_ok(), "it begins the group anew");
}
