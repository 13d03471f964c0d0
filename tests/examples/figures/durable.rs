//! Storage: what a start takes after a kill, what a returning session waits, and what is written for each byte of payload.

use crate::{Row, choose};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Disconnect, Packet};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_tests::load::{Incoming, Sender, Swarm};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::time::{Duration, Instant};

const PAYLOAD_BYTES: usize = 256;
/// Sessions connected at a time while they are made.
const BATCH: u32 = 500;
/// Publishers, and what each has without an acknowledgement at most.
const PUBLISHERS: usize = 16;
const WINDOW: usize = 500;
const SETTINGS: &str = "[tenant_defaults]\ninbox_messages_max = 1000000\n";

fn away(n: u32) -> ConnectOptions {
    ConnectOptions { clean: false, ..ConnectOptions::new(Version::V311, &format!("away-{n}")) }
}

pub(crate) fn measure() -> Vec<Row> {
    vec![subscribing(), amplification("consumed at once", true), amplification("consumed later", false)]
}

/// A million messages in a hundred thousand sessions, then ten million.
pub(crate) fn queued() -> Vec<Row> {
    let (sessions, rounds) = choose((100_000, vec![10, 90]), (2_000, vec![10]));
    let mut broker = start();
    let began = Instant::now();
    make_sessions(&broker, sessions);
    let made = f64::from(sessions) / began.elapsed().as_secs_f64();
    let mut rows = vec![Row::new(
        format!("{sessions} persistent sessions made: CONNECT, SUBSCRIBE, DISCONNECT, all of them durable"),
        format!("{made:.0}/s"),
        "-",
    )];
    let mut queued = 0;
    for each in rounds {
        let rate = publish(&broker, sessions, each);
        queued += each;
        let total = u64::from(sessions) * u64::from(queued);
        let before = broker.resident_bytes() >> 20;
        let crashed = broker.crash();
        let began = Instant::now();
        broker = crashed.restart();
        let recovered = began.elapsed();
        let what = format!("{total} messages in {sessions} sessions");
        assert_eq!(broker.metric("bifro_inbox_messages") as u64, total, "nothing is lost");
        rows.push(Row::new(format!("{what}: publishing"), format!("{rate:.0}/s"), "-"));
        rows.push(Row::new(format!("{what}: resident memory"), format!("{before} MiB"), "-"));
        rows.push(Row::new(format!("{what}: start after kill -9"), format!("{recovered:.1?}"), "< 10 s at 1,000,000"));
        let waits = first_messages(&broker, sessions);
        rows.push(Row::new(
            format!("{what}: a returning session's first message, CONNECT included"),
            format!("median {:.1?}, worst of {} {:.1?}", waits[waits.len() / 2], waits.len(), waits[waits.len() - 1]),
            "< 50 ms",
        ));
    }
    rows
}

fn start() -> Broker {
    Broker::start(2, SETTINGS)
}

fn make_sessions(broker: &Broker, sessions: u32) {
    let mut swarm = Swarm::new(broker.tcp());
    for first in (0..sessions).step_by(BATCH as usize) {
        let keys: Vec<usize> = (first..sessions.min(first + BATCH)).map(|n| swarm.connect(&away(n))).collect();
        let mut done = 0;
        while done < keys.len() {
            swarm.turn(Duration::from_millis(5), |key, sender, incoming| match incoming {
                Incoming::Packet(Packet::ConnAck(_)) => {
                    let n = first + (key - keys[0]) as u32;
                    sender.subscribe([(&*format!("away/{n}"), QoS::AtLeastOnce)]);
                }
                Incoming::Packet(Packet::SubAck(_)) => {
                    let (reason, properties) = (Reason::SUCCESS, Properties::default());
                    sender.packet(&Packet::Disconnect(Disconnect { reason, properties }));
                }
                Incoming::Closed => done += 1,
                Incoming::Packet(other) => panic!("unexpected {other:?}"),
            });
        }
    }
}

/// Publishes `each` messages to each session; how many a second were acknowledged.
fn publish(broker: &Broker, sessions: u32, each: u32) -> f64 {
    let topics = (0..each).flat_map(move |_| 0..sessions).map(|n| format!("away/{n}"));
    let began = Instant::now();
    let count = publish_all(broker, topics, QoS::AtLeastOnce);
    count as f64 / began.elapsed().as_secs_f64()
}

fn publish_all(broker: &Broker, mut topics: impl Iterator<Item = String>, qos: QoS) -> u64 {
    let payload = [b'x'; PAYLOAD_BYTES];
    let mut swarm = Swarm::new(broker.tcp());
    let mut keys = Vec::new();
    for n in 0..PUBLISHERS {
        keys.push(swarm.connect(&ConnectOptions::new(Version::V311, &format!("publisher-{n}"))));
    }
    let (mut sent, mut acknowledged, mut exhausted) = (0_u64, 0_u64, false);
    let mut send = |sender: &mut Sender| match topics.next() {
        Some(topic) => {
            let id = sender.packet_id();
            sender.publish(&topic, &payload, qos, Some(id), false);
            true
        }
        None => false,
    };
    while !exhausted || acknowledged < sent {
        swarm.turn(Duration::from_millis(5), |_, sender, incoming| match incoming {
            Incoming::Packet(Packet::ConnAck(_)) => {
                for _ in 0..WINDOW {
                    if send(sender) {
                        sent += 1;
                    }
                }
            }
            Incoming::Packet(Packet::PubAck(_)) => {
                acknowledged += 1;
                if send(sender) {
                    sent += 1;
                } else {
                    exhausted = true;
                }
            }
            other => panic!("unexpected {other:?}"),
        });
    }
    acknowledged
}

/// What sessions here and there wait for their first message, in ascending order.
fn first_messages(broker: &Broker, sessions: u32) -> Vec<Duration> {
    let mut waits: Vec<Duration> = (0..200)
        .map(|n| {
            let began = Instant::now();
            let (mut client, _) = Client::connect_with(broker.tcp(), &away(n * (sessions / 200)));
            let received = client.recv();
            assert!(matches!(received.packet(), Packet::Publish(_)), "{received:?}");
            began.elapsed()
        })
        .collect();
    waits.sort();
    waits
}

/// Persistent sessions that subscribe and unsubscribe, as many requests under way as the broker takes.
fn subscribing() -> Row {
    let each: u32 = choose(10_000, 500);
    let broker = Broker::start(1, "[tenant_defaults]\nsubscriptions_per_session_max = 100000\n");
    let mut swarm = Swarm::new(broker.tcp());
    let first = (0..PUBLISHERS as u32).map(|n| swarm.connect(&away(n))).min().expect("some");
    let (mut subscribed, mut unsubscribed, mut began) = (0, 0, None);
    let total = each * PUBLISHERS as u32;
    while unsubscribed < total {
        swarm.turn(Duration::from_millis(5), |key, sender, incoming| match incoming {
            Incoming::Packet(Packet::ConnAck(_)) => {
                began.get_or_insert_with(Instant::now);
                for n in 0..each {
                    sender.subscribe([(&*format!("s/{}/{n}", key - first), QoS::AtLeastOnce)]);
                }
                for n in 0..each {
                    sender.unsubscribe(&format!("s/{}/{n}", key - first));
                }
            }
            Incoming::Packet(Packet::SubAck(suback)) => {
                assert_eq!(suback.codes, [1]);
                subscribed += 1;
            }
            Incoming::Packet(Packet::UnsubAck(_)) => unsubscribed += 1,
            other => panic!("unexpected {other:?}"),
        });
    }
    let rate = f64::from(subscribed + unsubscribed) / began.expect("connected").elapsed().as_secs_f64();
    Row::new(
        "SUBSCRIBE and UNSUBSCRIBE of persistent sessions, one core, durable",
        format!("{rate:.0} filters/s"),
        "≥ 20,000/s",
    )
}

/// Bytes written to storage per byte of payload.
fn amplification(how: &str, at_once: bool) -> Row {
    let broker = start();
    let (sessions, each) = choose((50, 20_000), (50, 1_000));
    make_sessions(&broker, sessions);
    let written = written_bytes(&broker);
    let mut swarm = Swarm::new(broker.tcp());
    if at_once {
        for n in 0..sessions {
            swarm.connect(&away(n));
        }
    }
    let total = u64::from(sessions) * u64::from(each);
    let consumer = std::thread::spawn(move || {
        let mut received = 0;
        while at_once && received < total {
            swarm.turn(Duration::from_millis(5), |_, sender, incoming| {
                if let Incoming::Packet(Packet::Publish(publish)) = incoming {
                    received += 1;
                    sender.ack(bifro_mqtt::codec::AckKind::PubAck, publish.packet_id.expect("QoS 1"));
                }
            });
        }
        // What is acknowledged is committed.
        swarm.turn(Duration::from_millis(200), |_, _, _| {});
        swarm
    });
    publish(&broker, sessions, each);
    drop(consumer.join().expect("the consumers got everything"));
    std::thread::sleep(Duration::from_secs(2));
    let log = broker.metric("bifro_wal_write_bytes_total");
    let all = (written_bytes(&broker) - written) as f64;
    let payload = (total as usize * PAYLOAD_BYTES) as f64;
    Row::new(
        format!("{total} messages of {PAYLOAD_BYTES} B, QoS 1, {how}: bytes written per byte of payload"),
        format!("{:.2} to the log, {:.2} to storage altogether", log / payload, all / payload),
        if at_once { "< 1.6" } else { "-" },
    )
}

/// What the process has sent to the storage layer (`/proc/PID/io`).
fn written_bytes(broker: &Broker) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/io", broker.pid())).expect("the broker lives");
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("it counts");
    line.parse().expect("a number")
}
