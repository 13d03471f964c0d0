//! What three voters cost: persistent sessions on a cluster of three nodes of one shard each, beside a single node, all on the same CPUs.
//!
//! Every message is on the disks of two of the three before its acknowledgement, and of all three soon after. The generator shares the CPUs with the nodes.

use crate::cluster::until_led;
use crate::{Row, choose, generator};
use bifro_tests::Broker;
use bifro_tests::cluster::cluster;

/// What is published: name, and options of `bifro-bench pair`. Both clients of a pair are at one node, as many pairs at each; who leads the session is any.
const LOADS: [(&str, &str); 5] = [
    ("1 pair, 1 in flight", "--pairs 1 --window 1"),
    ("48 pairs, 1 in flight each", "--pairs 48 --window 1"),
    ("48 pairs, 10 in flight each", "--pairs 48 --window 10"),
    ("48 pairs, 100 in flight each", "--pairs 48 --window 100"),
    ("48 pairs, 10,000/s in all", "--pairs 48 --rate 10000"),
];

/// What one run of the generator found.
struct Found {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_cpu_s: f64,
}

impl Found {
    /// Under a `seed` that no other run has: a session that goes on may have messages waiting.
    fn of(nodes: &[Broker], load: &str, seed: usize) -> Self {
        let duration = choose("10", "3");
        let line = format!("pair --persistent --qos 1 --duration {duration} --seed {seed} {load}");
        let targets: Vec<_> = nodes.iter().map(Broker::tcp).collect();
        let processes: Vec<_> = nodes.iter().map(Broker::pid).collect();
        let report = generator::run(&line, &targets, &processes);
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        Self {
            per_s: number(&report["received_per_s"]),
            p50_ms: number(&report["latency"]["p50_us"]) / 1000.0,
            p99_ms: number(&report["latency"]["p99_us"]) / 1000.0,
            per_cpu_s: number(&report["received_per_cpu_s"]),
        }
    }
}

pub(crate) fn measure() -> Vec<Row> {
    let (one, three) = ([Broker::start(1, "")], cluster(3));
    until_led(&three);
    let mut seeds = 1..;
    let row = |(name, load): (&str, &str)| {
        let mut rounds = (Vec::new(), Vec::new());
        for seed in seeds.by_ref().take(choose(3, 1)) {
            rounds.0.push(Found::of(&three, load, seed));
            rounds.1.push(Found::of(&one, load, seed));
        }
        let (three, one) = (median(rounds.0), median(rounds.1));
        Row::new(
            format!("three nodes, three voters, beside one: persistent sessions, 256 B, QoS 1, {name}"),
            format!("{three}; one node {one}"),
            "-",
        )
    };
    LOADS.map(row).into()
}

/// That of median rate per second of CPU time, as told.
fn median(mut rounds: Vec<Found>) -> String {
    rounds.sort_by(|a, b| a.per_cpu_s.total_cmp(&b.per_cpu_s));
    let Found { per_s, p50_ms, p99_ms, per_cpu_s } = &rounds[rounds.len() / 2];
    format!("{per_s:.0}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {per_cpu_s:.0} per CPU-second")
}
