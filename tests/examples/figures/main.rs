//! The measured acceptance figures, as a Markdown table: `scripts/figures.sh` builds everything and runs this.
//!
//! `figures [idle] [syscalls] [isolation] [throughput] [queued] [durable] [cluster] [replicated] [forwarding] [rolling]`, all of them by default. `BIFRO_FIGURES_SHORT=1` measures in
//! seconds what otherwise takes minutes. Broker and generator are separate processes; where it says "pinned", the broker has
//! CPU 0 and the generator CPU 1.

mod cluster;
mod durable;
mod flow;
mod forwarding;
mod generator;
mod idle;
mod isolation;
mod replicated;
mod rolling;
mod syscalls;
mod target;
mod throughput;

use std::time::Duration;

/// One line of the table.
struct Row {
    what: String,
    figure: String,
    target: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, figure: impl Into<String>, target: &'static str) -> Self {
        Self { what: what.into(), figure: figure.into(), target }
    }
}

/// Takes one group of figures.
type Measure = fn() -> Vec<Row>;

/// Measure in seconds, not in minutes.
fn is_short() -> bool {
    std::env::var_os("BIFRO_FIGURES_SHORT").is_some_and(|value| value != "0")
}

/// `full`, or the short form.
fn choose<T>(full: T, short: T) -> T {
    if is_short() { short } else { full }
}

/// How long one measurement of a rate takes.
fn span() -> Duration {
    choose(Duration::from_secs(10), Duration::from_secs(3))
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all: [(&str, Measure); 10] = [
        ("throughput", throughput::measure),
        ("syscalls", syscalls::measure),
        ("isolation", isolation::measure),
        ("idle", idle::measure),
        ("queued", durable::queued),
        ("durable", durable::measure),
        ("cluster", cluster::measure),
        ("replicated", replicated::measure),
        ("forwarding", forwarding::measure),
        ("rolling", rolling::measure),
    ];
    let mut rows = Vec::new();
    for (name, measure) in all {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            eprintln!("measuring: {name}");
            rows.extend(measure());
        }
    }
    let mut table = String::from("| what | figure | target |\n|---|---|---|\n");
    for Row { what, figure, target } in rows {
        table.push_str(&format!("| {what} | {figure} | {target} |\n"));
    }
    std::io::Write::write_all(&mut std::io::stdout(), table.as_bytes()).expect("somebody reads the table");
}
