//! Shared subscriptions with members on both shards that come and go.

use crate::{broker, expect_both_shards, options};
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_tests::Broker;
use bifro_tests::history::{Event, Guarantee, Promise};
use bifro_tests::load::{Publisher, Subscriber, Subscription, World, for_each_seed};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const PUBLISHERS: u32 = 16;
const MESSAGES: u32 = 150;
const MEMBERS: u32 = 24;

fn member(prefix: &str, n: u32, audience: u32, filter: String, qos: QoS) -> Subscriber {
    let subscriptions = vec![Subscription { filter, qos }];
    let mut subscriber = Subscriber::new(options(&format!("{prefix}m{audience}"), n, false), audience, subscriptions);
    subscriber.member = n;
    subscriber
}

fn add_publishers(world: &mut World, prefix: &str, qos: impl Fn(u32) -> QoS) {
    for n in 0..PUBLISHERS {
        let publisher = Publisher::new(options(&format!("{prefix}p"), n, false), MESSAGES, 12);
        world.add_publisher(publisher.with_stream(n, format!("{prefix}/{n}"), qos(n)));
    }
}

fn promises(audience: u32, guarantee: Guarantee, ordered: bool) -> impl Iterator<Item = Promise> {
    (0..PUBLISHERS).map(move |stream| Promise { audience, stream, from: 0, guarantee, ordered })
}

/// [MQTT5-4.8.2-4]: each message goes to one member; two groups get each message once each.
#[test]
fn each_message_goes_to_exactly_one_member_of_each_group_over_both_shards() {
    let broker = broker();
    for_each_seed(|seed| {
        let prefix = format!("g{seed:x}");
        let mut world = World::new(broker.tcp(), seed);
        for n in 0..MEMBERS {
            let qos = QoS::from_bits((n % 2 + 1) as u8).expect("1 or 2");
            world.add_subscriber(member(&prefix, n, 0, format!("$share/first/{prefix}/+"), qos));
            world.add_subscriber(member(&prefix, n, 1, format!("$share/second/{prefix}/#"), QoS::AtLeastOnce));
            world.add_subscriber(member(&prefix, n, 2, format!("$oshare/third/{prefix}/+"), QoS::AtLeastOnce));
        }
        world.run_until("all subscribed", |world| world.subscribers.iter().all(Subscriber::is_ready));
        add_publishers(&mut world, &prefix, |n| QoS::from_bits((n % 2 + 1) as u8).expect("1 or 2"));
        world.run_until("all published", |world| world.publishers.iter().all(Publisher::is_done));
        world.run_until_silent(Duration::from_millis(300));
        let once = Guarantee::ExactlyOnce;
        let all = promises(0, once, false).chain(promises(1, once, false)).chain(promises(2, once, true));
        world.expect_kept(&all.collect::<Vec<_>>());
        expect_spread(&world);
    });
    expect_both_shards(&broker);
}

/// $share uses many members; $oshare one per publisher.
fn expect_spread(world: &World) {
    let mut members: HashMap<u32, HashSet<u32>> = HashMap::new();
    let mut of_publisher: HashMap<u32, HashSet<u32>> = HashMap::new();
    for event in world.history.events() {
        if let Event::Received { audience, member, mark, .. } = *event {
            members.entry(audience).or_default().insert(member);
            if audience == 2 {
                of_publisher.entry(mark.stream).or_default().insert(member);
            }
        }
    }
    let (seed, used) = (world.seed, &members);
    assert!(used[&0].len() == MEMBERS as usize, "seed {seed:#x}: $share used only {:?}", used[&0]);
    assert!(of_publisher.values().all(|members| members.len() == 1), "seed {seed:#x}: {of_publisher:?}");
}

/// What a departed member had not acknowledged goes to another one; nothing is lost while members join and leave.
#[test]
fn members_that_join_and_leave_without_acknowledging_lose_nothing() {
    let broker = broker();
    for_each_seed(|seed| come_and_go(&broker, seed));
    expect_both_shards(&broker);
}

fn come_and_go(broker: &Broker, seed: u64) {
    let mut rng = Prng::new(seed);
    let prefix = format!("c{seed:x}");
    let mut world = World::new(broker.tcp(), seed);
    let filter = format!("$share/moving/{prefix}/+");
    let mut next = 0;
    let join = |world: &mut World, next: &mut u32, acknowledges: bool| {
        let mut member = member(&prefix, *next, 0, filter.clone(), QoS::AtLeastOnce);
        member.acknowledges = acknowledges;
        *next += 1;
        world.add_subscriber(member)
    };
    // These stay, so that there always is a member.
    for _ in 0..4 {
        join(&mut world, &mut next, true);
    }
    world.run_until("the first members", |world| world.subscribers.iter().all(Subscriber::is_ready));
    add_publishers(&mut world, &prefix, |_| QoS::AtLeastOnce);
    let mut guests: Vec<usize> = Vec::new();
    while !world.publishers.iter().all(Publisher::is_done) {
        if guests.len() < 12 {
            let acknowledges = rng.below(2) == 0;
            guests.push(join(&mut world, &mut next, acknowledges));
        }
        if guests.len() > 4 {
            let guest = guests.swap_remove(rng.below(guests.len() as u64) as usize);
            world.depart(guest);
        }
        for _ in 0..3 {
            world.turn();
        }
    }
    for guest in guests {
        world.depart(guest);
    }
    world.run_until_silent(Duration::from_millis(500));
    world.expect_kept(&promises(0, Guarantee::AtLeastOnce, false).collect::<Vec<_>>());
}

/// $oshare: while the group stays as it is, one publisher's messages stay in order, whatever the member's window.
#[test]
fn an_ordered_group_keeps_each_publishers_order_at_every_qos() {
    let broker = broker();
    for_each_seed(|seed| {
        let prefix = format!("o{seed:x}");
        let mut world = World::new(broker.tcp(), seed);
        for n in 0..MEMBERS {
            let qos = QoS::from_bits((n % 3) as u8).expect("0 to 2");
            world.add_subscriber(member(&prefix, n, 0, format!("$oshare/ordered/{prefix}/#"), qos));
        }
        world.run_until("all subscribed", |world| world.subscribers.iter().all(Subscriber::is_ready));
        add_publishers(&mut world, &prefix, |n| QoS::from_bits((n % 3) as u8).expect("0 to 2"));
        world.run_until("all published", |world| world.publishers.iter().all(Publisher::is_done));
        world.run_until_silent(Duration::from_millis(300));
        world.expect_kept(&promises(0, Guarantee::ExactlyOnce, true).collect::<Vec<_>>());
    });
}
