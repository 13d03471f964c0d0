//! Tables of several nodes, that hear of each other in any order.

use super::*;
use crate::limits::{RETAINED_CLEARED_FOR, RETAINED_CLEARED_MAX};
use alloc::vec;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use bifro_core::rng::Prng;
use bifro_core::settings::{QuotaLimits, TenantSettings};
use core::time::Duration;

const TOPICS: [&str; 4] = ["a", "b", "c/d", "e"];

fn tenant() -> Arc<TenantCtx> {
    let quota = Arc::new(Quota::new(&QuotaLimits::default()));
    Arc::new(TenantCtx { idx: TenantIdx(0), name: "t".into(), settings: TenantSettings::default(), quota })
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_700_000_000_000_000 + millis * 1_000)
}

fn message(topic: &str, payload: &str, expiry_at: Option<Instant>) -> Arc<Message> {
    let (payload, publisher) = (payload.as_bytes(), PublisherKey(1));
    let qos = QoS::AtLeastOnce;
    MessageView { topic, properties: &[], payload, qos, retain: true, expiry_at, publisher }.to_message()
}

struct Node {
    table: RetainTable,
    tenant: Arc<TenantCtx>,
}

impl Node {
    fn new(id: u64) -> Self {
        let mut table = RetainTable::durable();
        table.replicate(NodeId(id));
        Self { table, tenant: tenant() }
    }

    fn set(&mut self, now: Instant, topic: &str, payload: &str) {
        self.table.set(now, &self.tenant, &tests::publisher(), &message(topic, payload, None)).expect("no quota");
    }

    /// Hands over what `other` lacks of a topic, as bytes.
    fn tell(&self, now: Instant, topic: &str, other: &mut Self) {
        let Some(replica) = self.table.replica(TenantIdx(0), topic) else { return };
        if other.table.is_older(TenantIdx(0), topic, replica.version) {
            let replica = Replica::decode(&replica.encode(now), now).expect("just encoded");
            other.table.merge(now, &other.tenant, replica);
        }
    }

    fn known(&self) -> Vec<(&str, Version, Vec<u8>)> {
        let mut known: Vec<_> = self
            .table
            .versions()
            .map(|(tenant, topic, version)| {
                let replica = self.table.replica(tenant, topic).expect("its version is known");
                (topic, version, replica.retained.message.payload().to_vec())
            })
            .collect();
        known.sort_unstable();
        known
    }
}

#[test]
fn nodes_that_have_heard_of_everything_have_the_same_whatever_the_order() {
    for seed in 0..200 {
        let mut rng = Prng::new(seed);
        let mut nodes = [Node::new(1), Node::new(2), Node::new(3)];
        let mut last = at(0);
        for step in 0..60 {
            last = at(step * 10);
            // Clocks that differ by up to a minute.
            let node = rng.below(3) as usize;
            let topic = TOPICS[rng.below(4) as usize];
            if rng.below(3) > 0 {
                let clock = last + Duration::from_secs(20 * node as u64);
                let payload = if rng.below(3) == 0 { "".into() } else { alloc::format!("{step}") };
                nodes[node].set(clock, topic, &payload);
            } else {
                let other = (node + 1 + rng.below(2) as usize) % 3;
                let [one, two] = nodes.get_disjoint_mut([node, other]).expect("two of them");
                one.tell(last, topic, two);
            }
        }
        for round in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                let [from, to] = nodes.get_disjoint_mut([from, to]).expect("two of them");
                TOPICS.iter().for_each(|topic| from.tell(last, topic, to));
            }
            if round == 1 {
                assert_eq!(nodes[0].known(), nodes[1].known(), "seed {seed}");
                assert_eq!(nodes[0].known(), nodes[2].known(), "seed {seed}");
            }
        }
        for node in &nodes {
            node.table.validate();
            assert_eq!(node.tenant.quota.used(Resource::TotalRetainTopics), node.table.messages());
            assert_eq!(node.tenant.quota.used(Resource::TotalRetainMessageSpaceBytes), node.table.bytes());
        }
    }
}

#[test]
fn what_is_published_after_something_was_heard_is_newer_whatever_the_clock_says() {
    let (mut ahead, mut behind) = (Node::new(1), Node::new(2));
    ahead.set(at(60_000), "a", "first");
    ahead.tell(at(0), "a", &mut behind);
    behind.set(at(1), "a", "second");
    behind.tell(at(1), "a", &mut ahead);
    assert_eq!(ahead.known(), behind.known());
    assert_eq!(ahead.known()[0].2, b"second");
}

#[test]
fn a_cleared_topic_is_remembered_for_a_week_and_not_brought_back() {
    let (mut one, mut other) = (Node::new(1), Node::new(2));
    one.set(at(0), "a", "x");
    one.tell(at(0), "a", &mut other);
    one.set(at(1), "a", "");
    assert_eq!((one.table.messages(), one.table.cleared()), (0, 1));
    // The other did not hear of it, and offers what it has.
    other.tell(at(2), "a", &mut one);
    assert_eq!(one.table.messages(), 0);
    one.tell(at(2), "a", &mut other);
    assert_eq!((other.table.messages(), other.table.cleared()), (0, 1));
    let later = at(1) + RETAINED_CLEARED_FOR + RETAINED_EXPIRY_GRAIN;
    assert!(one.table.next_timeout().is_some_and(|at| at <= later));
    one.table.handle_timeout(later, &mut vec![]);
    assert_eq!(one.table.cleared(), 0);
    assert_eq!(one.table.next_timeout(), None);
}

#[test]
fn clearings_are_bounded_and_the_oldest_go_first() {
    let mut node = Node::new(1);
    for n in 0..=RETAINED_CLEARED_MAX as u64 {
        node.set(at(n * 2_000), &alloc::format!("{n}"), "");
    }
    assert_eq!(node.table.cleared(), RETAINED_CLEARED_MAX);
    assert_eq!(node.table.version(TenantIdx(0), "0"), None);
    assert!(node.table.version(TenantIdx(0), "1").is_some());
}

#[test]
fn a_message_has_as_long_to_live_on_another_node_as_it_had_left() {
    let (mut one, mut other) = (Node::new(1), Node::new(2));
    let expires = message("a", "x", Some(at(10_000)));
    one.table.set(at(0), &one.tenant, &tests::publisher(), &expires).expect("no quota");
    let replica = one.table.replica(TenantIdx(0), "a").expect("it was set");
    // Two seconds later, by a clock that is an hour ahead.
    let ahead = at(2_000 + 3_600_000);
    let replica = Replica::decode(&replica.encode(at(2_000)), ahead).expect("just encoded");
    other.table.merge(ahead, &other.tenant, replica);
    let held = other.table.replica(TenantIdx(0), "a").expect("it was merged").retained;
    assert_eq!(held.message.view().expiry_at, Some(ahead + Duration::from_secs(8)));
}

#[test]
fn bytes_that_are_no_replica_are_refused() {
    let mut node = Node::new(1);
    node.set(at(0), "a", "x");
    let bytes = node.table.replica(TenantIdx(0), "a").expect("it was set").encode(at(0));
    for end in 0..bytes.len() {
        assert!(Replica::decode(&bytes[..end], at(0)).is_err(), "{end}");
    }
}
