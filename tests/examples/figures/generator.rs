//! Runs of the bundled load generator, as a process of its own.

use bifro_tests::process::{binaries, fresh_dir};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Runs `bifro-bench` with the words of `line` against these brokers, counting these processes' CPU time. Returns its report.
///
/// # Panics
/// If one of its checks fails: a message was lost, came twice or out of order.
pub(crate) fn run(line: &str, targets: &[SocketAddr], processes: &[u32]) -> Value {
    let dir = fresh_dir("generator");
    let report = dir.join("report.json");
    let mut command = Command::new(binaries().join("bifro-bench"));
    command.args(line.split_whitespace()).arg("--json").arg(&report);
    for target in targets {
        command.args(["--target", &target.to_string()]);
    }
    for process in processes {
        command.args(["--target-pid", &process.to_string()]);
    }
    let output = command.stdout(Stdio::null()).output().expect("bifro-bench is built");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&report).expect("a report");
    // A directory that stays is no harm.
    let _ = std::fs::remove_dir_all(dir);
    serde_json::from_str(&text).expect("JSON")
}
