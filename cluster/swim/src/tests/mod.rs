//! Clusters in virtual time, from one seed, and what is promised about them.

mod detection;
mod effects;
mod healing;
mod identity;
mod world;

use crate::{Answer, Body, Load, Message, Order, Report, Rumour, Status, limits, wire};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::ranges::{Held, RangeAnswer, RangeOrder, ReplicaReport};
use std::net::SocketAddr;

/// As long as an announcement gets.
fn long_announcement() -> crate::Announcement {
    let mut announcement = world::announcement(u64::MAX, u32::MAX, u64::MAX);
    announcement.address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
    announcement.incarnation.word = u32::MAX;
    announcement
}

#[test]
fn no_message_with_rumours_is_larger_than_a_datagram() {
    let announcement = long_announcement();
    let address: SocketAddr = announcement.address;
    let rumours = vec![Rumour::Alive(announcement.clone()); limits::RUMOURS_PER_MESSAGE];
    let bodies = [
        Body::Ping { seq: u64::MAX },
        Body::PingRequest { seq: u64::MAX, target: NodeId(u64::MAX), address },
        Body::Ack { seq: u64::MAX },
        Body::Nack { seq: u64::MAX },
        Body::Gossip,
        Body::Order { seq: u64::MAX, order: Order::Drain(true) },
        Body::Obeyed {
            seq: u64::MAX,
            answer: Load { connections: u32::MAX, retained: u32::MAX, is_draining: true, ..Load::default() }.into(),
        },
        Body::Order { seq: u64::MAX, order: Order::Ranges(RangeOrder::Lead(RangeId(u64::MAX), NodeId(u64::MAX))) },
    ];
    for body in bodies {
        let message =
            Message { from: NodeId(u64::MAX), address, to: Some(NodeId(u64::MAX)), body, rumours: rumours.clone() };
        let bytes = wire::encode(&message);
        assert!(bytes.len() <= limits::DATAGRAM_BYTES, "{} bytes", bytes.len());
        assert_eq!(wire::decode(&bytes), Ok(message));
    }
}

#[test]
fn what_is_no_message_is_refused_and_a_message_survives_the_wire() {
    let announcement = long_announcement();
    let statuses = [Status::Alive, Status::Suspect, Status::Dead, Status::Left, Status::Removed];
    let reports: Vec<Report> =
        statuses.iter().map(|&status| Report { announcement: announcement.clone(), status }).collect();
    let body = Body::Table { reports, answer: true };
    let message = Message { from: NodeId(1), address: announcement.address, to: None, body, rumours: Vec::new() };
    let bytes = wire::encode(&message);
    assert_eq!(wire::decode(&bytes), Ok(message.clone()));
    let mut rng = bifro_core::rng::Prng::new(1);
    for _ in 0..20_000 {
        let mut broken = bytes.to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(broken.len() as u64) as usize;
            broken[at] = rng.next_u64() as u8;
        }
        broken.truncate(broken.len() - rng.below(3) as usize);
        // It need not be refused, for what was changed may be a port; but whatever is read can be written again.
        if let Ok(read) = wire::decode(&broken) {
            wire::encode(&read);
        }
    }
    assert!(wire::decode(b"").is_err() && wire::decode(&[0xff; 64]).is_err());
}

fn replica(range: RangeId, held: Option<Held>) -> ReplicaReport {
    ReplicaReport {
        range,
        node: NodeId(1),
        leader: Some(NodeId(2)),
        leaderless_ms: 3,
        term: 4,
        last_term: 5,
        last_index: 6,
        committed: 7,
        applied: 8,
        log_entries: 9,
        voters: vec![NodeId(1), NodeId(2)],
        outgoing: vec![NodeId(3)],
        learners: vec![NodeId(4)],
        lags: vec![(NodeId(2), 10)],
        held,
    }
}

/// One of each kind.
fn messages() -> Vec<Message> {
    let (announcement, address) = (world::announcement(1, 2, 3), long_announcement().address);
    let (id, incarnation, from) = (NodeId(7), announcement.incarnation, NodeId(8));
    let load = Load { connections: 1, replicas: 2, led: 3, listeners: 4, retained: 5, is_draining: true };
    let held = Some(Held { sessions: 6, messages: 7, bytes: 8 });
    let (replicas, refusal) = (vec![replica(RangeId(9), held)], Some("no".into()));
    let answer = Answer { load, ranges: RangeAnswer { replicas, refusal } };
    let statuses = [Status::Alive, Status::Suspect, Status::Dead, Status::Left, Status::Removed];
    let report = |status| Report { announcement: announcement.clone(), status };
    let about_ranges = [RangeOrder::Show, RangeOrder::Lead(RangeId(9), id), RangeOrder::Recover(RangeId(9), 10)];
    let orders = [Order::Tell, Order::Drain(true), Order::Drain(false), Order::Leave];
    let mut bodies = vec![
        Body::Ping { seq: 1 },
        Body::PingRequest { seq: 2, target: NodeId(9), address },
        Body::Ack { seq: 3 },
        Body::Nack { seq: 4 },
        Body::Gossip,
        Body::Obeyed { seq: 5, answer },
        Body::Digest { digest: 6 },
        Body::Table { reports: statuses.map(report).to_vec(), answer: true },
    ];
    let orders = orders.into_iter().chain(about_ranges.map(Order::Ranges));
    bodies.extend(orders.map(|order| Body::Order { seq: 7, order }));
    let rumours = vec![
        Rumour::Alive(announcement),
        Rumour::Suspect { id, incarnation, from },
        Rumour::Dead { id, incarnation },
        Rumour::Left { id, incarnation },
        Rumour::Removed { id, incarnation },
    ];
    let message = |(nth, body)| {
        let (to, rumours) = if nth == 0 { (None, rumours.clone()) } else { (Some(NodeId(2)), Vec::new()) };
        Message { from: NodeId(1), address, to, body, rumours }
    };
    bodies.into_iter().enumerate().map(message).collect()
}

#[test]
fn messages_are_as_recorded() {
    let frames: Vec<Vec<u8>> = messages().iter().map(|message| wire::encode(message).into_vec()).collect();
    crate::recorded::check("membership", &frames, |bytes| {
        let message = wire::decode(bytes).ok()?;
        Some((alloc::format!("{message:?}"), wire::encode(&message).into_vec()))
    });
}
