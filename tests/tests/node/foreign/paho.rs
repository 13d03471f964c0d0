//! paho-mqtt, by way of `tests/py`.

use super::stand::Stand;
use super::tool::{checkout, is_here, run};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// An interpreter that can import paho: the checkout's own, or the system's.
fn python() -> Option<PathBuf> {
    let candidates = [checkout().join(".venv/bin/python"), PathBuf::from("python3")];
    candidates.into_iter().find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import paho.mqtt.client as c; c.CallbackAPIVersion.VERSION2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

fn all_scenarios(transports: &[&str]) {
    let python = python();
    if !is_here("paho-mqtt 2 for Python", python.is_some()) {
        return;
    }
    let mut stand = Stand::start();
    let mut command = Command::new(python.expect("it is here"));
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
