//! Subscribe, then publish: once a SUBACK has been received, whatever any client of any shard publishes arrives; once an
//! UNSUBACK has been received, nothing does. Hammered with fresh topics whose match was cached as "nobody" a moment before.

use crate::{broker, expect_both_shards, options};
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::packet::{Packet, Subscribe, SubscribeFilter, SubscribeFilters, Unsubscribe, UnsubscribeFilters};
use bifro_mqtt::property::Properties;
use bifro_tests::load::{for_each_seed, version_of};
use bifro_tests::{Broker, Client, Received};
use std::net::SocketAddr;

const THREADS: u64 = 4;
const ROUNDS: u32 = 400;
const CLIENTS: u32 = 12;

struct Hammer {
    seed: u64,
    rng: Prng,
    publishers: Vec<Client>,
    subscribers: Vec<Client>,
}

impl Hammer {
    fn new(broker: SocketAddr, seed: u64, thread: u64) -> Self {
        let connect = |role: &str, persistent: bool| {
            let name = format!("{role}{seed:x}-{thread}");
            (0..CLIENTS)
                .map(|n| Client::connect_with(broker, &options(&name, n, persistent && n % 3 == 0)).0)
                .collect::<Vec<_>>()
        };
        let (publishers, subscribers) = (connect("rp", false), connect("rs", true));
        Self { seed, rng: Prng::new(seed).derive(thread), publishers, subscribers }
    }

    fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        let at = self.rng.below(u64::from(CLIENTS)) as usize;
        let publisher = &mut self.publishers[at];
        publisher.publish(topic, payload.as_bytes(), qos, false);
        if qos != QoS::AtMostOnce {
            let received = publisher.recv();
            assert!(matches!(received.packet(), Packet::PubAck(_)), "seed {:#x}: {received:?}", self.seed);
        }
    }

    /// One fresh topic: publish in vain, subscribe, publish and receive, unsubscribe, publish in vain.
    fn round(&mut self, number: u32, thread: u64) {
        let topic = format!("r{:x}/{thread}/{number}/x", self.seed);
        let filter = match self.rng.below(4) {
            0 => format!("r{:x}/{thread}/{number}/+", self.seed),
            1 => format!("r{:x}/{thread}/{number}/#", self.seed),
            2 => format!("+/{thread}/{number}/x"),
            _ => topic.clone(),
        };
        // Many shards and publishers have it cached that nobody wants it.
        for _ in 0..1 + self.rng.below(3) {
            self.publish(&topic, "early", QoS::AtMostOnce);
        }
        let at = self.rng.below(u64::from(CLIENTS)) as usize;
        self.subscribe(at, &filter);
        let qos = if self.rng.below(2) == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        for payload in ["one", "two"] {
            self.publish(&topic, payload, qos);
            let received = self.next_publish(at, &filter);
            let Packet::Publish(publish) = received.packet() else { panic!("a PUBLISH") };
            let got = (publish.topic, publish.payload);
            assert_eq!(got, (&*topic, payload.as_bytes()), "seed {:#x}, filter {filter}", self.seed);
        }
        self.unsubscribe(at, &filter);
        self.publish(&topic, "late", QoS::AtMostOnce);
        self.publish(&topic, "late", QoS::AtLeastOnce);
    }

    /// Subscribes; early messages that overtake the SUBACK are passed over, as they may arrive or not.
    fn subscribe(&mut self, at: usize, filter: &str) {
        let client = &mut self.subscribers[at];
        let packet_id = client.packet_id();
        let mut scratch = Vec::new();
        let qos = QoS::AtMostOnce;
        let one = SubscribeFilter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 };
        let filters = SubscribeFilters::encode([one], &mut scratch);
        client.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), filters }));
        loop {
            let received = client.recv();
            match received.packet() {
                Packet::SubAck(suback) => {
                    assert_eq!((suback.packet_id, suback.codes), (packet_id, &[0][..]), "seed {:#x}", self.seed);
                    return;
                }
                Packet::Publish(publish) if publish.payload == b"early" => {}
                other => panic!("seed {:#x}: instead of a SUBACK for {filter}: {other:?}", self.seed),
            }
        }
    }

    /// Unsubscribes; early messages may still be on their way from a publisher that is not served as fast.
    fn unsubscribe(&mut self, at: usize, filter: &str) {
        let client = &mut self.subscribers[at];
        let packet_id = client.packet_id();
        let mut scratch = Vec::new();
        let filters = UnsubscribeFilters::encode([filter], &mut scratch);
        client.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::default(), filters }));
        loop {
            let received = client.recv();
            match received.packet() {
                Packet::UnsubAck(unsuback) => {
                    let fine = unsuback.packet_id == packet_id && unsuback.codes.iter().all(|&code| code == 0);
                    assert!(fine, "seed {:#x}: {unsuback:?}", self.seed);
                    return;
                }
                Packet::Publish(publish) if publish.payload == b"early" => {}
                other => panic!("seed {:#x}: instead of an UNSUBACK for {filter}: {other:?}", self.seed),
            }
        }
    }

    fn next_publish(&mut self, at: usize, filter: &str) -> Received {
        loop {
            let received = self.subscribers[at].recv_within(bifro_tests::PATIENCE).flatten();
            let received =
                received.unwrap_or_else(|| panic!("seed {:#x}: lost after SUBACK, filter {filter}", self.seed));
            match received.packet() {
                Packet::Publish(publish) if publish.payload == b"early" => {}
                Packet::Publish(_) => return received,
                other => panic!("seed {:#x}: {other:?}", self.seed),
            }
        }
    }
}

/// [MQTT-3.8.4-1] and [MQTT-3.10.4-2] as a client may understand them: the acknowledgement is the moment from which it holds,
/// for publishers on every shard.
#[test]
fn what_is_published_after_suback_arrives_and_after_unsuback_does_not() {
    let broker = broker();
    for_each_seed(|seed| {
        let address = broker.tcp();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut hammer = Hammer::new(address, seed, thread);
                    for number in 0..ROUNDS {
                        hammer.round(number, thread);
                    }
                    for client in hammer.subscribers.iter_mut().chain(&mut hammer.publishers) {
                        client.expect_silence();
                    }
                });
            }
        });
    });
    expect_both_shards(&broker);
}

/// A filter with a subscriber who stays is not touched by others who come and go on both shards.
#[test]
fn a_subscriber_misses_nothing_while_others_subscribe_and_unsubscribe_the_same_filter() {
    let broker = broker();
    for_each_seed(|seed| churn(&broker, seed));
}

fn churn(broker: &Broker, seed: u64) {
    let topic = format!("churn/{seed:x}");
    let connect = |name: &str, n: u32| Client::connect(broker.tcp(), version_of(n), &format!("{name}{seed:x}-{n}"));
    let mut steady: Vec<_> = (0..4).map(|n| connect("steady", n)).collect();
    for client in &mut steady {
        assert_eq!(client.subscribe(&topic, QoS::AtLeastOnce), 1);
    }
    let mut publisher = connect("churner", 0);
    let mut others: Vec<_> = (0..8).map(|n| connect("other", n)).collect();
    for number in 0..300_u32 {
        let others_count = others.len();
        let other = &mut others[number as usize % others_count];
        other.subscribe(&topic, QoS::AtMostOnce);
        let reason = publisher.publish_acked(&topic, &number.to_be_bytes());
        assert!(!reason.is_error(), "seed {seed:#x}: {reason}");
        let received = other.recv_publish();
        assert!(matches!(received.packet(), Packet::Publish(publish) if publish.payload == number.to_be_bytes()));
        other.unsubscribe(&topic);
        for client in &mut steady {
            let received = client.recv_publish();
            let Packet::Publish(publish) = received.packet() else { panic!("a PUBLISH") };
            assert_eq!(publish.payload, number.to_be_bytes(), "seed {seed:#x}");
        }
    }
}
