//! What the simulator has found, each as the shortest story that shows it.

use super::rig::*;
use crate::types::{Entry, EntryKind, HardState, Index, LogId, Term, WriteId};
use crate::{Body, Effect, Membership, Role, Round};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn members(index: u64, voters: &[NodeId], outgoing: &[NodeId]) -> Entry {
    let membership = Membership { outgoing: outgoing.to_vec(), ..Membership::new(voters.iter().copied(), []) };
    Entry { id: LogId::new(1, index), kind: EntryKind::Membership(membership) }
}

/// The `prev` of every append to the peer.
fn asked(effects: &[Effect], peer: NodeId) -> Vec<LogId> {
    let prev = |effect: &Effect| match effect {
        Effect::Send { to, message, .. } if *to == peer => match &message.body {
            Body::Append { prev, .. } => Some(*prev),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(prev).collect()
}

fn votes(effects: &[Effect]) -> bool {
    let grants = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if message.body == Body::VoteReply { granted: true });
    effects.iter().any(grants)
}

/// It is streamed to, everything in its window is lost, and the log is compacted beyond.
#[test]
fn a_peer_whose_window_is_full_of_lost_entries_is_sent_a_snapshot() {
    let mut rig = Rig::settled_leader();
    rig.tell(N3, 1, Body::Accepted { matched: Index(1), round: Round(1) });
    for write in 3..103 {
        rig.group.propose(rig.now, bytes::Bytes::from_static(b"x")).expect("it leads");
        rig.poll();
        rig.group.handle_durable(rig.now, WriteId(write));
        rig.tell(N2, 1, Body::Accepted { matched: rig.group.last().index, round: Round(1) });
        rig.group.handle_applied(rig.now, rig.group.committed());
    }
    rig.group.compact(Index(90));
    let effects = rig.tell(N3, 1, Body::HeartbeatReply { round: Round(1) });
    assert_eq!(effects, [Effect::PrepareSnapshot { to: N3, at_least: Index(90) }]);
}

/// It was removed and added again in one term; an answer of its former life came late.
#[test]
fn a_peer_that_denies_what_it_confirmed_is_asked_further_back() {
    let mut rig = Rig::settled_leader();
    rig.tell(N3, 1, Body::Accepted { matched: Index(1), round: Round(1) });
    let denial = |round| Body::Rejected { at: Index(1), hint: LogId::ZERO, round: Round(round) };
    assert_eq!(asked(&rig.tell(N3, 1, denial(1)), N3), [LogId::new(1, 1)], "is that so?");
    assert_eq!(asked(&rig.tell(N3, 1, denial(1)), N3), [], "not an answer to this question");
    assert_eq!(asked(&rig.tell(N3, 1, denial(2)), N3), [LogId::ZERO]);
}

/// Its removal is in its log alone, and the voter that is left cannot win without it: the shorter log gets no vote.
#[test]
fn a_voter_campaigns_until_its_removal_is_committed() {
    let log = [noop(1, 1), members(2, &[N2], &[N1, N2]), members(3, &[N2], &[])];
    let mut rig = Rig::restored(HardState { term: Term(1), ..HardState::default() }, &[N1, N2], log);
    rig.poll();
    rig.time_out();
    rig.tell(N2, 1, Body::PreVoteReply { asked_in: Term(1), granted: true });
    rig.group.handle_durable(rig.now, WriteId(1));
    rig.tell(N2, 2, Body::VoteReply { granted: true });
    assert_eq!(rig.group.role(), Role::Leader);
    rig.group.handle_durable(rig.now, WriteId(2));
    rig.tell(N2, 2, Body::Accepted { matched: Index(4), round: Round(1) });
    assert_eq!((rig.group.role(), rig.group.committed()), (Role::Learner, Index(4)));
}

/// With the empty log it has now it would help a candidate of long ago to a majority of the members of long ago.
#[test]
fn a_replica_that_joins_again_votes_for_nobody_without_its_removal() {
    let tombstone = HardState { term: Term(2), vote: None, removed: LogId::new(2, 5) };
    let mut rig = Rig::restored(tombstone, &[], []);
    rig.now = rig.now + SECOND;
    let vote = |index| Body::Vote { last: LogId::new(2, index), transfer: false };
    assert!(!votes(&rig.tell(N2, 3, vote(4))));
    assert!(votes(&rig.tell(N2, 4, vote(5))));
}

/// It reads the log from the beginning, and there it is the only voter.
#[test]
fn a_replica_that_joins_again_does_not_lead_by_the_members_of_long_ago() {
    let tombstone = HardState { term: Term(3), vote: None, removed: LogId::new(2, 5) };
    let mut rig = Rig::restored(tombstone, &[N1], [noop(1, 1)]);
    rig.poll();
    rig.time_out();
    assert_eq!((rig.group.role(), rig.group.term()), (Role::Follower, Term(3)));
}

/// It was removed, added again, and has confirmed an entry before it has the one that says so.
#[test]
fn a_replica_with_entries_behind_its_removal_may_not_go() {
    let mut rig = Rig::restored(HardState { term: Term(1), ..HardState::default() }, &[N1, N2], [noop(1, 1)]);
    rig.poll();
    let append = |prev, entries, commit| Body::Append { prev, entries, commit: Index(commit), round: Round(1) };
    let removal = alloc::vec![members(2, &[N2], &[N1, N2]), members(3, &[N2], &[])];
    rig.tell(N2, 1, append(LogId::new(1, 1), removal, 2));
    assert!(!rig.group.is_removed(), "not certain yet");
    rig.tell(N2, 1, append(LogId::new(1, 3), Vec::new(), 3));
    assert!(rig.group.is_removed());
    assert_eq!(rig.group.tombstone().removed, LogId::new(1, 3));
    rig.tell(N2, 1, append(LogId::new(1, 3), alloc::vec![data(1, 4)], 3));
    assert!(!rig.group.is_removed());
}

/// It comes to the candidate's term by another message than the request.
#[test]
fn the_promise_to_a_leader_holds_in_the_term_after_it_too() {
    let mut rig = Rig::follower(&[1]);
    rig.tell(N2, 1, Body::Heartbeat { commit: Index(0), round: Round(1), quiesce: false });
    rig.tell(N3, 2, Body::PreVoteReply { asked_in: Term(1), granted: false });
    assert_eq!(rig.group.term(), Term(2));
    let vote = Body::Vote { last: LogId::new(1, 1), transfer: false };
    assert!(!votes(&rig.tell(N3, 2, vote.clone())));
    rig.now = rig.now + SECOND;
    assert!(votes(&rig.tell(N3, 2, vote)));
}

/// It does not know that it was removed, and asks for votes for ever.
#[test]
fn a_quiet_group_is_not_woken_by_strangers() {
    let mut rig = Rig::follower(&[1]);
    rig.tell(N2, 1, Body::Append { prev: LogId::new(1, 1), entries: Vec::new(), commit: Index(1), round: Round(1) });
    rig.tell(N2, 1, Body::Heartbeat { commit: Index(1), round: Round(2), quiesce: true });
    let question = Body::PreVote { last: LogId::new(1, 1) };
    rig.tell(NodeId(9), 1, question.clone());
    assert!(rig.group.is_quiet());
    let effects = rig.tell(N3, 1, question);
    assert!(!rig.group.is_quiet());
    let wake = send(N2, 1, Body::HeartbeatReply { round: Round(2) }, 0);
    assert!(effects.contains(&wake), "nor does it elect another leader if the old one can be woken");
}

/// It was away when the group went quiet, and nobody speaks to it.
#[test]
fn a_learner_that_hears_no_leader_asks() {
    let mut rig = Rig::restored(HardState::default(), &[N2, N3], []);
    let append = |entries| Body::Append { prev: LogId::ZERO, entries, commit: Index(0), round: Round(1) };
    let learner = Membership::new([N2, N3], [N1]);
    let entry = Entry { id: LogId::new(1, 1), kind: EntryKind::Membership(learner) };
    rig.tell(N2, 1, append(alloc::vec![entry]));
    let question = || Body::PreVote { last: LogId::new(1, 1) };
    let effects = rig.time_out();
    assert!(
        effects.contains(&send(N2, 1, question(), 1)) && effects.contains(&send(N3, 1, question(), 1)),
        "{effects:?}"
    );
    assert_eq!(rig.group.role(), Role::Learner);
}
