//! A subscriber that never reads and a publisher that floods: memory stays within the budget, and others barely notice.

use crate::target::{cpu_of, pinned, unpin};
use crate::{Row, choose};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::encode;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::load::{Incoming, Swarm};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::fmt::{Display, Formatter};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BUDGET_MIB: u64 = 256;
const PAIRS: usize = 20;
const PER_SECOND: u32 = 50;
const FLOOD_PAYLOAD_BYTES: usize = 1024;
const FLOOD_WRITE_BYTES: usize = 64 << 10;

/// Where the flooder's connection is, seen from its subscriber's.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    OneCore,
    SameShard,
    OtherShard,
}

impl Layout {
    const fn cores(self) -> u16 {
        match self {
            Self::OneCore => 1,
            Self::SameShard | Self::OtherShard => 2,
        }
    }
}

impl Display for Layout {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OneCore => "1 core",
            Self::SameShard => "2 cores, both on one shard",
            Self::OtherShard => "2 cores, each on its own shard",
        })
    }
}

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for layout in [Layout::OneCore, Layout::SameShard, Layout::OtherShard] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            rows.extend(measure_on(layout, qos));
        }
    }
    rows
}

fn measure_on(layout: Layout, qos: QoS) -> Vec<Row> {
    let config = format!(
        "[node]\nmemory_budget_mib = {BUDGET_MIB}\n[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
         auth = [\"anonymous\"]\n"
    );
    let start = || Broker::start_with(layout.cores(), &config, &[]);
    let broker = if layout == Layout::OneCore { pinned(start) } else { start() };
    let mut pairs = Pairs::new(broker.tcp());
    pairs.run(Duration::from_secs(1));
    let (mut deaf, shard) = landing(&broker, || Client::connect(broker.tcp(), Version::V311, "deaf"));
    deaf.subscribe("flood", qos);
    let flooder = connect_flooder(&broker, shard, layout != Layout::OtherShard);
    let flood = Flood::default();
    let sink = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let sink_address = sink.local_addr().expect("it is bound");
    let control = Flood::default();
    let (mut quiet, mut aside, mut loud) = (Phase::default(), Phase::default(), Phase::default());
    std::thread::scope(|scope| {
        // Before anything can fail: the scope waits for the flooder.
        let _stop = (StopOnDrop(&flood.stop), StopOnDrop(&control.stop));
        scope.spawn(|| swallow(&sink));
        scope.spawn(|| flood.run(flooder, qos));
        scope.spawn(|| control.run(TcpStream::connect(sink_address).expect("the sink listens"), qos));
        precede_others();
        // In turn, so that whatever else the machine does falls on all alike.
        for round in 0..3 * choose(5, 3) {
            flood.on.store(round % 3 == 2, Ordering::Relaxed);
            control.on.store(round % 3 == 1, Ordering::Relaxed);
            // What was on its way when the phase changed belongs to neither.
            pairs.run(Duration::from_millis(500));
            match round % 3 {
                0 => quiet.measure(&broker, &flood, &mut pairs),
                1 => aside.measure(&broker, &control, &mut pairs),
                _ => loud.measure(&broker, &flood, &mut pairs),
            }
        }
    });
    unpin();
    rows_of(layout, qos, quiet, &aside.summary(), loud)
}

fn rows_of(layout: Layout, qos: QoS, quiet: Phase, aside: &Summary, loud: Phase) -> Vec<Row> {
    let name = format!("flood (QoS {}) to a subscriber that never reads, {layout}", qos as u8);
    let peak = loud.peak_bytes.max(quiet.peak_bytes);
    let (quiet, loud) = (quiet.summary(), loud.summary());
    let ratio = loud.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    vec![
        Row::new(
            format!("{name}: others' p99 round trip, quiet → flooded"),
            format!("{quiet} → {loud} ({ratio:.1} ×); the same flood into a sink: {aside}"),
            "≤ 3 ×",
        ),
        Row::new(format!("{name}: peak resident memory"), format!("{} MiB", peak >> 20), "≤ 256 MiB"),
    ]
}

/// What `connect` made, and the shard on which its connection landed.
fn landing<T>(broker: &Broker, connect: impl FnOnce() -> T) -> (T, usize) {
    let before = broker.metric_by_shard("bifro_connections_accepted_total");
    let connected = connect();
    let deadline = Instant::now() + bifro_tests::PATIENCE;
    loop {
        let after = broker.metric_by_shard("bifro_connections_accepted_total");
        if let Some(shard) = (0..after.len()).find(|&shard| after[shard] > before[shard]) {
            return (connected, shard);
        }
        assert!(Instant::now() < deadline, "no shard accepted the connection");
    }
}

/// The kernel chooses the shard: connects until it has chosen `shard`, or another one.
fn connect_flooder(broker: &Broker, shard: usize, same: bool) -> TcpStream {
    loop {
        let (stream, landed) = landing(broker, || TcpStream::connect(broker.tcp()).expect("the broker listens"));
        if (landed == shard) == same {
            return stream;
        }
    }
}

/// What was measured in all phases of one kind.
#[derive(Default)]
struct Phase {
    latencies: Vec<Duration>,
    elapsed: Duration,
    cpu: Duration,
    flooded_bytes: u64,
    peak_bytes: u64,
}

impl Phase {
    fn measure(&mut self, broker: &Broker, flood: &Flood, pairs: &mut Pairs) {
        let (start, cpu, bytes) = (Instant::now(), cpu_of(broker.pid()), flood.bytes.load(Ordering::Relaxed));
        self.latencies.extend(pairs.run(Duration::from_secs(2)));
        self.elapsed += start.elapsed();
        self.cpu += cpu_of(broker.pid()) - cpu;
        self.flooded_bytes += flood.bytes.load(Ordering::Relaxed) - bytes;
        self.peak_bytes = self.peak_bytes.max(broker.resident_bytes());
    }

    fn summary(mut self) -> Summary {
        self.latencies.sort_unstable();
        let at = |share: f64| self.latencies[((self.latencies.len() - 1) as f64 * share) as usize];
        let seconds = self.elapsed.as_secs_f64();
        Summary {
            p50: at(0.5),
            p99: at(0.99),
            flooded_per_s: self.flooded_bytes as f64 / FLOOD_PAYLOAD_BYTES as f64 / seconds,
            cpu_percent: 100.0 * self.cpu.as_secs_f64() / seconds,
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, flooded_per_s, cpu_percent } = self;
        write!(f, "p99 {p99:.0?}, p50 {p50:.0?}, flood {:.0}k/s, broker CPU {cpu_percent:.0} %", flooded_per_s / 1e3)
    }
}

/// Lets this thread run as soon as it has something to do, so that what is measured is the broker's delay, and not how long
/// the flooder keeps the generator's CPU. Refused without privileges; then the control shows how much that is.
fn precede_others() {
    schedule(libc::SCHED_FIFO, 1);
}

/// Sets how this thread is scheduled; those it starts from now on are not more than ordinary.
fn schedule(policy: libc::c_int, priority: libc::c_int) {
    let parameters = libc::sched_param { sched_priority: priority };
    let policy = if policy == libc::SCHED_FIFO { policy | libc::SCHED_RESET_ON_FORK } else { policy };
    // SAFETY: the parameters outlive the call.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0 {
        eprintln!("the figures are worse for it: sched_setscheduler: {}", std::io::Error::last_os_error());
    }
}

/// Takes whatever comes on one connection.
fn swallow(sink: &TcpListener) {
    schedule(libc::SCHED_IDLE, 0);
    let (mut stream, _) = sink.accept().expect("the control flood connects");
    let mut scratch = vec![0; 64 << 10];
    while std::io::Read::read(&mut stream, &mut scratch).is_ok_and(|count| count > 0) {}
}

/// Ends the flooder, however the measurement ends.
struct StopOnDrop<'f>(&'f AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Publishes as fast as the broker reads, while it is on.
#[derive(Default)]
struct Flood {
    on: AtomicBool,
    stop: AtomicBool,
    bytes: AtomicU64,
}

impl Flood {
    /// On threads that give way to whoever else wants to run: the delay is to be the broker's, not the machine's.
    fn run(&self, mut stream: TcpStream, qos: QoS) {
        schedule(libc::SCHED_IDLE, 0);
        stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let mut reader = stream.try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            // Acknowledgements have to be read, or the flood would stop by itself.
            scope.spawn(move || {
                let mut sink = [0; 4096];
                while std::io::Read::read(&mut reader, &mut sink).is_ok_and(|count| count > 0) {}
            });
            stream.write_all(&ConnectOptions::new(Version::V311, "flooder").encode()).expect("a fresh connection");
            let (bytes, mut at) = (flood_packets(qos), 0);
            while !self.stop.load(Ordering::Relaxed) {
                if !self.on.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let end = bytes.len().min(at + FLOOD_WRITE_BYTES);
                match stream.write(&bytes[at..end]) {
                    Ok(count) => {
                        at = (at + count) % bytes.len();
                        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("the flooder was closed: {error}"),
                }
            }
            // It may be closed already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
    }
}

/// PUBLISH packets to be written again and again. There are many more of them than the broker takes without acknowledging, so
/// that no packet id is used again before its acknowledgement [MQTT-2.3.1-2].
fn flood_packets(qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 1..=4096 {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: "flood",
            packet_id: (qos != QoS::AtMostOnce).then(|| PacketId::new(id)).flatten(),
            properties: PublishProperties::default(),
            payload: &[b'f'; FLOOD_PAYLOAD_BYTES],
        };
        encode(&Packet::Publish(publish), Version::V311, &mut bytes);
    }
    bytes
}

/// One kind of phase in figures.
struct Summary {
    p50: Duration,
    p99: Duration,
    flooded_per_s: f64,
    cpu_percent: f64,
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

    /// Latencies of everything sent within `span`. It is waited for the last of them: to leave out what is still on its way
    /// would leave out the slowest.
    fn run(&mut self, span: Duration) -> Vec<Duration> {
        let interval = Duration::from_secs(1) / (PER_SECOND * PAIRS as u32);
        let (epoch, start) = (self.epoch, self.epoch.elapsed());
        let count = (span.as_nanos() / interval.as_nanos()) as u32;
        let mut latencies: Vec<Duration> = Vec::new();
        let mut sent = 0_u32;
        while latencies.len() < count as usize {
            let now = epoch.elapsed();
            assert!(now < start + span + bifro_tests::PATIENCE, "only {} of {count} messages came", latencies.len());
            while sent < count && start + interval * sent <= now {
                let number = sent as usize % PAIRS;
                let due = (start + interval * sent).as_nanos() as u64;
                let sender = self.swarm.sender(self.publishers[number]).expect("nobody closes well-behaved clients");
                sender.publish(&format!("quiet/{number}"), &due.to_be_bytes(), QoS::AtMostOnce, None, false);
                sent += 1;
            }
            let due = if sent < count { (start + interval * sent).saturating_sub(epoch.elapsed()) } else { interval };
            self.swarm.turn(due, |_, _, incoming| match incoming {
                Incoming::Packet(Packet::Publish(publish)) => {
                    let due = u64::from_be_bytes(publish.payload.try_into().expect("eight bytes"));
                    latencies.push(epoch.elapsed().saturating_sub(Duration::from_nanos(due)));
                }
                other => panic!("unexpected: {other:?}"),
            });
        }
        latencies
    }
}
