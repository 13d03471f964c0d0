//! MQTT.js, by way of `tests/js`.

use super::stand::Stand;
use super::tool::run;
use bifro_tests::foreign::{checkout, is_here, on_path};
use std::process::Command;
use std::time::Duration;

fn all_scenarios(transports: &[&str]) {
    let dir = checkout().join("tests/js");
    let found = on_path("node") && dir.join("node_modules/mqtt").is_dir();
    if !is_here("MQTT.js (npm ci in tests/js)", found) {
        return;
    }
    let mut stand = Stand::start();
    let mut command = Command::new("node");
    command.arg(dir.join("scenarios.js")).args(transports).env("NODE_EXTRA_CA_CERTS", stand.file("ca.pem"));
    let output = run(&mut command, stand.describe().as_bytes(), Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output);
    let combinations = 3 * transports.len();
    assert_eq!(text.lines().filter(|line| line.starts_with("done ")).count(), combinations, "{text}");
    stand.broker.assert_alive();
}

#[test]
fn mqttjs_over_websocket() {
    all_scenarios(&["ws", "wss"]);
}

#[test]
fn mqttjs_over_tcp_and_tls() {
    all_scenarios(&["tcp", "tls", "mtls"]);
}
