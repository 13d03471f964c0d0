//! The result of a run: what is printed, written as JSON, and decides the exit code.

use crate::check::Findings;
use crate::proc::Usage;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// One moment of a run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the load began.
    pub at_s: f64,
    /// Messages received a second since the last sample.
    pub received_per_s: f64,
    /// Messages published a second since the last sample.
    pub published_per_s: f64,
    /// CPUs the target was busy with since the last sample.
    pub target_cpus: f64,
    /// Resident set of the target.
    pub target_rss_bytes: u64,
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Values recorded.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
    /// Percentile and value, for the plot.
    pub curve: Vec<(f64, f64)>,
}

/// Percentiles of the plot.
const CURVE: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: histogram.max() as f64 / 1000.0,
            curve: CURVE.iter().map(|percentile| (*percentile, at(*percentile))).collect(),
        }
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Subcommand.
    pub scenario: String,
    /// Seconds measured.
    pub measured_s: f64,
    /// Connections made.
    pub connections: u64,
    /// Messages published a second, measured.
    pub published_per_s: f64,
    /// Messages received a second, measured; in `conn`, connections made a second.
    pub received_per_s: f64,
    /// Latency, measured; in `conn`, from the first packet to CONNACK and SUBACK.
    pub latency: Latency,
    /// What the subscribers found, over the whole run.
    pub findings: Findings,
    /// Copies that were published and never received, over the whole run.
    pub lost: u64,
    /// Windows opened although nothing had come back.
    pub stalls: u64,
    /// Connections the broker ended or refused.
    pub disconnects: u64,
    /// CPUs the generator was busy with, measured.
    pub generator_cpus: f64,
    /// CPUs the target was busy with, measured.
    pub target_cpus: f64,
    /// Messages received (in `conn`: connections made) per second of the target's CPU time.
    pub received_per_cpu_s: f64,
    /// The target before the run.
    pub target_before: Usage,
    /// The target at the end of the measured time.
    pub target_after: Usage,
    /// Growth of the target's resident set per connection.
    pub rss_per_connection: f64,
    /// The run over time.
    pub samples: Vec<Sample>,
    /// Interrupted by Ctrl-C.
    pub is_interrupted: bool,
    /// Why the run failed; empty if it did not.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether every check held.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// Writes down what must not be. At QoS 1 a message may come twice.
    pub fn judge(&mut self, qos: u8, reason: Option<String>) {
        let findings = self.findings;
        let mut judge = |is_wrong: bool, what: String| {
            if is_wrong {
                self.failures.push(what);
            }
        };
        judge(self.disconnects > 0, format!("{} connections failed: {}", self.disconnects, reason.unwrap_or_default()));
        judge(self.lost > 0, format!("{} messages were lost", self.lost));
        judge(findings.gaps > 0 && self.lost == 0, format!("{} gaps", findings.gaps));
        judge(findings.duplicates > 0 && qos != 1, format!("{} duplicates", findings.duplicates));
        judge(findings.reordered > 0, format!("{} messages were reordered", findings.reordered));
        judge(findings.strays > 0, format!("{} messages were not for their receiver", findings.strays));
    }

    /// The result as a table.
    pub fn table(&self) -> String {
        let mut rows: Vec<(&str, String)> = vec![
            ("scenario", self.scenario.clone()),
            ("measured", format!("{:.2} s, {} connections", self.measured_s, self.connections)),
            ("published", format!("{} /s", grouped(self.published_per_s))),
            ("received", format!("{} /s", grouped(self.received_per_s))),
        ];
        let latency = &self.latency;
        if latency.count > 0 {
            let percentiles = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
            let [p50, p90, p99, p999, max] = percentiles;
            let text = format!("p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} µs");
            rows.push(("latency", text));
        }
        rows.push(("generator", format!("{:.2} CPUs", self.generator_cpus)));
        if self.target_after.rss_bytes > 0 {
            let mib = self.target_after.rss_bytes as f64 / f64::from(1 << 20);
            rows.push(("target", format!("{:.2} CPUs, RSS {mib:.1} MiB", self.target_cpus)));
            rows.push(("per CPU second", grouped(self.received_per_cpu_s)));
            rows.push(("RSS per connection", format!("{:.0} B", self.rss_per_connection)));
        }
        let found = &self.findings;
        rows.push((
            "checked",
            format!(
                "{} messages: {} lost, {} duplicates, {} reordered, {} strays, {} stalls",
                grouped(found.received as f64),
                self.lost,
                found.duplicates,
                found.reordered,
                found.strays,
                self.stalls
            ),
        ));
        for failure in &self.failures {
            rows.push(("FAILED", failure.clone()));
        }
        if self.is_interrupted {
            rows.push(("interrupted", "the result so far".to_owned()));
        }
        let mut table = String::new();
        for (name, value) in rows {
            let _ = writeln!(table, "{name:<20}{value}");
        }
        table
    }
}

/// A number with its thousands separated.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_fails_only_where_the_quality_of_service_forbids_it() {
        let findings = Findings { received: 10, duplicates: 1, ..Findings::default() };
        for (qos, failures) in [(0, 1), (1, 0), (2, 1)] {
            let mut report = Report { findings, ..Report::default() };
            report.judge(qos, None);
            assert_eq!(report.failures.len(), failures, "QoS {qos}");
        }
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([grouped(0.0), grouped(999.0), grouped(1_234_567.0)], ["0", "999", "1,234,567"]);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = crate::progress::latency_histogram();
        (1..=1000).for_each(|number| histogram.saturating_record(number * 1000));
        let latency = Latency::from(&histogram);
        assert!((latency.p50_us - 500.0).abs() < 1.0 && (latency.p99_us - 990.0).abs() < 1.0);
    }
}
