//! paho-mqtt, by way of `tests/py`.

use super::stand::Stand;
use super::tool::run;
use bifro_tests::foreign::{checkout, python_with_paho};
use std::process::Command;
use std::time::Duration;

fn all_scenarios(transports: &[&str]) {
    let Some(python) = python_with_paho() else { return };
    let mut stand = Stand::start();
    let mut command = Command::new(python);
    command.arg(checkout().join("tests/py/scenarios.py")).args(transports);
    let output = run(&mut command, stand.describe().as_bytes(), Duration::from_secs(60));
    let text = String::from_utf8_lossy(&output);
    let combinations = 3 * transports.len();
    assert_eq!(text.lines().filter(|line| line.starts_with("done ")).count(), combinations, "{text}");
    stand.broker.assert_alive();
}

#[test]
fn paho_over_tcp_and_unix_sockets() {
    all_scenarios(&["tcp", "unix"]);
}

#[test]
fn paho_over_tls_and_mutual_tls() {
    all_scenarios(&["tls", "mtls"]);
}

#[test]
fn paho_over_websocket() {
    all_scenarios(&["ws", "wss"]);
}
