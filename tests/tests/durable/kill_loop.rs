//! The broker is killed again and again under load; publishers and subscribers come back and go on where they were.

use crate::persistent;
use bifro_core::client::Version::V311;
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::Packet;
use bifro_tests::history::{Guarantee, Promise};
use bifro_tests::load::{Publisher, Subscriber, Subscription, World, seed, version_of};
use bifro_tests::{Broker, Client, PATIENCE};
use std::time::{Duration, Instant};

const PUBLISHERS: u32 = 6;
/// Subscribers that are there whenever the broker is.
const PRESENT: u32 = 4;
/// Subscribers that come by every third round.
const ABSENT: u32 = 4;
const STREAMS: u32 = 2 * PUBLISHERS;
/// More than a run can send.
const ENDLESS: u32 = u32::MAX;
pub(crate) const WIDE: &str = "[tenant_defaults]\ninbox_messages_max = 1000000\n";

/// Rounds: `BIFRO_KILLS`, by default as many as an ordinary test run can wait for.
fn kills() -> u32 {
    std::env::var("BIFRO_KILLS").map_or(10, |text| text.parse().expect("BIFRO_KILLS is a number"))
}

/// Each publisher has a stream of QoS 1 and one of QoS 2.
fn stream(number: u32) -> (String, QoS) {
    let qos = if number.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
    (format!("k/{}/{number}", number / 2), qos)
}

struct Killing {
    world: World,
    rng: Prng,
    promises: Vec<Promise>,
    retained: u32,
    recoveries: Vec<Duration>,
}

/// [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.4.0-1] [MQTT-3.1.2-5] [MQTT5-3.1.2-23] [MQTT-3.3.1-5]
#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_however_often_the_broker_is_killed() {
    survive(Broker::start(2, WIDE), kills(), || {});
}

/// Kills the broker under load so many times; `meanwhile` happens before it starts again.
pub(crate) fn survive(mut broker: Broker, rounds: u32, mut meanwhile: impl FnMut()) {
    let mut killing = Killing::begin(&broker);
    for round in 0..rounds {
        killing.load(round);
        let crashed = broker.crash();
        meanwhile();
        killing.world.broker_died();
        let began = Instant::now();
        broker = crashed.restart();
        killing.recoveries.push(began.elapsed());
        killing.come_back(&broker, round);
    }
    killing.end(&broker, rounds);
}

impl Killing {
    fn begin(broker: &Broker) -> Self {
        let seed = seed();
        let mut world = World::new(broker.tcp(), seed);
        let mut promises = Vec::new();
        for n in 0..PRESENT + ABSENT {
            let filters = [(0..3).collect::<Vec<u32>>(), (2..PUBLISHERS).collect()];
            let wanted = filters[(n % 2) as usize].clone();
            let subscriptions = (wanted.iter())
                .map(|publisher| Subscription { filter: format!("k/{publisher}/#"), qos: QoS::ExactlyOnce })
                .collect();
            let options = persistent(version_of(n), &format!("subscriber-{n}"));
            world.add_subscriber(Subscriber::new(options, n, subscriptions));
            for number in (0..STREAMS).filter(|number| wanted.contains(&(number / 2))) {
                let guarantee = match stream(number).1 {
                    QoS::ExactlyOnce => Guarantee::ExactlyOnce,
                    _ => Guarantee::AtLeastOnce,
                };
                promises.push(Promise { audience: n, stream: number, from: 0, guarantee, ordered: true });
            }
        }
        world.run_until("all subscribed", |world| world.subscribers.iter().all(Subscriber::is_ready));
        for n in 0..PUBLISHERS {
            let options = persistent(version_of(n), &format!("publisher-{n}"));
            let mut publisher = Publisher::new(options, ENDLESS, 20);
            publisher.payload_bytes = 200;
            for number in [2 * n, 2 * n + 1] {
                let (topic, qos) = stream(number);
                publisher = publisher.with_stream(number, topic, qos);
            }
            world.add_publisher(publisher);
        }
        Self { world, rng: Prng::new(seed), promises, retained: 0, recoveries: Vec::new() }
    }

    /// Some load, until a moment that nobody knows.
    fn load(&mut self, round: u32) {
        if round % 3 != 2 {
            (PRESENT..PRESENT + ABSENT).for_each(|n| self.world.cut_subscriber(n as usize));
        }
        let until = Instant::now() + Duration::from_micros(20_000 + self.rng.below(250_000));
        while Instant::now() < until {
            self.world.turn();
        }
    }

    fn come_back(&mut self, broker: &Broker, round: u32) {
        let seed = self.world.seed;
        if round > 0 {
            assert_eq!(retained_value(broker), Some(self.retained), "seed {seed:#x}, round {round}");
        }
        self.retained = round + 1;
        let mut writer = Client::connect(broker.tcp(), V311, "writer");
        writer.publish("retained", self.retained.to_string().as_bytes(), QoS::AtLeastOnce, true);
        writer.recv();
        self.world.set_broker(broker.tcp());
        (0..PUBLISHERS).for_each(|n| self.world.connect_publisher(n as usize));
        (0..PRESENT + ABSENT).for_each(|n| self.world.connect_subscriber(n as usize));
        self.world.run_until("all back", |world| world.subscribers.iter().all(Subscriber::is_ready));
    }

    fn end(mut self, broker: &Broker, rounds: u32) {
        self.world.publishers.iter_mut().for_each(Publisher::stop);
        self.world.run_until("all acknowledged", |world| world.publishers.iter().all(Publisher::is_done));
        self.world.run_until_silent(Duration::from_millis(500));
        self.world.expect_kept(&self.promises);
        assert_eq!(broker.metric("bifro_inbox_messages"), 0.0, "everything was consumed");
        let received: u64 = self.world.subscribers.iter().map(|subscriber| subscriber.received).sum();
        let slowest = self.recoveries.iter().max().copied().unwrap_or_default();
        eprintln!("{} kills, {received} messages received, slowest start {slowest:?}", self.recoveries.len());
        assert!(received > 100 * u64::from(rounds), "only {received} messages came");
    }
}

/// The retained message, if one comes in time.
fn retained_value(broker: &Broker) -> Option<u32> {
    let mut client = Client::connect(broker.tcp(), V311, "reader");
    client.subscribe("retained", QoS::AtMostOnce);
    let received = client.recv_within(PATIENCE)?.expect("the broker lives");
    match received.packet() {
        Packet::Publish(publish) => std::str::from_utf8(publish.payload).ok().and_then(|text| text.parse().ok()),
        other => panic!("not a PUBLISH: {other:?}"),
    }
}

/// The first start makes directories and files one after the other; whatever is there when it is killed, the next one goes on from.
#[test]
fn a_first_start_that_is_killed_at_any_moment_leaves_a_directory_that_starts() {
    let mut rng = Prng::new(7);
    for round in 0..24 {
        let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
        let begun = Broker::begin_with(1, listener, &[]);
        std::thread::sleep(Duration::from_millis(rng.below(120)));
        eprintln!("round {round}");
        drop(begun.crash().restart());
    }
}
