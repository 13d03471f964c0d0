//! Linearizable reads, by asking and by lease.

use super::rig::*;
use crate::types::{Index, ReadId};
use crate::{Body, Effect, ReadError, Round};
use core::time::Duration;

const READ: ReadId = ReadId(5);

/// Round of the heartbeats in the effects.
fn round(effects: &[Effect]) -> Round {
    let round = effects.iter().find_map(|effect| match effect {
        Effect::Send { message, .. } => match message.body {
            Body::Heartbeat { round, .. } => Some(round),
            _ => None,
        },
        _ => None,
    });
    round.expect("heartbeats are sent")
}

fn ready(effects: &[Effect]) -> bool {
    effects.contains(&Effect::ReadReady { read: READ, index: Index(1) })
}

#[test]
fn without_a_lease_a_quorum_must_answer_what_was_sent_after_the_read_was_asked_for() {
    let mut rig = Rig::settled_leader();
    rig.now = rig.now + Duration::from_millis(950);
    rig.group.read_index(rig.now, READ).expect("it leads");
    let asked = round(&rig.poll());
    let before = Round(asked.0 - 1);
    assert!(!ready(&rig.tell(N2, 1, Body::HeartbeatReply { round: before })), "an older answer");
    assert!(ready(&rig.tell(N3, 1, Body::HeartbeatReply { round: asked })));
}

#[test]
fn a_lease_lasts_from_the_moment_its_round_began_less_the_clock_bound() {
    let mut rig = Rig::settled_leader();
    let sent_at = rig.now;
    rig.now = sent_at + Duration::from_millis(899);
    rig.group.read_index(rig.now, READ).expect("it leads");
    assert!(ready(&rig.poll()), "n2 answered the first round, 900 ms are 10 % less than an election timeout");
    rig.now = sent_at + Duration::from_millis(900);
    rig.group.read_index(rig.now, READ).expect("it leads");
    assert!(!ready(&rig.poll()));
}

#[test]
fn the_lease_is_forfeited_for_good_when_somebody_is_told_to_campaign() {
    let mut rig = Rig::settled_leader();
    rig.group.transfer_leadership(rig.now, N2).expect("a voter");
    rig.poll();
    rig.group.read_index(rig.now, READ).expect("it leads");
    assert!(!ready(&rig.poll()));
}

#[test]
fn a_new_leader_answers_nothing_before_its_first_entry_is_applied() {
    let mut rig = Rig::leader();
    rig.group.read_index(rig.now, READ).expect("it leads");
    let asked = round(&rig.poll());
    assert!(!ready(&rig.tell(N2, 1, Body::HeartbeatReply { round: asked })), "it does not know what is committed");
    rig.tell(N2, 1, Body::Accepted { matched: Index(1), round: asked });
    rig.group.handle_applied(rig.now, Index(1));
    assert!(ready(&rig.poll()));
}

#[test]
fn reads_fail_with_the_leadership_and_elsewhere() {
    let mut rig = Rig::settled_leader();
    rig.now = rig.now + Duration::from_millis(950);
    rig.group.read_index(rig.now, READ).expect("it leads");
    let effects = rig.tell(N3, 9, Body::TermIsOver);
    assert!(effects.contains(&Effect::ReadFailed { read: READ }));
    assert_eq!(rig.group.read_index(rig.now, READ), Err(ReadError::NotLeader { leader: None }));
}
