//! The result as a page that needs nothing but itself: the table, and plots as inline SVG.

use crate::report::Report;
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
const MARGIN: f64 = 60.0;

/// A line through `points`, with the scale of its axes.
fn plot(title: &str, unit: &str, points: &[(f64, f64)]) -> String {
    if points.len() < 2 {
        return String::new();
    }
    let right = points.iter().map(|point| point.0).fold(f64::MIN, f64::max);
    let left = points.iter().map(|point| point.0).fold(f64::MAX, f64::min);
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut line = String::new();
    for (x, y) in points {
        let across = MARGIN + (x - left) / (right - left).max(f64::MIN_POSITIVE) * (WIDTH - MARGIN - 10.0);
        let _ = write!(line, "{across:.1},{:.1} ", HEIGHT - 20.0 - y / top * (HEIGHT - 40.0));
    }
    let bottom = HEIGHT - 20.0;
    format!(
        "<h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><path d=\"M{MARGIN} 15V{bottom}H{WIDTH}\"/>\
         <polyline points=\"{line}\"/><text x=\"0\" y=\"22\">{top:.0} {unit}</text><text x=\"0\" y=\"{bottom}\">0</text>\
         <text x=\"{MARGIN}\" y=\"{HEIGHT}\">{left:.1}</text><text x=\"{}\" y=\"{HEIGHT}\">{right:.1}</text></svg>\n",
        WIDTH - 40.0
    )
}

/// The page of `report`.
pub fn page(report: &Report) -> String {
    let series = |value: &dyn Fn(&crate::report::Sample) -> f64| -> Vec<(f64, f64)> {
        report.samples.iter().map(|sample| (sample.at_s, value(sample))).collect()
    };
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>bifro-bench</title><style>\
         body{font:15px system-ui;max-width:760px;margin:2em auto}pre{background:#f4f4f4;padding:1em;overflow:auto}\
         polyline{fill:none;stroke:#0a6;stroke-width:1.5}path{fill:none;stroke:#888}text{font-size:11px}</style>\n",
    );
    let table = report.table().replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(page, "<h1>bifro-bench {}</h1><pre>{table}</pre>", report.scenario);
    page += &plot("Received over time (s)", "/s", &series(&|sample| sample.received_per_s));
    page += &plot("Published over time (s)", "/s", &series(&|sample| sample.published_per_s));
    // The tail is what matters: a percentile is drawn at its number of nines.
    let nines = |percentile: f64| -(1.0 - (percentile / 100.0).min(0.999_999)).log10();
    let curve: Vec<(f64, f64)> = report.latency.curve.iter().map(|(at, value)| (nines(*at), *value)).collect();
    page += &plot("Latency by percentile (number of nines)", "µs", &curve);
    if report.target_after.rss_bytes > 0 {
        page += &plot("CPUs of the target", "CPUs", &series(&|sample| sample.target_cpus));
        let mib = |sample: &crate::report::Sample| sample.target_rss_bytes as f64 / f64::from(1 << 20);
        page += &plot("Resident set of the target", "MiB", &series(&mib));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Sample;

    #[test]
    fn a_page_has_its_plots_and_asks_for_nothing_else() {
        let sample = |at_s: f64| Sample { at_s, received_per_s: 10.0, ..Sample::default() };
        let report = Report { scenario: "pair".into(), samples: vec![sample(0.2), sample(0.4)], ..Report::default() };
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(!page.contains("http"));
    }
}
