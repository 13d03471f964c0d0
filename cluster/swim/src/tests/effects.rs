//! What exactly one machine does, step by step.

use super::world::{address, announcement};
use crate::{Answer, Body, Config, Effect, Event, Load, Message, Order, Report, Rumour, Status, Swim};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::rng::Prng;
use bifro_core::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1_000)
}

fn message(from: u64, body: Body, rumours: Vec<Rumour>) -> Message {
    Message { from: NodeId(from), address: address(from), to: Some(NodeId(1)), body, rumours }
}

fn effects(node: &mut Swim) -> Vec<Effect> {
    core::iter::from_fn(|| node.poll_effect()).collect()
}

/// What was sent, to whom.
fn sent(node: &mut Swim) -> Vec<(u64, Body, Vec<Rumour>)> {
    let sends = effects(node).into_iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some((message.to?.0, message.body, message.rumours)),
        Effect::Event(_) | Effect::Obey { .. } | Effect::Obeyed { .. } => None,
    });
    sends.collect()
}

/// Node 1, which has heard of those with these ids and has nothing to tell.
fn node_knowing(ids: &[u64]) -> Swim {
    let mut node = Swim::new(Config::default(), announcement(1, 1, 1), Vec::new(), Prng::new(1), at(0));
    let reports = ids.iter().map(|&id| Report { announcement: announcement(id, 1, id), status: Status::Alive });
    node.handle_message(message(ids[0], Body::Table { reports: reports.collect(), answer: false }, vec![]), at(0));
    while !node.gossip.is_empty() {
        node.gossip.tell(None, 1, 9);
    }
    effects(&mut node);
    node
}

#[test]
fn a_probe_asks_then_asks_others_then_suspects_then_buries() {
    let mut node = node_knowing(&[2]);
    let incarnation = announcement(2, 1, 2).incarnation;
    node.handle_timeout(at(0));
    assert_eq!(sent(&mut node), [(2, Body::Ping { seq: 1 }, vec![])]);
    assert_eq!(node.next_timeout(), Some(at(80)));
    node.handle_timeout(at(80));
    assert_eq!(sent(&mut node), [(2, Body::Ping { seq: 1 }, vec![])], "there is nobody else to ask");
    assert_eq!(node.next_timeout(), Some(at(200)));
    node.handle_timeout(at(200));
    let suspect = Rumour::Suspect { id: NodeId(2), incarnation, from: NodeId(1) };
    let effects = effects(&mut node);
    assert_eq!(effects[0], Effect::Event(Event::Suspected(NodeId(2))));
    let Effect::Send { message, .. } = &effects[1] else { panic!("{effects:?}") };
    assert_eq!((&message.body, &message.rumours), (&Body::Ping { seq: 2 }, &vec![suspect]), "it is told at once");
    assert_eq!(node.local_health(), 1, "it may be this node that hears nothing");
    let mut now = at(200);
    while node.member(NodeId(2)).is_some_and(|member| member.status == Status::Suspect) {
        now = node.next_timeout().expect("something is due");
        node.handle_timeout(now);
    }
    assert_eq!(now, at(1_000), "four probe intervals after it was suspected");
    assert!(super::effects::effects(&mut node).contains(&Effect::Event(Event::Died(NodeId(2)))));
}

#[test]
fn an_answer_ends_the_probe_and_others_are_asked_without_one() {
    let mut node = node_knowing(&[2, 3, 4, 5, 6]);
    node.handle_timeout(at(0));
    let (target, body, _) = sent(&mut node).remove(0);
    assert_eq!(body, Body::Ping { seq: 1 });
    node.handle_timeout(at(80));
    let asked = sent(&mut node);
    assert_eq!(asked.len(), 4, "three others, and itself once more: {asked:?}");
    let request = Body::PingRequest { seq: 1, target: NodeId(target), address: address(target) };
    assert!(asked[..3].iter().all(|(to, body, _)| *to != target && *body == request));
    node.handle_message(message(asked[0].0, Body::Ack { seq: 1 }, vec![]), at(90));
    node.handle_timeout(at(200));
    let next = sent(&mut node);
    assert!(matches!(next[0].1, Body::Ping { seq: 2 }) && next[0].0 != target, "{next:?}");
    assert_eq!(node.member(NodeId(target)).map(|member| member.status), Some(Status::Alive));
}

#[test]
fn who_probes_for_another_says_so_in_time_and_passes_the_answer_on() {
    let mut node = node_knowing(&[2, 3]);
    let request = Body::PingRequest { seq: 70, target: NodeId(3), address: address(3) };
    node.handle_message(message(2, request, vec![]), at(5));
    assert_eq!(sent(&mut node), [(3, Body::Ping { seq: 1 }, vec![])]);
    node.prober.end_for_test(at(5));
    node.handle_timeout(at(69));
    assert!(sent(&mut node).contains(&(2, Body::Nack { seq: 70 }, vec![])), "before the asker's time is over");
    node.handle_message(message(3, Body::Ack { seq: 1 }, vec![]), at(100));
    assert_eq!(sent(&mut node), [(2, Body::Ack { seq: 70 }, vec![])]);
    node.handle_message(message(3, Body::Ack { seq: 1 }, vec![]), at(101));
    assert_eq!(sent(&mut node), []);
}

#[test]
fn news_of_its_own_end_make_a_node_speak_up() {
    let mut node = node_knowing(&[2]);
    let incarnation = node.me().incarnation;
    let dead = Rumour::Dead { id: NodeId(1), incarnation };
    node.handle_message(message(2, Body::Ping { seq: 9 }, vec![dead.clone()]), at(1));
    let spoken = Rumour::Alive(node.me().clone());
    assert_eq!(node.me().incarnation.word, 1);
    assert_eq!(sent(&mut node), [(2, Body::Ack { seq: 9 }, vec![spoken])], "whoever says so hears it first");
    node.handle_message(message(2, Body::Gossip, vec![dead]), at(2));
    assert_eq!(node.me().incarnation.word, 1, "an old word needs no second answer");
}

#[test]
fn a_newer_word_wins_and_of_equal_ones_the_worse() {
    let mut node = node_knowing(&[2]);
    let mut word = announcement(2, 1, 2);
    let status = |node: &Swim| node.member(NodeId(2)).map(|member| member.status);
    let hear = |node: &mut Swim, rumour: Rumour| {
        node.handle_message(message(2, Body::Gossip, vec![rumour]), at(1));
        status(node)
    };
    let (id, incarnation) = (word.id, word.incarnation);
    let newer = crate::Incarnation { start: 1, word: 1 };
    let from = NodeId(5);
    assert_eq!(hear(&mut node, Rumour::Suspect { id, incarnation: newer, from }), Some(Status::Alive), "not heard of");
    assert_eq!(hear(&mut node, Rumour::Suspect { id, incarnation, from }), Some(Status::Suspect));
    assert_eq!(hear(&mut node, Rumour::Alive(word.clone())), Some(Status::Suspect));
    assert_eq!(hear(&mut node, Rumour::Dead { id, incarnation }), Some(Status::Dead));
    assert_eq!(hear(&mut node, Rumour::Suspect { id, incarnation, from }), Some(Status::Dead));
    word.incarnation = newer;
    assert_eq!(hear(&mut node, Rumour::Alive(word.clone())), Some(Status::Alive));
    assert_eq!(hear(&mut node, Rumour::Dead { id, incarnation }), Some(Status::Alive));
    assert_eq!(hear(&mut node, Rumour::Left { id, incarnation: newer }), Some(Status::Left));
    assert_eq!(hear(&mut node, Rumour::Removed { id, incarnation: newer }), Some(Status::Removed));
    assert_eq!(hear(&mut node, Rumour::Left { id, incarnation: newer }), Some(Status::Removed));
    assert_eq!(hear(&mut node, Rumour::Alive(word.clone())), Some(Status::Removed), "old news do not bring it back");
    word.incarnation.start = 2;
    word.incarnation.word = 0;
    assert_eq!(hear(&mut node, Rumour::Alive(word)), Some(Status::Alive));
}

#[test]
fn equal_tables_cost_one_small_message() {
    let mut node = node_knowing(&[2]);
    let mut other = Swim::new(Config::default(), announcement(2, 1, 2), Vec::new(), Prng::new(2), at(0));
    let reports = vec![Report { announcement: announcement(1, 1, 1), status: Status::Alive }];
    other.handle_message(
        Message { to: Some(NodeId(2)), ..message(1, Body::Table { reports, answer: false }, vec![]) },
        at(0),
    );
    effects(&mut other);
    let (now, digest) = loop {
        let now = node.next_timeout().expect("something is due");
        node.handle_timeout(now);
        let found = sent(&mut node).into_iter().find(|(_, body, _)| matches!(body, Body::Digest { .. }));
        if let Some((_, body, _)) = found {
            break (now, body);
        }
        node.handle_message(message(2, Body::Ack { seq: node.prober.seq_for_test() }, vec![]), now);
    };
    other.handle_message(Message { to: Some(NodeId(2)), ..message(1, digest.clone(), vec![]) }, now);
    assert_eq!(sent(&mut other), []);
    other.set_health(crate::Health::Impaired);
    other.handle_message(Message { to: Some(NodeId(2)), ..message(1, digest, vec![]) }, now);
    let answers = sent(&mut other);
    assert!(matches!(&answers[..], [(1, Body::Table { answer: true, .. }, _)]), "{answers:?}");
}

#[test]
fn an_order_goes_to_the_member_and_its_answer_comes_back() {
    let mut node = node_knowing(&[2]);
    assert!(node.order(NodeId(2), 7, Order::Drain(true)));
    assert_eq!(sent(&mut node), [(2, Body::Order { seq: 7, order: Order::Drain(true) }, vec![])]);
    assert!(!node.order(NodeId(3), 8, Order::Tell), "nobody knows where that is");
    let answer = Answer::from(Load { connections: 3, replicas: 2, led: 1, is_draining: true, ..Load::default() });
    node.handle_message(message(2, Body::Obeyed { seq: 7, answer: answer.clone() }, vec![]), at(1));
    assert_eq!(effects(&mut node), [Effect::Obeyed { from: NodeId(2), seq: 7, answer: answer.clone() }]);
    node.handle_message(message(2, Body::Order { seq: 9, order: Order::Leave }, vec![]), at(2));
    let obey = Effect::Obey { from: NodeId(2), address: address(2), seq: 9, order: Order::Leave };
    assert_eq!(effects(&mut node), [obey]);
    node.obeyed(NodeId(2), address(2), 9, answer.clone());
    assert_eq!(sent(&mut node), [(2, Body::Obeyed { seq: 9, answer }, vec![])]);
}

#[test]
fn a_node_that_is_to_go_says_so_once() {
    let mut node = node_knowing(&[2]);
    node.set_draining(true);
    node.set_draining(true);
    assert_eq!((node.me().incarnation.word, node.me().duties.is_draining), (1, true));
    node.set_draining(false);
    assert_eq!((node.me().incarnation.word, node.me().duties.is_draining), (2, false));
}
