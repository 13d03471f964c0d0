//! Two hundred clients over two shards: order, nothing acknowledged lost, QoS 2 exactly once, over flapping connections.

use crate::{broker, expect_both_shards, options};
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_tests::Broker;
use bifro_tests::history::{Guarantee, Promise};
use bifro_tests::load::{Publisher, Subscriber, Subscription, World, for_each_seed};
use std::time::Duration;

const PUBLISHERS: u32 = 60;
const SUBSCRIBERS: u32 = 140;
const MESSAGES: u32 = 60;
const TOPICS: u32 = 12;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Publisher `p` has two streams; this is the topic and QoS of one.
fn stream(prefix: &str, stream: u32) -> (String, QoS) {
    let qos = QOS[(stream / 2 % 3) as usize];
    (format!("{prefix}/{}/{}", stream % TOPICS, stream), qos)
}

/// What a subscriber wants: topics of one residue by wildcard, and perhaps overlapping ones.
struct Wish {
    subscriptions: Vec<Subscription>,
    residue: Option<u32>,
    qos: QoS,
}

fn wish(prefix: &str, rng: &mut Prng) -> Wish {
    let qos = QOS[rng.below(3) as usize];
    let residue = (rng.below(8) > 0).then(|| rng.below(u64::from(TOPICS)) as u32);
    let filter = residue.map_or_else(|| format!("{prefix}/#"), |residue| format!("{prefix}/{residue}/+"));
    let mut subscriptions = vec![Subscription { filter: filter.clone(), qos }];
    if let Some(residue) = residue.filter(|_| rng.below(4) == 0) {
        // An overlapping one: still one copy of each message, for a client that wants the same QoS of both.
        subscriptions.push(Subscription { filter: format!("{prefix}/{residue}/#"), qos });
    }
    Wish { subscriptions, residue, qos }
}

/// [MQTT-4.6.0-6], [MQTT5-4.6.0-6] per publisher and topic; [MQTT-4.3.2-2], [MQTT-4.3.3-2]; sessions keep QoS 1 and 2 messages
/// while their client is away [MQTT-3.1.2-5], [MQTT5-4.1.0-1].
#[test]
fn two_hundred_clients_of_two_shards_get_what_was_promised() {
    let broker = broker();
    for_each_seed(|seed| deliver(&broker, seed));
    expect_both_shards(&broker);
}

fn deliver(broker: &Broker, seed: u64) {
    let mut rng = Prng::new(seed);
    let prefix = format!("d{seed:x}");
    let mut world = World::new(broker.tcp(), seed);
    let mut promises = Vec::new();
    let flaps = |n: u32| n % 3 == 2;
    for n in 0..SUBSCRIBERS {
        let wish = wish(&prefix, &mut rng);
        let persistent = n % 3 > 0;
        world.add_subscriber(Subscriber::new(options(&format!("{prefix}s"), n, persistent), n, wish.subscriptions));
        for number in (0..2 * PUBLISHERS).filter(|s| wish.residue.is_none_or(|residue| s % TOPICS == residue)) {
            let guarantee = match stream(&prefix, number).1.min(wish.qos) {
                QoS::AtMostOnce => Guarantee::AtMostOnce,
                QoS::AtLeastOnce => Guarantee::AtLeastOnce,
                QoS::ExactlyOnce => Guarantee::ExactlyOnce,
            };
            promises.push(Promise { audience: n, stream: number, from: 0, guarantee, ordered: true });
        }
    }
    world.run_until("all subscribed", |world| world.subscribers.iter().all(Subscriber::is_ready));
    for n in 0..PUBLISHERS {
        let mut publisher = Publisher::new(options(&format!("{prefix}p"), n, n % 2 > 0), MESSAGES, 1 + n as usize % 16);
        publisher.payload_bytes = 16 + rng.below(600) as usize;
        for number in [2 * n, 2 * n + 1] {
            let (topic, qos) = stream(&prefix, number);
            publisher = publisher.with_stream(number, topic, qos);
        }
        world.add_publisher(publisher);
    }
    let mut flaps_left = 400;
    world.run_until("all connected", |world| world.publishers.iter().all(Publisher::is_connected));
    while !world.publishers.iter().all(Publisher::is_done) {
        let publisher = rng.below(u64::from(PUBLISHERS)) as usize;
        if !publisher.is_multiple_of(2) && flaps_left > 0 && rng.below(4) == 0 {
            flaps_left -= 1;
            world.flap_publisher(publisher);
        }
        for _ in 0..2 {
            let subscriber = rng.below(u64::from(SUBSCRIBERS)) as usize;
            if flaps(subscriber as u32) && flaps_left > 0 {
                flaps_left -= 1;
                world.flap_subscriber(subscriber);
            }
        }
        let before = world.history.now();
        world.run_until("progress of the publishers", |world| {
            world.history.now() > before || world.publishers.iter().all(Publisher::is_done)
        });
    }
    world.run_until("all back", |world| world.subscribers.iter().all(Subscriber::is_ready));
    world.run_until_silent(Duration::from_millis(500));
    world.expect_kept(&promises);
    let received: u64 = world.subscribers.iter().map(|subscriber| subscriber.received).sum();
    assert!(received > u64::from(PUBLISHERS * MESSAGES * 10), "only {received} messages came, seed {seed:#x}");
}
