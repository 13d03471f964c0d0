//! A data directory that is not as it was left, and a disk that is full: what the operator is told, and what goes on.

use crate::persistent;
use crate::power_loss::Disk;
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{AtLeastOnce, AtMostOnce};
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::process::{Crashed, binaries};
use bifro_tests::{Broker, Client};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Small checkpoints of one range, so that a test's messages reach the base.
const SMALL: &str = "[store]\nranges = 1\ncheckpoint_mib = 16\n[tenant_defaults]\ninbox_messages_max = 100000\n";

/// A broker that was killed with `count` messages of 1 KiB in the queue of the session "away".
fn killed_with(count: usize) -> Crashed {
    let broker = Broker::start(1, SMALL);
    let (mut client, _) = Client::connect_with(broker.tcp(), &persistent(V311, "away"));
    client.subscribe("q", AtLeastOnce);
    client.disconnect();
    let mut publisher = Client::connect(broker.tcp(), V311, "publisher");
    for n in 0..count {
        publisher.publish("q", &[b'x'; 1_024], AtLeastOnce, false);
        if n % 100 == 99 {
            (0..100).for_each(|_| drop(publisher.recv()));
        }
    }
    if count > 10_000 {
        broker.wait_for_metric("bifro_kv_checkpoints_total", |checkpoints| checkpoints > 0.0);
    }
    broker.crash()
}

/// Tries to start in the directory; what the process says when it ends.
fn refusal(crashed: &Crashed) -> String {
    // Should it start after all, it is not waited for.
    let output = Command::new("timeout")
        .arg("20")
        .arg(binaries().join("bifro-uring"))
        .args(["--cores", "1", "--config"])
        .arg(crashed.dir.join("node.toml"))
        .output()
        .expect("the binary starts");
    assert!(!output.status.success(), "it must not start");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry, suffix));
        } else if entry.to_string_lossy().ends_with(suffix) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("writable");
}

#[test]
fn a_directory_of_a_newer_version_or_of_something_else_is_left_alone() {
    let crashed = killed_with(10);
    let marker = crashed.dir.join("data/FORMAT");
    for (text, expected) in
        [("bifro-uring data format 2\n", "start the newer version"), ("mosquitto\n", "no data directory")]
    {
        std::fs::write(&marker, text).expect("written");
        let said = refusal(&crashed);
        assert!(said.contains(expected) && said.contains("/data"), "{said}");
        assert_eq!(std::fs::read_to_string(&marker).expect("there"), text);
    }
    std::fs::remove_dir_all(&crashed.dir).expect("removed");
}

#[test]
fn a_flipped_bit_in_the_log_is_told_by_file_and_place_and_nothing_is_cut_off() {
    let crashed = killed_with(2_000);
    let log = files(&crashed.dir.join("data/wal"), ".raftlog").remove(0);
    let before = std::fs::metadata(&log).expect("there").len();
    flip(&log, 300_000);
    let said = refusal(&crashed);
    assert!(said.contains("raftlog") && said.contains("damaged") && said.contains("restore"), "{said}");
    assert_eq!(std::fs::metadata(&log).expect("there").len(), before);
    // Mended, it starts, and has everything.
    flip(&log, 300_000);
    let broker = crashed.restart();
    assert_eq!(broker.metric("bifro_inbox_messages"), 2_000.0);
}

#[test]
fn half_a_record_at_the_end_of_the_log_is_what_a_crash_leaves_and_is_cut_off() {
    let crashed = killed_with(100);
    let log = files(&crashed.dir.join("data/wal"), ".raftlog").remove(0);
    let mut bytes = std::fs::read(&log).expect("readable");
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    // The beginning of a record that was never finished: a copy of the file's first one, cut.
    let torn: Vec<u8> = bytes[16..80].to_vec();
    bytes.truncate(end);
    bytes.extend_from_slice(&torn);
    std::fs::write(&log, bytes).expect("writable");
    let broker = crashed.restart();
    assert_eq!(broker.metric("bifro_inbox_messages"), 100.0);
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_told_and_the_node_does_not_start_on_half_its_data() {
    let crashed = killed_with(20_000);
    // The payloads are all of one letter: where they are is the data.
    let holds_data = |bytes: &[u8]| bytes.windows(64).position(|window| window == [b'x'; 64]);
    let (victim, middle) = (files(&crashed.dir.join("data/kv"), "").into_iter())
        .find_map(|path| holds_data(&std::fs::read(&path).ok()?).map(|at| (path, at)))
        .expect("a checkpoint");
    flip(&victim, middle);
    let said = refusal(&crashed);
    assert!(said.contains("restore the data directory"), "{said}");
    flip(&victim, middle);
    let broker = crashed.restart();
    assert_eq!(broker.metric("bifro_inbox_messages"), 20_000.0);
}

/// HOSTILE: a full disk refuses what is new, with a reason, and lets everybody consume what there is.
#[test]
fn a_full_disk_refuses_new_messages_and_consumption_makes_room() {
    let Some(disk) = Disk::sized("96M") else { return };
    let settings = "[tenant_defaults]\ninbox_messages_max = 1000000\n";
    let broker = Broker::start_with(1, &disk.config("fsync", 40, settings), &[]);
    let options = persistent(V5, "away");
    let (mut client, _) = Client::connect_with(broker.tcp(), &options);
    client.subscribe("q", AtLeastOnce);
    client.subscribe("q0", AtMostOnce);
    client.disconnect();
    let mut publisher = Client::connect(broker.tcp(), V5, "publisher");
    let payload = [b'x'; 16 << 10];
    let mut stored = 0;
    loop {
        let reason = {
            let id = publisher.publish("q", &payload, AtLeastOnce, false);
            let received = publisher.recv();
            let Packet::PubAck(ack) = received.packet() else { panic!("not a PUBACK: {received:?}") };
            assert_eq!(Some(ack.packet_id), id);
            ack.reason
        };
        if reason == Reason::QUOTA_EXCEEDED {
            break;
        }
        assert_eq!(reason, Reason::SUCCESS);
        stored += 1;
        assert!(stored < 20_000, "the disk never fills");
    }
    assert!(stored > 100 && broker.metric("bifro_wal_space_short") == 1.0);
    let (mut client, _) = Client::connect_with(broker.tcp(), &options);
    assert_eq!(client.recv_publishes(stored).len(), stored);
    client.disconnect();
    let crashed = broker.crash();
    let broker = crashed.restart();
    assert!(broker.metric("bifro_inbox_messages") <= 200.0, "what was consumed is gone, but for what was on its way");
}
