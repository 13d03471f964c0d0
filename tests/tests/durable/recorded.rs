//! The data directory of a node of version 0.1 as it was killed: `tests/fixtures/v0.1/data`. This version starts on a copy and has all that is in it.
//!
//! ```sh
//! BIFRO_RECORD=1 cargo test -p bifro-tests --test durable recorded    # records it anew, after a change on purpose
//! ```
//! If this version cannot read it, and that is on purpose, `FORMAT` in store/src/data_dir.rs has to change first: then an older version refuses
//! what a newer one has written, in words. And whoever updates needs a way from the old one to the new.

use crate::payload;
use bifro_core::client::Version::{V5, V311};
use bifro_core::message::QoS::{AtLeastOnce, ExactlyOnce};
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_tests::cluster::{SECRET, free_address, node, table};
use bifro_tests::foreign::checkout;
use bifro_tests::process::fresh_dir;
use bifro_tests::{Broker, Client, ConnectOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sessions may be kept for ever: a recording is read years later.
const ENDLESS: &str = "[tenant_defaults]\nsession_expiry_max_s = 4294967295\n";

fn recorded() -> PathBuf {
    checkout().join("tests/fixtures/v0.1/data")
}

/// A session that never ends, where [`ENDLESS`] lets it.
fn endless(version: bifro_core::client::Version, client_id: &str) -> ConnectOptions {
    let mut options = ConnectOptions { clean: false, ..ConnectOptions::new(version, client_id) };
    if version == V5 {
        PropertyWriter::new(&mut options.properties).u32(PropertyId::SessionExpiryInterval, u32::MAX);
    }
    options
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} cannot be copied", from.display());
}

fn publish(publisher: &mut Client, topic: &str, text: &str, is_retained: bool) {
    publisher.publish(topic, text.as_bytes(), AtLeastOnce, is_retained);
    let answer = publisher.recv();
    assert!(matches!(answer.packet(), Packet::PubAck(ack) if !ack.reason.is_error()), "{answer:?}");
}

/// Some of it is in the key-value base, some in the log only.
fn record() {
    let address = free_address();
    let broker = node(address, &[address], ENDLESS, SECRET);
    for (version, id) in [(V5, "five"), (V311, "three")] {
        let (mut client, _) = Client::connect_with(broker.tcp(), &endless(version, id));
        client.subscribe("q/#", ExactlyOnce);
        client.disconnect();
    }
    let mut publisher = Client::connect(broker.tcp(), V5, "publisher");
    publish(&mut publisher, "q/1", "in the base", false);
    publish(&mut publisher, "r/1", "retained in the base", true);
    publish(&mut publisher, "r/cleared", "for a while", true);
    let broker = broker.stop().restart();
    let mut publisher = Client::connect(broker.tcp(), V5, "publisher");
    publish(&mut publisher, "q/2", "in the log", false);
    assert_eq!(publisher.publish_exactly_once("q/3", b"exactly once"), Reason::SUCCESS);
    publish(&mut publisher, "r/2", "retained in the log", true);
    publish(&mut publisher, "r/cleared", "", true);
    let crashed = broker.crash();
    let _ = std::fs::remove_dir_all(recorded());
    copy(&crashed.dir.join("data"), &recorded());
    std::fs::remove_file(recorded().join("LOCK")).expect("a node locks its directory");
    drop_unwritten(&recorded().join("wal"));
}

/// Log files have megabytes of zeros for what is still to be written.
fn drop_unwritten(wal: &Path) {
    for entry in std::fs::read_dir(wal).expect("a log").map(|entry| entry.expect("a file").path()) {
        let bytes = std::fs::read(&entry).expect("a file");
        let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1).next_multiple_of(4096);
        std::fs::write(&entry, &bytes[..written.min(bytes.len())]).expect("a file");
    }
}

#[test]
fn a_recorded_directory_of_a_node_is_read_with_all_that_is_in_it() {
    if std::env::var_os("BIFRO_RECORD").is_some() {
        record();
    }
    let (dir, address) = (fresh_dir("recorded"), free_address());
    copy(&recorded(), &dir.join("data"));
    let admin = "[admin]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let config = format!("{admin}{listener}{}", table(address, &[address], ENDLESS));
    std::fs::write(dir.join("node.toml"), config).expect("a configuration");
    std::fs::write(dir.join("cluster.secret"), SECRET).expect("a secret");
    let broker = Broker::start_in(1, dir);
    assert_eq!(broker.metric("bifro_retained_messages"), 2.0);
    let sessions = [(V5, "five"), (V311, "three")];
    let mut clients = sessions.map(|(version, id)| {
        let (mut client, connack) = Client::connect_with(broker.tcp(), &endless(version, id));
        assert!(matches!(connack.packet(), Packet::ConnAck(ack) if ack.session_present), "{id}");
        let texts: Vec<String> = client.recv_publishes(3).iter().map(payload).collect();
        assert_eq!(texts, ["in the base", "in the log", "exactly once"], "{id}");
        client
    });
    publish(&mut Client::connect(broker.tcp(), V5, "publisher"), "q/4", "new", false);
    for client in &mut clients {
        assert_eq!(payload(&client.recv_publishes(1)[0]), "new", "its subscription holds");
        client.subscribe("r/#", AtLeastOnce);
        let mut retained: Vec<String> = client.recv_publishes(2).iter().map(payload).collect();
        retained.sort();
        assert_eq!(retained, ["retained in the base", "retained in the log"]);
        client.expect_silence();
    }
}
