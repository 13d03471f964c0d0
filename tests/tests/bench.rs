//! The load generator against the real broker: every subcommand for a moment, without loss, duplicates or reordering; and
//! against its own sink made faulty, which its checker must find.

use bifro_tests::process::{Broker, binaries, fresh_dir};
use bifro_tests::tls::Authority;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// One broker for all tests.
fn broker() -> SocketAddr {
    static BROKER: OnceLock<&'static Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(2, "").leave_running()).tcp()
}

/// What a run printed, its exit code, and its result.
struct Run {
    text: String,
    code: Option<i32>,
    json: Value,
}

/// Runs the generator with the words of `line` against `target`.
#[track_caller]
fn bench(target: SocketAddr, line: &str) -> Run {
    let dir = fresh_dir("bench");
    let json = dir.join("result.json");
    let output = Command::new(binaries().join("bifro-bench"))
        .args(line.split_whitespace())
        .args(["--target", &target.to_string(), "--duration", "0.5", "--warm-up", "0.1", "--json"])
        .arg(&json)
        .output()
        .expect("the generator runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read(&json).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let _ = std::fs::remove_dir_all(dir);
    Run { text, code: output.status.code(), json }
}

/// A run in which every check holds and something was measured.
#[track_caller]
fn assert_good(line: &str) -> Value {
    let run = bench(broker(), line);
    assert_eq!(run.code, Some(0), "{line}:\n{}", run.text);
    run.json
}

#[track_caller]
fn assert_received(line: &str) {
    let json = assert_good(line);
    assert!(json["findings"]["received"].as_u64() > Some(0), "{line}: {json}");
    assert!(json["latency"]["count"].as_u64() > Some(0), "{line}: {json}");
}

#[test]
fn pairs_in_every_version_and_quality_of_service() {
    for protocol in ["3.1", "3.1.1", "5"] {
        for qos in 0..=2 {
            assert_received(&format!("pair --pairs 4 --window 20 --protocol {protocol} --qos {qos} --seed 10{qos}"));
        }
    }
}

#[test]
fn through_tls_websocket_and_both() {
    let authority = Authority::new("bench");
    let identity = authority.issue("broker", &["127.0.0.1"], false);
    let listeners: String = ["tls", "ws", "wss"]
        .map(|protocol| {
            let tls = match protocol {
                "ws" => "",
                _ => "tls = { certificate = \"cert.pem\", key = \"key.pem\" }\n",
            };
            format!("[[listener]]\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n{tls}")
        })
        .concat();
    let ca = authority.pem();
    let files = [
        ("cert.pem", identity.certificate.as_bytes()),
        ("key.pem", identity.key.as_bytes()),
        ("ca.pem", ca.as_bytes()),
    ];
    let broker = Broker::start_with(2, &listeners, &files);
    let trust = format!("--ca {}", broker.dir.join("ca.pem").display());
    for (protocol, transport) in
        [("tls", format!("--tls {trust}")), ("ws", "--ws".to_owned()), ("wss", "--tls --ws --insecure".to_owned())]
    {
        for load in ["pair --pairs 4 --qos 2 --payload 70000 --window 4", "conn --churn --connections 4", "takeover"] {
            let run = bench(broker.address(protocol), &format!("{load} {transport}"));
            assert_eq!(run.code, Some(0), "{protocol}, {load}:\n{}", run.text);
        }
    }
    let run = bench(broker.address("tls"), "pair --tls --ca /nowhere.pem");
    assert!(run.code != Some(0) && run.text.contains("/nowhere.pem"), "{}", run.text);
    let run = bench(broker.address("tls"), "pair --tls");
    assert!(run.code != Some(0) && run.text.contains("--insecure"), "{}", run.text);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let json = assert_good("pair --pairs 4 --rate 2000 --qos 1 --seed 2");
    let rate = json["published_per_s"].as_f64().unwrap_or_default();
    assert!((1800.0..2200.0).contains(&rate), "{rate}");
}

#[test]
fn two_cores_and_persistent_sessions() {
    assert_received("pair --pairs 4 --window 20 --qos 1 --cores 2 --persistent --seed 3");
    assert_received("fanout --subscribers 20 --window 20 --cores 2 --seed 3");
}

#[test]
fn fan_out_fan_in_and_wildcards() {
    assert_received("fanout --publishers 2 --subscribers 50 --window 20 --seed 4");
    assert_received("fanin --publishers 10 --members 3 --window 20 --qos 1 --seed 4");
    assert_received("tree --publishers 32 --subscribers 12 --window 20 --seed 4");
}

#[test]
fn a_mix_by_weights() {
    let dir = fresh_dir("mix");
    std::fs::write(dir.join("mix.toml"), "pair = 2\nfanout = 1\nfanin = 2\ntree = 1\n").expect("a file");
    assert_received(&format!("mix --publishers 12 --window 10 --seed 5 --weights {}", dir.join("mix.toml").display()));
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn idle_connections_and_connections_that_come_and_go() {
    let json = assert_good("conn --connections 200 --seed 6");
    assert_eq!(json["connections"], 200);
    let json = assert_good("conn --connections 10 --churn --seed 7");
    assert!(json["received_per_s"].as_f64() > Some(0.0), "{json}");
}

#[test]
fn retained_messages_sessions_and_takeovers() {
    for qos in 0..=2 {
        let json = assert_good(&format!("retain --topics 200 --replays 2 --qos {qos} --seed 8{qos}"));
        assert_eq!(json["findings"]["received"], 400);
    }
    for qos in 1..=2 {
        let json = assert_good(&format!("session --sessions 5 --messages 100 --qos {qos} --protocol 5 --seed 9{qos}"));
        assert_eq!(json["findings"]["received"], 500);
    }
    let json = assert_good("takeover --seed 10");
    assert!(json["connections"].as_u64() > Some(2), "{json}");
}

#[test]
fn the_page_is_written() {
    let dir = fresh_dir("page");
    let page = dir.join("page.html");
    assert_received(&format!("pair --pairs 2 --window 5 --seed 11 --html {}", page.display()));
    let text = std::fs::read_to_string(&page).expect("a page");
    assert!(text.contains("<svg") && !text.contains("src="));
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn a_broker_that_is_not_there_is_a_failure_that_says_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let run = bench(nobody, "pair --pairs 1");
    assert_eq!(run.code, Some(1), "{}", run.text);
    assert!(run.text.contains("refused"), "{}", run.text);
}

/// The generator's own peer; ended when dropped.
struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    fn start(binary: &Path, faults: &[&str]) -> Self {
        let mut command = Command::new(binary);
        command.args(["sink", "--bind", "127.0.0.1:0"]).args(faults);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the sink starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .expect("it says its address");
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address");
        Self { child, address }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_broker_that_loses_duplicates_or_reorders_is_found() {
    let binary = binaries().join("bifro-bench");
    for (fault, found) in [("drop", "lost"), ("duplicate", "duplicates"), ("reorder", "reordered")] {
        let sink = Sink::start(&binary, &["--fault", fault, "--every", "50"]);
        let run = bench(sink.address, "pair --pairs 2 --rate 1000");
        assert_eq!(run.code, Some(1), "{fault}:\n{}", run.text);
        let is_named = run.text.lines().any(|line| line.starts_with("FAILED") && line.contains(found));
        assert!(is_named, "{fault}:\n{}", run.text);
    }
    let sink = Sink::start(&binary, &[]);
    let run = bench(sink.address, "pair --pairs 2 --rate 1000 --qos 1");
    assert_eq!(run.code, Some(0), "without a fault:\n{}", run.text);
}
