//! System calls per delivered message of a saturating fan-out: as strace counts them, and, undisturbed, as the ring does.

use crate::flow::Flow;
use crate::target::{pinned, unpin};
use crate::{Row, span};
use bifro_core::message::QoS;
use bifro_tests::Broker;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SUBSCRIBERS: usize = 500;

pub(crate) fn measure() -> Vec<Row> {
    let broker = pinned(|| Broker::start(1, ""));
    let mut flow = Flow::new(broker.tcp(), 1, SUBSCRIBERS, QoS::AtMostOnce, 100, 256);
    flow.run(Duration::from_secs(1));
    let ring = || (broker.metric("bifro_ring_enters_total"), broker.metric("bifro_publishes_sent_total"));
    let before = ring();
    let (delivered, elapsed) = flow.run(span());
    let after = ring();
    let quiet = (after.0 - before.0) / (after.1 - before.1);
    let rate = delivered as f64 / elapsed.as_secs_f64() / 1e3;
    let what = format!("fan-out 1 → {SUBSCRIBERS}, QoS 0, 256 B: ");
    let mut rows = vec![Row::new(
        format!("{what}ring system calls per message, undisturbed"),
        format!("{quiet:.6} at {rate:.0}k/s"),
        "< 0.1",
    )];
    if let Some((calls, delivered)) = under_strace(&broker, &mut flow) {
        let each = calls as f64 / delivered as f64;
        rows.push(Row::new(
            format!("{what}all system calls per message, under strace"),
            format!("{each:.6} ({calls} for {delivered})"),
            "< 0.1",
        ));
    }
    unpin();
    rows
}

/// System calls of all threads, and messages delivered meanwhile; none without strace.
fn under_strace(broker: &Broker, flow: &mut Flow) -> Option<(u64, u64)> {
    let summary = broker.dir.join("strace");
    let mut strace: Child = Command::new("strace")
        .args(["-c", "-f", "-o"])
        .arg(&summary)
        .args(["-p", &broker.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // It is attached when the kernel names it as the tracer.
    let status = format!("/proc/{}/status", broker.pid());
    while std::fs::read_to_string(&status).ok()?.contains("TracerPid:\t0\n") {
        if strace.try_wait().ok()?.is_some() {
            return None;
        }
        std::thread::yield_now();
    }
    let (delivered, _) = flow.run(span());
    let pid = i32::try_from(strace.id()).ok()?;
    // SAFETY: no pointers; the child has not been waited for, so the pid is its own. At SIGINT it detaches and reports.
    unsafe { libc::kill(pid, libc::SIGINT) };
    strace.wait().ok()?;
    let text = std::fs::read_to_string(&summary).ok()?;
    // "100.00  seconds  usecs/call  calls  errors  total"
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    let calls = total.split_whitespace().nth(3)?.parse().ok()?;
    Some((calls, delivered))
}
