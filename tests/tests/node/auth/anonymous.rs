//! Clients that say nothing about themselves are admitted from this machine only.

use super::{VERSIONS, login, refusal};
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions, process};
use std::process::Command;

#[test]
fn credentials_that_nobody_can_check_are_refused() {
    let broker = Broker::start(1, "");
    for version in VERSIONS {
        login(broker.tcp(), version, "c", None).expect("admitted").disconnect();
        let result = login(broker.tcp(), version, "c", Some(("alice", "password")));
        assert_eq!(result.err(), Some(refusal(version, Reason::BAD_USER_NAME_OR_PASSWORD)), "{version:?}");
    }
}

/// The peer address is the one in the PROXY header, if whoever sends it is trusted.
#[test]
fn anonymous_clients_from_elsewhere_are_refused() {
    let broker = Broker::start_with(
        1,
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\nproxy_protocol = true\n\
         proxy_trusted = [\"127.0.0.0/8\"]\n",
        &[],
    );
    for (family, peer, admitted) in [
        ("TCP4", "127.0.0.1", true),
        ("TCP6", "::1", true),
        ("TCP4", "203.0.113.7", false),
        ("TCP4", "10.0.0.1", false),
        ("TCP6", "2001:db8::1", false),
        ("TCP6", "::ffff:203.0.113.7", false),
    ] {
        let mut client = Client::open(broker.tcp(), Version::V5);
        let here = if family == "TCP4" { "127.0.0.1" } else { "::1" };
        client.send_bytes(format!("PROXY {family} {peer} {here} 40000 1883\r\n").as_bytes());
        let result = client.login(&ConnectOptions::new(Version::V5, "c"));
        let expected = if admitted { None } else { Some(Reason::NOT_AUTHORIZED) };
        assert_eq!(result.err(), expected, "{peer}");
    }
}

#[test]
fn a_listener_that_others_can_reach_must_say_whom_it_admits() {
    let dir = process::fresh_dir("open");
    let file = dir.join("node.toml");
    std::fs::write(&file, "[[listener]]\nprotocol = \"tcp\"\nbind = \"0.0.0.0:0\"\n").expect("a file");
    let mut command = Command::new(process::binaries().join("bifro-uring"));
    let output = command.arg("--check-config").arg("--config").arg(&file).output().expect("it runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("listener[0].auth"), "{errors}");
    std::fs::remove_dir_all(dir).expect("it is the test's own");
}
