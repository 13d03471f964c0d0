//! Instructions the broker executes per message, counted by callgrind in a release build of the whole process: a figure that
//! noisy machines do not blur. What the kernel does is not in it.
//!
//! `instructions` compares with the record in `bench/instructions.toml` and fails if a path has become worse by more than
//! 10 %; `--update` writes the record, `--keep DIR` keeps the dumps for callgrind_annotate. `scripts/instructions.sh` builds
//! what is needed and runs this.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::{AckKind, encode, encode_ack};
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Worse by more than this fails.
const TOLERANCE: f64 = 0.10;
/// Messages on their way at a time; the broker gets them in one write.
const WINDOW: u16 = 100;
const PAYLOAD_BYTES: usize = 256;
const FANOUT: usize = 100;
/// Windows before counting, so that caches and tables are there.
const WARM_UP: usize = 5;

const TOOL: &[&str] = &[
    "valgrind",
    "--tool=callgrind",
    "--fair-sched=yes",
    "--compress-strings=no",
    "--callgrind-out-file={dir}/out",
    "--quiet",
];

/// One way through the broker.
struct Way {
    name: &'static str,
    /// Windows counted.
    windows: usize,
    /// Messages delivered, stored or (for connections) accepted per window.
    per_window: usize,
    /// Sets up and returns what runs one window.
    prepare: fn(SocketAddr) -> Box<dyn FnMut()>,
}

const WAYS: &[Way] = &[
    Way { name: "pair_qos0", windows: 100, per_window: WINDOW as usize, prepare: |at| pair(at, QoS::AtMostOnce) },
    Way { name: "pair_qos1", windows: 100, per_window: WINDOW as usize, prepare: |at| pair(at, QoS::AtLeastOnce) },
    Way { name: "fanout_qos0", windows: 10, per_window: WINDOW as usize * FANOUT, prepare: fanout },
    Way { name: "stored_qos1", windows: 50, per_window: WINDOW as usize, prepare: stored },
    Way { name: "connection", windows: 5, per_window: WINDOW as usize, prepare: connections },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let update = arguments.iter().any(|argument| argument == "--update");
    let keep = arguments.iter().position(|argument| argument == "--keep").and_then(|at| arguments.get(at + 1));
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/instructions.toml");
    let before: BTreeMap<String, u64> = toml::from_str(&std::fs::read_to_string(&record).unwrap_or_default())
        .unwrap_or_else(|error| panic!("{}: {error}", record.display()));
    let counted = count(keep.map(Path::new));
    if update {
        write(&record, &counted);
        return ExitCode::SUCCESS;
    }
    let mut worse = false;
    for (name, now) in &counted {
        let Some(&before) = before.get(*name) else {
            eprintln!("{name} is not in {}: run scripts/instructions.sh --update", record.display());
            worse = true;
            continue;
        };
        let change = *now as f64 / before as f64 - 1.0;
        let verdict = if change > TOLERANCE { "WORSE" } else { "ok" };
        worse |= change > TOLERANCE;
        eprintln!("{name:12} {before:>8} -> {now:>8} instructions each ({:+.1} %) {verdict}", change * 100.0);
    }
    if worse {
        eprintln!("if that is the price of something worth it, record it: scripts/instructions.sh --update");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write(record: &Path, counted: &[(&'static str, u64)]) {
    let mut text = String::from(
        "# Instructions in user space per message delivered (pair, fan-out), per message stored for an absent session, and per\n\
         # connection that comes and goes: one shard, release build, 256 B, windows of 100. scripts/instructions.sh checks and updates.\n",
    );
    for (name, instructions) in counted {
        text += &format!("{name} = {instructions}\n");
    }
    std::fs::write(record, text).expect("the record can be written");
}

/// All ways in one broker under callgrind.
fn count(keep: Option<&Path>) -> Vec<(&'static str, u64)> {
    let broker = start();
    let mut dumps = 0;
    let mut counted = Vec::new();
    for Way { name, windows, per_window, prepare } in WAYS {
        let mut window = prepare(broker.tcp());
        (0..WARM_UP).for_each(|_| window());
        control(&broker, "--zero");
        (0..*windows).for_each(|_| window());
        control(&broker, "--dump");
        dumps += 1;
        let dump = broker.dir.join(format!("out.{dumps}"));
        counted.push((*name, total(&dump) / (windows * per_window) as u64));
        if let Some(keep) = keep {
            std::fs::copy(&dump, keep.join(format!("callgrind.{name}"))).expect("the dump can be kept");
        }
    }
    counted
}

/// Starts the broker under callgrind. valgrind lets no thread run while another one is inside `io_uring_enter`, asleep or not, so
/// the shard has to be kept awake for the others to get ready. For the same reason nothing is kept on disk: the log's thread would wait for
/// the shard, and the shard for it.
fn start() -> Broker {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let config = format!(
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:{port}\"\nauth = [\"anonymous\"]\n[store]\n\
         durability = \"volatile\"\n[tenant_defaults]\ninbox_messages_max = 100000\nsend_maximum = 1000\nreceive_maximum = 1000\n[log.events]\n\
         client_connected = \"off\"\nby_client = \"off\"\nchannel_error = \"off\"\n"
    );
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ready.load(Ordering::Relaxed) {
                drop(TcpStream::connect(("127.0.0.1", port)));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let _done = SetOnDrop(&ready);
        Broker::start_under(TOOL, 1, &config)
    })
}

/// Ends the nudging, however the start ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn control(broker: &Broker, order: &str) {
    let status = Command::new("callgrind_control").args([order, &broker.pid().to_string()]).output();
    let output = status.expect("valgrind is installed");
    assert!(output.status.success(), "callgrind_control {order}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Instructions of all threads in a dump.
fn total(dump: &PathBuf) -> u64 {
    let text = std::fs::read_to_string(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).unwrap_or_else(|| panic!("no total in {}", dump.display()))
}

/// A window of messages in one piece, with packet ids 1 to [`WINDOW`] above QoS 0.
fn publishes(topic: &str, qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 1..=WINDOW {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: (qos != QoS::AtMostOnce).then(|| PacketId::new(id)).flatten(),
            properties: PublishProperties::default(),
            payload: &[b'x'; PAYLOAD_BYTES],
        };
        encode(&Packet::Publish(publish), Version::V311, &mut bytes);
    }
    bytes
}

/// Takes a window of messages in, then acknowledges all of them in one piece.
fn take_in(subscriber: &mut Client) {
    let mut acks = Vec::new();
    for _ in 0..WINDOW {
        let received = subscriber.recv();
        let Packet::Publish(publish) = received.packet() else { panic!("unexpected: {received:?}") };
        if let Some(packet_id) = publish.packet_id {
            encode_ack(AckKind::PubAck, packet_id, &mut acks);
        }
    }
    subscriber.send_bytes(&acks);
}

fn acknowledged(publisher: &mut Client, qos: QoS) {
    for _ in 0..if qos == QoS::AtMostOnce { 0 } else { WINDOW } {
        publisher.recv();
    }
}

fn pair(broker: SocketAddr, qos: QoS) -> Box<dyn FnMut()> {
    let topic = format!("pair/{}", qos as u8);
    let mut subscriber = Client::connect(broker, Version::V311, &format!("{topic}/subscriber"));
    subscriber.subscribe(&topic, qos);
    let mut publisher = Client::connect(broker, Version::V311, &format!("{topic}/publisher"));
    let bytes = publishes(&topic, qos);
    Box::new(move || {
        publisher.send_bytes(&bytes);
        take_in(&mut subscriber);
        acknowledged(&mut publisher, qos);
    })
}

fn fanout(broker: SocketAddr) -> Box<dyn FnMut()> {
    let mut subscribers: Vec<Client> =
        (0..FANOUT).map(|number| Client::connect(broker, Version::V311, &format!("fanout/{number}"))).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("fanout", QoS::AtMostOnce);
    }
    let mut publisher = Client::connect(broker, Version::V311, "fanout/publisher");
    let bytes = publishes("fanout", QoS::AtMostOnce);
    Box::new(move || {
        publisher.send_bytes(&bytes);
        subscribers.iter_mut().for_each(take_in);
    })
}

fn stored(broker: SocketAddr) -> Box<dyn FnMut()> {
    let options = ConnectOptions { clean: false, ..ConnectOptions::new(Version::V311, "stored/subscriber") };
    let (mut subscriber, _) = Client::connect_with(broker, &options);
    subscriber.subscribe("stored", QoS::AtLeastOnce);
    subscriber.disconnect();
    let mut publisher = Client::connect(broker, Version::V311, "stored/publisher");
    let bytes = publishes("stored", QoS::AtLeastOnce);
    Box::new(move || {
        publisher.send_bytes(&bytes);
        acknowledged(&mut publisher, QoS::AtLeastOnce);
    })
}

/// All of a window at a time: how often the shard turns for each is then not the machine's choice.
fn connections(broker: SocketAddr) -> Box<dyn FnMut()> {
    Box::new(move || {
        let connecting = (0..WINDOW).map(|number| {
            let mut client = Client::open(broker, Version::V311);
            client.send_bytes(&ConnectOptions::new(Version::V311, &format!("passing/{number}")).encode());
            client
        });
        let mut clients: Vec<Client> = connecting.collect();
        for client in &mut clients {
            let answer = client.recv();
            assert!(matches!(answer.packet(), Packet::ConnAck(_)), "{answer:?}");
        }
        clients.into_iter().for_each(Client::disconnect);
    })
}
