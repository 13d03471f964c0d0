//! The group of one voter, which is what a single node runs on.

use super::rig::*;
use crate::types::{HardState, Index, LogId, ReadId, Term, WriteId};
use crate::{ChangeError, Effect, Membership, ProposeError, Role};
use alloc::vec;
use bytes::Bytes;
use core::time::Duration;

#[test]
fn it_leads_when_its_own_vote_is_durable() {
    let mut rig = Rig::with_voters(&[N1]);
    assert_eq!(rig.poll(), [role(Role::Candidate, 1, None), persist_vote(1, 1, Some(N1))]);
    assert_eq!(
        rig.group.propose(rig.now, Bytes::from_static(b"x")),
        Err(ProposeError::NotLeader { leader: None }),
        "not before"
    );
    rig.group.handle_durable(rig.now, WriteId(1));
    assert_eq!(rig.poll(), [role(Role::Leader, 1, Some(N1)), persist_entries(2, &[noop(1, 1)])]);
    rig.group.handle_durable(rig.now, WriteId(2));
    assert_eq!(rig.poll(), [Effect::Apply { entries: vec![noop(1, 1)] }]);
    assert_eq!(rig.group.next_timeout(), None, "an idle group of one has no timer");
}

fn leader() -> Rig {
    let mut rig = Rig::with_voters(&[N1]);
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(2));
    rig.poll();
    rig.group.handle_applied(rig.now, Index(1));
    rig.poll();
    rig
}

#[test]
fn proposals_of_a_turn_are_one_write_and_committed_when_it_is_durable() {
    let mut rig = leader();
    for index in 2..=4 {
        assert_eq!(rig.group.propose(rig.now, Bytes::from_static(b"x")), Ok(LogId::new(1, index)));
    }
    let entries = [data(1, 2), data(1, 3), data(1, 4)];
    assert_eq!(rig.poll(), [persist_entries(3, &entries)]);
    assert_eq!(
        rig.group.propose(rig.now, Bytes::from_static(b"x")),
        Ok(LogId::new(1, 5)),
        "while the first is under way"
    );
    assert_eq!(rig.poll(), [persist_entries(4, &[data(1, 5)])]);
    rig.group.handle_durable(rig.now, WriteId(3));
    assert_eq!(rig.poll(), [Effect::Apply { entries: entries.to_vec() }]);
    rig.group.handle_durable(rig.now, WriteId(4));
    assert_eq!(rig.poll(), [], "a batch is applied at a time");
    rig.group.handle_applied(rig.now, Index(4));
    assert_eq!(rig.poll(), [Effect::Apply { entries: vec![data(1, 5)] }]);
}

#[test]
fn reads_are_answered_in_the_same_turn() {
    let mut rig = leader();
    assert_eq!(rig.group.read_index(rig.now, ReadId(9)), Ok(()));
    assert_eq!(rig.poll(), [Effect::ReadReady { read: ReadId(9), index: Index(1) }]);
}

#[test]
fn proposals_are_refused_while_too_much_is_not_applied() {
    let mut rig = leader();
    let large = Bytes::from(vec![0; 8 << 20]);
    assert!(rig.group.propose(rig.now, large.clone()).is_ok());
    assert!(rig.group.propose(rig.now, large.clone()).is_ok(), "the limit had not been reached before");
    assert_eq!(rig.group.propose(rig.now, Bytes::new()), Err(ProposeError::Busy));
    let too_large = Bytes::from(vec![0; (8 << 20) + 1]);
    assert_eq!(rig.group.propose(rig.now, too_large), Err(ProposeError::TooLarge { bytes_max: 8 << 20 }));
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(3));
    rig.poll();
    rig.group.handle_applied(rig.now, Index(2));
    rig.poll();
    assert!(rig.group.propose(rig.now, large).is_ok());
}

#[test]
fn after_a_restart_everything_in_the_log_is_committed_by_the_new_term() {
    let hard_state = HardState { term: Term(3), vote: Some(N1), ..HardState::default() };
    let mut rig = Rig::restored(hard_state, &[N1], [noop(2, 1), data(3, 2)]);
    assert_eq!(rig.poll(), [role(Role::Candidate, 4, None), persist_vote(1, 4, Some(N1))]);
    rig.group.handle_durable(rig.now, WriteId(1));
    assert_eq!(rig.poll(), [role(Role::Leader, 4, Some(N1)), persist_entries(2, &[noop(4, 3)])]);
    rig.group.handle_durable(rig.now, WriteId(2));
    assert_eq!(rig.poll(), [Effect::Apply { entries: vec![noop(2, 1), data(3, 2), noop(4, 3)] }]);
}

#[test]
fn what_is_applied_and_compacted_is_forgotten() {
    let mut rig = leader();
    for _ in 0..3 {
        rig.group.propose(rig.now, Bytes::from_static(b"x")).expect("it leads");
    }
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(3));
    rig.poll();
    rig.group.handle_applied(rig.now, Index(4));
    rig.group.compact(Index(3));
    rig.poll();
    assert_eq!((rig.group.log_start(), rig.group.last()), (LogId::new(1, 3), LogId::new(1, 4)));
    rig.group.compact(Index(4));
    rig.poll();
    assert_eq!((rig.group.log_start(), rig.group.tail_bytes()), (LogId::new(1, 4), 0));
}

#[test]
fn a_second_voter_must_catch_up_as_a_learner_first() {
    let mut rig = leader();
    for _ in 0..crate::limits::CATCH_UP_ENTRIES_MAX {
        rig.group.propose(rig.now, Bytes::new()).expect("it leads");
    }
    let change = rig.group.change_membership(rig.now, vec![N1, N2], vec![]);
    assert_eq!(change, Err(ChangeError::NotCaughtUp { node: N2, matched: Index(0) }));
    let change = rig.group.change_membership(rig.now, vec![N1], vec![N2]);
    assert_eq!(change, Ok(LogId::new(1, 1_026)));
    assert_eq!(*rig.group.membership(), Membership::new([N1], [N2]));
    rig.poll();
    assert_eq!(rig.group.next_timeout(), Some(rig.now + Duration::from_millis(100)), "a learner is sent heartbeats");
}
