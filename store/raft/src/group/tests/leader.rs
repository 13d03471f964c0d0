//! What a leader does with proposals and answers.

use super::rig::*;
use crate::types::{Index, LogId, WriteId};
use crate::{Body, Effect, ProposeError, Role, Round, Violation};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bytes::Bytes;
use core::time::Duration;

fn accepted(matched: u64) -> Body {
    Body::Accepted { matched: Index(matched), round: Round(1) }
}

fn propose(rig: &mut Rig) -> u64 {
    rig.group.propose(rig.now, Bytes::from_static(b"x")).expect("it leads").index.0
}

/// The appends to `to`, as (index before, indexes).
fn appends(effects: &[Effect], to: NodeId) -> Vec<(u64, Vec<u64>)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to: receiver, message, .. } if *receiver == to => Some(&message.body),
        _ => None,
    });
    let appends = sent.filter_map(|body| match body {
        Body::Append { prev, entries, .. } => {
            Some((prev.index.0, entries.iter().map(|entry| entry.id.index.0).collect()))
        }
        _ => None,
    });
    appends.collect()
}

#[test]
fn it_counts_itself_only_when_its_own_log_is_durable() {
    let mut rig = Rig::settled_leader();
    let index = propose(&mut rig);
    rig.poll();
    rig.tell(N2, 1, accepted(index));
    assert_eq!(rig.group.committed(), Index(1));
    rig.group.handle_durable(rig.now, WriteId(3));
    assert_eq!(rig.group.committed(), Index(index));
}

#[test]
fn the_peers_alone_can_commit_what_the_leader_has_not_synced() {
    let mut rig = Rig::settled_leader();
    let index = propose(&mut rig);
    rig.poll();
    rig.tell(N2, 1, accepted(index));
    let effects = rig.tell(N3, 1, accepted(index));
    assert_eq!(rig.group.committed(), Index(index));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Apply { .. })), "but it does not apply it");
}

#[test]
fn a_confirmed_peer_is_streamed_to_without_waiting_and_others_are_asked_once() {
    let mut rig = Rig::settled_leader();
    propose(&mut rig);
    let effects = rig.poll();
    assert_eq!(appends(&effects, N2), [(1, vec![2])]);
    assert_eq!(appends(&effects, N3), [], "it has not answered the first");
    propose(&mut rig);
    assert_eq!(appends(&rig.poll(), N2), [(2, vec![3])]);
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let mut rig = Rig::settled_leader();
    let sent = (0..100).filter(|_| {
        propose(&mut rig);
        !appends(&rig.poll(), N2).is_empty()
    });
    assert_eq!(sent.count(), 64);
    let effects = rig.tell(N2, 1, accepted(3));
    assert_eq!(appends(&effects, N2), [(65, (66..=101).collect())], "the rest as one message");
}

#[test]
fn a_refusal_moves_to_where_the_logs_can_agree() {
    let mut rig = Rig::settled_leader();
    (0..5).for_each(|_| _ = propose(&mut rig));
    rig.poll();
    let rejected = Body::Rejected { at: Index(0), hint: LogId::ZERO, round: Round(1) };
    assert_eq!(appends(&rig.tell(N3, 1, rejected), N3), [(0, (1..=6).collect())]);
    let lost = Body::Rejected { at: Index(6), hint: LogId::new(1, 3), round: Round(1) };
    assert_eq!(appends(&rig.tell(N2, 1, lost), N2), [(1, (2..=6).collect())], "from behind what it has confirmed");
}

#[test]
fn entries_of_an_earlier_term_are_committed_only_with_one_of_this_term() {
    // Raft figure 8.
    let hard_state = crate::HardState { term: crate::Term(2), ..Default::default() };
    let mut rig = Rig::restored(hard_state, &[N1, N2, N3], [data(1, 1), data(2, 2)]);
    rig.time_out();
    rig.tell(N2, 2, Body::PreVoteReply { asked_in: crate::Term(2), granted: true });
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.tell(N2, 3, Body::VoteReply { granted: true });
    assert_eq!(rig.group.role(), Role::Leader);
    rig.tell(N2, 3, accepted(2));
    assert_eq!(rig.group.committed(), Index(0));
    rig.group.handle_durable(rig.now, WriteId(2));
    rig.tell(N2, 3, accepted(3));
    assert_eq!(rig.group.committed(), Index(3));
}

#[test]
fn a_peer_cannot_confirm_what_is_not_there() {
    let mut rig = Rig::settled_leader();
    let message = crate::Message { term: crate::Term(1), body: accepted(99) };
    let violation = Violation::ConfirmsBeyondLog { matched: Index(99) };
    assert_eq!(rig.group.handle_message(rig.now, N3, message), Err(violation));
}

#[test]
fn leadership_is_handed_over_when_the_target_has_everything() {
    let mut rig = Rig::settled_leader();
    let index = propose(&mut rig);
    rig.poll();
    rig.group.transfer_leadership(rig.now, N2).expect("a voter");
    assert_eq!(rig.group.propose(rig.now, Bytes::new()), Err(ProposeError::Transferring { to: N2 }));
    let told = send(N2, 1, Body::TimeoutNow, 0);
    assert!(!rig.poll().contains(&told));
    assert!(rig.tell(N2, 1, accepted(index)).contains(&told));
    assert!(!rig.tell(N2, 1, accepted(index)).contains(&told), "once");
    rig.now = rig.now + Duration::from_secs(1);
    rig.group.handle_timeout(rig.now);
    assert!(rig.group.propose(rig.now, Bytes::new()).is_ok(), "it did not take over");
}

#[test]
fn voters_change_by_way_of_a_joint_phase_which_is_left_by_itself() {
    let mut rig = Rig::settled_leader();
    rig.tell(N3, 1, accepted(1));
    let n4 = NodeId(4);
    rig.group.change_membership(rig.now, vec![N1, N2, n4], vec![]).expect("a change");
    assert_eq!(rig.group.membership().outgoing, [N1, N2, N3]);
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(3));
    rig.poll();
    rig.tell(n4, 1, accepted(2));
    assert_eq!(rig.group.committed(), Index(1), "a majority of the new voters is not enough");
    rig.tell(N3, 1, accepted(2));
    assert_eq!(rig.group.committed(), Index(2));
    assert_eq!(*rig.group.membership(), crate::Membership::new([N1, N2, n4], []));
    assert_eq!(rig.group.last().index, Index(3));
}

#[test]
fn a_leader_that_is_no_voter_any_more_hands_over() {
    let mut rig = Rig::settled_leader();
    rig.group.change_membership(rig.now, vec![N2, N3], vec![]).expect("a change");
    rig.poll();
    rig.tell(N2, 1, accepted(2));
    rig.tell(N3, 1, accepted(2));
    rig.tell(N2, 1, accepted(3));
    assert_eq!(rig.group.role(), Role::Leader, "not before the last entry is committed without it");
    let effects = rig.tell(N3, 1, accepted(3));
    assert_eq!(rig.group.role(), Role::Learner);
    let told = |node| effects.contains(&send(node, 1, Body::TimeoutNow, 0));
    assert!(told(N2) != told(N3));
}
