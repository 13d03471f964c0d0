//! Exact effects of one machine.

use crate::{Answer, Ballot, ClusterGenesis, Config, Draft, Effect, Founding, Ledger, Question, Reply, Seat, Vote};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use core::time::Duration;

const ME: NodeId = NodeId(5);
const START: Instant = Instant::from_micros(1_000_000);

fn value(cluster: u64) -> ClusterGenesis {
    ClusterGenesis { cluster: ClusterId(cluster), seed: 3, ranges: 8, founders: vec![NodeId(1), NodeId(2)] }
}

const fn ballot(round: u64, node: u64) -> Ballot {
    Ballot { round, node }
}

/// A machine of a list of seeds, with what it does first left out.
fn machine(ledger: Ledger, seats: &[Seat]) -> Founding {
    let draft = Draft { cluster: ClusterId(77), seed: 78, ranges: 9 };
    let mut machine = Founding::new(Config::default(), ME, ledger, seats.len(), draft, Prng::new(1), START);
    for (at, seat) in seats.iter().enumerate() {
        machine.set_seat(at, *seat, START);
    }
    machine.handle_timeout(START);
    effects(&mut machine);
    machine
}

fn effects(machine: &mut Founding) -> Vec<Effect> {
    core::iter::from_fn(|| machine.poll_effect()).collect()
}

fn asked(machine: &mut Founding, question: Question) -> Vec<Effect> {
    machine.handle_question(9, question, START);
    effects(machine)
}

fn reply(answer: Answer) -> Effect {
    Effect::Reply { asker: 9, reply: Reply { from: ME, answer } }
}

#[test]
fn a_promise_and_a_vote_are_kept_before_they_are_told() {
    let mut machine = machine(Ledger::default(), &[Seat::Mine, Seat::Elsewhere, Seat::Elsewhere]);
    let promised = Ledger { promised: ballot(4, 1), ..Ledger::default() };
    let answer = Answer::Promise { ballot: ballot(4, 1), accepted: None };
    let prepare = Question::Prepare { ballot: ballot(4, 1) };
    assert_eq!(asked(&mut machine, prepare.clone()), [Effect::Keep(promised.clone()), reply(answer.clone())]);
    assert_eq!(asked(&mut machine, prepare), [reply(answer)], "a question that comes again finds the same answer");
    let vote = Vote { ballot: ballot(4, 1), value: value(1) };
    let accepted = Ledger { accepted: Some(vote.clone()), ..promised };
    let answer = Answer::Accepted { ballot: ballot(4, 1) };
    let question = Question::Accept { vote };
    assert_eq!(asked(&mut machine, question), [Effect::Keep(accepted), reply(answer)]);
}

#[test]
fn what_was_promised_holds_for_the_next_process() {
    let vote = Vote { ballot: ballot(2, 1), value: value(1) };
    let ledger = Ledger { promised: ballot(4, 1), accepted: Some(vote.clone()), decided: None };
    let mut machine = machine(ledger, &[Seat::Mine, Seat::Elsewhere, Seat::Elsewhere]);
    let refused = reply(Answer::Refused { promised: ballot(4, 1) });
    assert_eq!(asked(&mut machine, Question::Prepare { ballot: ballot(3, 9) }), std::slice::from_ref(&refused));
    let low = Vote { ballot: ballot(4, 0), value: value(2) };
    assert_eq!(asked(&mut machine, Question::Accept { vote: low }), [refused]);
    let answer = reply(Answer::Promise { ballot: ballot(4, 2), accepted: Some(vote) });
    assert_eq!(asked(&mut machine, Question::Prepare { ballot: ballot(4, 2) })[1..], [answer]);
}

#[test]
fn who_knows_what_is_decided_answers_everything_with_it() {
    let ledger = Ledger { decided: Some(value(1)), ..Ledger::default() };
    let mut machine = machine(ledger, &[Seat::Mine]);
    let vote = Vote { ballot: ballot(9, 9), value: value(2) };
    for question in [Question::Ask, Question::Prepare { ballot: ballot(9, 9) }, Question::Accept { vote }] {
        assert_eq!(asked(&mut machine, question), [reply(Answer::Decided(value(1)))]);
    }
}

/// Has the seeds at these places say that they know of nothing, and waits until a proposal would have begun.
fn proposes(machine: &mut Founding, heard: &[(usize, u64, Answer)]) -> bool {
    for (seat, from, answer) in heard {
        let reply = Reply { from: NodeId(*from), answer: answer.clone() };
        machine.handle_reply(*seat, reply, START);
    }
    machine.handle_timeout(START + Duration::from_secs(1));
    effects(machine).iter().any(|effect| matches!(effect, Effect::Ask { question: Question::Prepare { .. }, .. }))
}

#[test]
fn only_distinct_nodes_with_a_vote_at_addresses_of_their_own_are_a_majority() {
    let there = Answer::Undecided;
    let three = [Seat::Mine, Seat::Elsewhere, Seat::Elsewhere];
    assert!(proposes(&mut machine(Ledger::default(), &three), &[(1, 1, there.clone())]));
    assert!(!proposes(&mut machine(Ledger::default(), &three), &[]));
    assert!(!proposes(&mut machine(Ledger::default(), &three), &[(1, 1, Answer::NoVote)]), "it keeps nothing");
    assert!(!proposes(&mut machine(Ledger::default(), &three), &[(1, ME.0, there.clone())]), "itself by another name");
    let five = [Seat::Mine, Seat::Elsewhere, Seat::Elsewhere, Seat::Elsewhere, Seat::Unknown];
    let twice = [(1, 1, there.clone()), (2, 1, there.clone())];
    assert!(!proposes(&mut machine(Ledger::default(), &five), &twice), "one node at two addresses");
    let after = [(1, 1, there.clone()), (1, 2, there.clone())];
    assert!(!proposes(&mut machine(Ledger::default(), &five), &after), "one after the other at one address");
    let shared = [Seat::Mine, Seat::Shared, Seat::Unknown];
    assert!(!proposes(&mut machine(Ledger::default(), &shared), &[(1, 1, there.clone())]), "who is that?");
    let outside = [Seat::Elsewhere; 3];
    let all = [(0, 1, there.clone()), (1, 2, there.clone()), (2, 3, there)];
    assert!(!proposes(&mut machine(Ledger::default(), &outside), &all), "who is no seed only asks");
}

/// The rule that makes Paxos safe (P2c).
#[test]
fn a_proposer_takes_the_value_accepted_under_the_highest_number() {
    let old = Vote { ballot: ballot(1, 1), value: value(1) };
    let newer = Vote { ballot: ballot(2, 2), value: value(2) };
    let ledger = Ledger { promised: ballot(1, 1), accepted: Some(old), decided: None };
    let mut machine = machine(ledger, &[Seat::Mine, Seat::Elsewhere, Seat::Elsewhere]);
    assert!(proposes(&mut machine, &[(1, 1, Answer::Undecided)]));
    let ours = ballot(2, ME.0);
    let promise = |accepted| Answer::Promise { ballot: ours, accepted };
    machine.handle_reply(1, Reply { from: NodeId(1), answer: promise(Some(newer)) }, START);
    machine.handle_reply(2, Reply { from: NodeId(2), answer: promise(None) }, START);
    let vote = Vote { ballot: ours, value: value(2) };
    let found = effects(&mut machine);
    let Effect::Keep(ledger) = &found[0] else { panic!("{found:?}") };
    assert_eq!(ledger.accepted.as_ref(), Some(&vote));
    let question = Question::Accept { vote };
    assert_eq!(found[1], Effect::Ask { seat: 1, question });
}
