//! Messages per second of the broker's CPU time, beside mosquitto's in the same run.

use crate::flow::Flow;
use crate::target::Target;
use crate::{Row, span};
use bifro_core::message::QoS;
use std::time::Duration;

const PAYLOAD_BYTES: usize = 64;

/// Name, channels, subscribers of each, QoS, window.
const LOADS: [(&str, usize, usize, QoS, u64); 3] = [
    ("50 pairs, QoS 0, window 100", 50, 1, QoS::AtMostOnce, 100),
    ("50 pairs, QoS 1, window 100", 50, 1, QoS::AtLeastOnce, 100),
    ("fan-out 1 → 1000, QoS 0", 1, 1000, QoS::AtMostOnce, 20),
];

pub(crate) fn measure() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, channels, subscribers, qos, window) in LOADS {
        let mut figures = Vec::new();
        for start in [|| Some(Target::bifro()), Target::mosquitto] {
            let Some(target) = start() else { continue };
            let mut flow = Flow::new(target.address, channels, subscribers, qos, window, PAYLOAD_BYTES);
            flow.run(Duration::from_secs(1));
            let before = target.cpu();
            let (delivered, elapsed) = flow.run(span());
            let cpu = target.cpu() - before;
            figures.push(format!(
                "{} {:.0}k per CPU second ({:.0}k/s, CPU {:.0} %)",
                target.name,
                delivered as f64 / cpu.as_secs_f64() / 1e3,
                delivered as f64 / elapsed.as_secs_f64() / 1e3,
                100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64(),
            ));
        }
        rows.push(Row::new(format!("{name}, {PAYLOAD_BYTES} B, one core, pinned"), figures.join("; "), "—"));
    }
    crate::target::unpin();
    rows
}
