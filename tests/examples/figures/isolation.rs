//! A subscriber that never reads and a publisher that floods: memory stays within the budget, and others barely notice.

use crate::target::{pinned, unpin};
use crate::{Row, choose};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::load::{Incoming, Swarm};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BUDGET_MIB: u64 = 256;
const PAIRS: usize = 20;
const PER_SECOND: u32 = 50;
const FLOOD_PAYLOAD_BYTES: usize = 1024;

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for cores in [1, 2] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            rows.extend(measure_on(cores, qos));
        }
    }
    rows
}

fn measure_on(cores: u16, qos: QoS) -> Vec<Row> {
    let config = format!(
        "[node]\nmemory_budget_mib = {BUDGET_MIB}\n[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         auth = [\"anonymous\"]\n"
    );
    let start = || Broker::start_with(cores, &config, &[]);
    let broker = if cores == 1 { pinned(start) } else { start() };
    let span = choose(Duration::from_secs(10), Duration::from_secs(5));
    let mut pairs = Pairs::new(broker.tcp());
    pairs.run(Duration::from_secs(1));
    let quiet = pairs.run(span);
    let mut deaf = Client::connect(broker.tcp(), Version::V311, "deaf");
    deaf.subscribe("flood", qos);
    let (stop, flooded, peak) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let loud = std::thread::scope(|scope| {
        scope.spawn(|| flood(broker.tcp(), qos, &stop, &flooded));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(broker.resident_bytes(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        pairs.run(Duration::from_millis(500));
        let loud = pairs.run(span);
        stop.store(true, Ordering::Relaxed);
        loud
    });
    unpin();
    let name = format!("flood (QoS {}) to a subscriber that never reads, {cores} core(s)", qos as u8);
    let ratio = loud.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    let rate = flooded.load(Ordering::Relaxed) as f64 / span.as_secs_f64() / 1e3;
    vec![
        Row::new(
            format!("{name}: others' p99 round trip, quiet → flooded"),
            format!(
                "{:?} → {:?} ({ratio:.1} ×; p50 {:?} → {:?}; flood {rate:.0}k/s)",
                quiet.p99, loud.p99, quiet.p50, loud.p50
            ),
            "≤ 3 ×",
        ),
        Row::new(
            format!("{name}: peak resident memory"),
            format!("{} MiB", peak.load(Ordering::Relaxed) >> 20),
            "≤ 256 MiB",
        ),
    ]
}

/// Publishes as fast as the broker reads, on a thread that gives way to the one that measures.
fn flood(broker: SocketAddr, qos: QoS, stop: &AtomicBool, flooded: &AtomicU64) {
    // SAFETY: no pointers. Without it the figures are worse, nothing else.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid() as libc::id_t, 19) };
    let mut stream = TcpStream::connect(broker).expect("the broker listens");
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut reader = stream.try_clone().expect("a second handle");
    // Acknowledgements have to be read, or the flood would stop by itself.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sink = [0; 4096];
            while std::io::Read::read(&mut reader, &mut sink).is_ok_and(|count| count > 0) {}
        });
        stream.write_all(&ConnectOptions::new(Version::V311, "flooder").encode()).expect("a fresh connection");
        let mut batch = Batch::new(qos);
        while !stop.load(Ordering::Relaxed) {
            if batch.write(&mut stream) {
                flooded.fetch_add(Batch::MESSAGES, Ordering::Relaxed);
            }
        }
        // It may be closed already.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
}

/// Some PUBLISH packets, written again and again.
struct Batch {
    bytes: Vec<u8>,
    at: usize,
}

impl Batch {
    const MESSAGES: u64 = 32;

    fn new(qos: QoS) -> Self {
        let mut bytes = Vec::new();
        for id in 1..=Self::MESSAGES as u16 {
            let publish = bifro_mqtt::packet::Publish {
                dup: false,
                qos,
                retain: false,
                topic: "flood",
                packet_id: (qos != QoS::AtMostOnce).then(|| bifro_mqtt::packet::PacketId::new(id)).flatten(),
                properties: bifro_mqtt::packet::PublishProperties::default(),
                payload: &[b'f'; FLOOD_PAYLOAD_BYTES],
            };
            bifro_mqtt::codec::encode(&Packet::Publish(publish), Version::V311, &mut bytes);
        }
        Self { bytes, at: 0 }
    }

    /// True when a whole batch has gone out. A timeout only gives the caller a chance to stop.
    fn write(&mut self, stream: &mut TcpStream) -> bool {
        match stream.write(&self.bytes[self.at..]) {
            Ok(count) => self.at += count,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        let done = self.at == self.bytes.len();
        if done {
            self.at = 0;
        }
        done
    }
}

struct Latency {
    p50: Duration,
    p99: Duration,
}

/// Well-behaved clients at a fixed rate. The loop is open: latency counts from when a message was due.
struct Pairs {
    swarm: Swarm,
    publishers: Vec<usize>,
    epoch: Instant,
}

impl Pairs {
    fn new(broker: SocketAddr) -> Self {
        let mut swarm = Swarm::new(broker);
        let mut publishers = Vec::new();
        let mut subscribers = Vec::new();
        for number in 0..PAIRS {
            subscribers.push(swarm.connect(&ConnectOptions::new(Version::V311, &format!("quiet-sub-{number}"))));
            publishers.push(swarm.connect(&ConnectOptions::new(Version::V311, &format!("quiet-pub-{number}"))));
        }
        let mut ready = 0;
        while ready < 2 * PAIRS {
            swarm.turn(Duration::from_millis(10), |key, sender, incoming| match incoming {
                Incoming::Packet(Packet::ConnAck(_)) => match subscribers.iter().position(|&one| one == key) {
                    Some(number) => drop(sender.subscribe([(&*format!("quiet/{number}"), QoS::AtMostOnce)])),
                    None => ready += 1,
                },
                Incoming::Packet(Packet::SubAck(_)) => ready += 1,
                other => panic!("unexpected: {other:?}"),
            });
        }
        Self { swarm, publishers, epoch: Instant::now() }
    }

    fn run(&mut self, span: Duration) -> Latency {
        let interval = Duration::from_secs(1) / (PER_SECOND * PAIRS as u32);
        let epoch = self.epoch;
        let start = epoch.elapsed();
        let mut latencies: Vec<Duration> = Vec::new();
        let mut sent = 0_u32;
        while epoch.elapsed() < start + span {
            let now = epoch.elapsed();
            while start + interval * sent <= now {
                let number = sent as usize % PAIRS;
                let due = (start + interval * sent).as_nanos() as u64;
                let sender = self.swarm.sender(self.publishers[number]).expect("nobody closes well-behaved clients");
                sender.publish(&format!("quiet/{number}"), &due.to_be_bytes(), QoS::AtMostOnce, None, false);
                sent += 1;
            }
            self.swarm.turn(Duration::ZERO, |_, _, incoming| match incoming {
                Incoming::Packet(Packet::Publish(publish)) => {
                    let due = u64::from_be_bytes(publish.payload.try_into().expect("eight bytes"));
                    let latency = epoch.elapsed().saturating_sub(Duration::from_nanos(due));
                    if Duration::from_nanos(due) >= start {
                        latencies.push(latency);
                    }
                }
                other => panic!("unexpected: {other:?}"),
            });
        }
        latencies.sort_unstable();
        assert!(latencies.len() as u32 >= sent * 9 / 10, "only {} of {sent} messages came", latencies.len());
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Latency { p50: at(0.5), p99: at(0.99) }
    }
}
