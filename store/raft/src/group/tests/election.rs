//! Candidates and voters.

use super::rig::*;
use crate::types::{HardState, LogId, Term, WriteId};
use crate::{Body, Effect, LogWrite, Role, Round};
use core::time::Duration;

fn pre_vote(last: LogId) -> Body {
    Body::PreVote { last }
}

#[test]
fn a_voter_asks_before_it_campaigns_and_votes_durably() {
    let mut rig = Rig::with_voters(&[N1, N2, N3]);
    assert_eq!(rig.poll(), [role(Role::Follower, 0, None)]);
    let waited = rig.group.next_timeout().expect("a voter waits for a leader").since(rig.now);
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&waited));
    let asked = pre_vote(LogId::ZERO);
    assert_eq!(
        rig.time_out(),
        [role(Role::PreCandidate, 0, None), send(N2, 0, asked.clone(), 0), send(N3, 0, asked, 0)]
    );
    let request = Body::Vote { last: LogId::ZERO, transfer: false };
    assert_eq!(
        rig.tell(N3, 0, Body::PreVoteReply { asked_in: Term(0), granted: true }),
        [
            role(Role::Candidate, 1, None),
            persist_vote(1, 1, Some(N1)),
            send(N2, 1, request.clone(), 1),
            send(N3, 1, request, 1)
        ]
    );
    assert_eq!(
        rig.tell(N2, 1, Body::VoteReply { granted: true }),
        [],
        "the own vote does not count before it is durable"
    );
    rig.group.handle_durable(rig.now, WriteId(1));
    let append =
        Body::Append { prev: LogId::ZERO, entries: alloc::vec![noop(1, 1)], commit: crate::Index(0), round: Round(1) };
    let beat = Body::Heartbeat { commit: crate::Index(0), round: Round(1), quiesce: false };
    assert_eq!(
        rig.poll(),
        [
            role(Role::Leader, 1, Some(N1)),
            persist_entries(2, &[noop(1, 1)]),
            send(N2, 1, append.clone(), 0),
            send(N2, 1, beat.clone(), 0),
            send(N3, 1, append, 0),
            send(N3, 1, beat, 0),
        ],
        "entries are sent before they are durable here"
    );
}

#[test]
fn a_vote_leaves_when_it_is_durable_and_is_given_once_a_term() {
    let mut rig = Rig::follower(&[1, 1]);
    let request = Body::Vote { last: LogId::new(1, 2), transfer: false };
    assert_eq!(
        rig.tell(N2, 2, request.clone()),
        [
            role(Role::Follower, 2, None),
            persist_vote(1, 2, Some(N2)),
            send(N2, 2, Body::VoteReply { granted: true }, 1)
        ]
    );
    assert_eq!(rig.tell(N3, 2, request.clone()), [send(N3, 2, Body::VoteReply { granted: false }, 1)]);
    rig.group.handle_durable(rig.now, WriteId(1));
    assert_eq!(rig.tell(N2, 2, request.clone()), [send(N2, 2, Body::VoteReply { granted: true }, 0)], "again");
    assert_eq!(rig.tell(N3, 1, request), [send(N3, 2, Body::VoteReply { granted: false }, 0)], "an old term");
}

#[test]
fn nobody_is_voted_for_whose_log_lacks_entries() {
    for (last, granted) in [((1, 9), false), ((2, 1), false), ((2, 2), true), ((3, 1), true)] {
        let mut rig = Rig::follower(&[1, 2]);
        let last = LogId::new(last.0, last.1);
        assert_eq!(
            rig.tell(N2, 3, pre_vote(last)),
            [send(N2, 2, Body::PreVoteReply { asked_in: Term(3), granted }, 0)],
            "asked with {last}"
        );
        let effects = rig.tell(N2, 4, Body::Vote { last, transfer: false });
        assert_eq!(effects.last(), Some(&send(N2, 4, Body::VoteReply { granted }, 1)), "asked with {last}");
    }
}

#[test]
fn who_hears_a_leader_ignores_candidates_unless_the_leader_sends_them() {
    let mut rig = Rig::follower(&[1]);
    let beat = Body::Heartbeat { commit: crate::Index(0), round: Round(4), quiesce: false };
    rig.tell(N2, 1, beat);
    let last = LogId::new(9, 9);
    assert_eq!(
        rig.tell(N3, 1, pre_vote(last)),
        [send(N3, 1, Body::PreVoteReply { asked_in: Term(1), granted: false }, 0)]
    );
    assert_eq!(rig.tell(N3, 7, Body::Vote { last, transfer: false }), [], "not even its term is taken note of");
    assert_eq!(rig.group.term(), Term(1));
    let effects = rig.tell(N3, 7, Body::Vote { last, transfer: true });
    assert_eq!(effects.last(), Some(&send(N3, 7, Body::VoteReply { granted: true }, 1)));
}

#[test]
fn a_restarted_voter_refuses_for_an_election_timeout_because_it_may_have_promised() {
    let mut rig = Rig::restored(HardState { term: Term(1), ..HardState::default() }, &[N1, N2, N3], [noop(1, 1)]);
    rig.poll();
    let request = Body::Vote { last: LogId::new(1, 1), transfer: false };
    assert_eq!(rig.tell(N2, 2, request.clone()), []);
    rig.now = rig.now + Duration::from_secs(1);
    assert_eq!(rig.tell(N2, 2, request).last(), Some(&send(N2, 2, Body::VoteReply { granted: true }, 1)));
}

#[test]
fn told_to_campaign_a_voter_does_so_at_once() {
    let mut rig = Rig::follower(&[1]);
    let request = Body::Vote { last: LogId::new(1, 1), transfer: true };
    assert_eq!(
        rig.tell(N2, 1, Body::TimeoutNow),
        [
            role(Role::Candidate, 2, None),
            persist_vote(1, 2, Some(N1)),
            send(N2, 2, request.clone(), 1),
            send(N3, 2, request, 1)
        ]
    );
}

#[test]
fn a_later_term_is_durable_before_it_is_spoken_of() {
    let mut rig = Rig::follower(&[1]);
    let append =
        Body::Append { prev: LogId::new(1, 1), entries: alloc::vec![], commit: crate::Index(0), round: Round(1) };
    assert_eq!(
        rig.tell(N3, 5, append),
        [
            role(Role::Follower, 5, Some(N3)),
            persist_vote(1, 5, None),
            send(N3, 5, Body::Accepted { matched: crate::Index(1), round: Round(1) }, 1)
        ]
    );
    assert_eq!(rig.tell(N2, 4, Body::TimeoutNow), [send(N2, 5, Body::TermIsOver, 1)], "an old leader is told");
}

#[test]
fn a_learner_neither_campaigns_nor_has_a_deadline() {
    let mut rig = Rig::with_voters(&[N2, N3]);
    assert_eq!(rig.poll(), []);
    assert_eq!((rig.group.role(), rig.group.next_timeout()), (Role::Learner, None));
    assert_eq!(rig.tell(N2, 0, Body::TimeoutNow), [role(Role::Learner, 0, Some(N2))]);
}

#[test]
fn a_leader_that_hears_no_quorum_gives_up() {
    let mut rig = Rig::settled_leader();
    let deadline = rig.now + Duration::from_millis(2_100);
    while rig.group.role() == Role::Leader {
        rig.time_out();
        assert!(rig.now <= deadline, "between one and two election timeouts");
    }
    assert_eq!(rig.group.leader(), None);
    assert!(!rig.poll().iter().any(|effect| matches!(effect, Effect::Persist { log: LogWrite::Append(_), .. })));
}
