//! Clusters in virtual time, from one seed, and what is promised about them.

mod detection;
mod effects;
mod healing;
mod identity;
mod world;

use crate::{Body, Load, Message, Order, Report, Rumour, Status, limits, wire};
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::ranges::RangeOrder;
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
