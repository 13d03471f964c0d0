//! Soaks: `bifro-sim --seed S --minutes M [--seeds N] [--nodes N]` runs seeds S, S+1, … and ends with 1 at the first violation.
#![expect(clippy::print_stdout, reason = "a report on standard output is what the program is for")]

use bifro_sim::{Kind, Options, Report, minimise, simulate};
use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;

/// Simulates whole clusters in virtual time.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Virtual minutes of each
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Nodes of the cluster, 1 to 64
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    nodes: u64,
    /// Kinds of fault to leave out: loss, cuts, clogs, crashes, disks, clocks, freezes, changes, transfers, compaction
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    without: Vec<Kind>,
    /// Tell everything that happens from this virtual second on, on standard error
    #[arg(long, value_name = "SECOND")]
    narrate_from: Option<u64>,
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|(_, known)| *known == name);
    found.map(|(kind, _)| kind).ok_or_else(|| format!("there is no such kind: {name}"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        without: arguments.without,
        narrate_from: arguments.narrate_from,
        ..Options::new(arguments.nodes as usize, arguments.minutes)
    };
    let (begin, mut total, mut traces) = (Instant::now(), Report::default(), 0_u64);
    // Violations are told below, and looking for the least command makes more of them.
    std::panic::set_hook(Box::new(|_| {}));
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match simulate(seed, &options) {
            Ok(passed) => {
                total.add(&passed.report);
                traces = traces.rotate_left(1) ^ passed.trace;
            }
            Err(failure) => {
                if options.narrate_from.is_some() {
                    println!("{failure}");
                    return ExitCode::FAILURE;
                }
                println!("{failure}\nleaving out what it does not need:\n{}", minimise(&failure));
                return ExitCode::FAILURE;
            }
        }
    }
    let (real, minutes) = (begin.elapsed().as_secs_f64(), arguments.seeds * arguments.minutes);
    print!("{total}");
    println!("{traces:>#12x} trace");
    println!(
        "{} seeds, {minutes} virtual minutes in {real:.1} s: {:.0} times real time",
        arguments.seeds,
        minutes as f64 * 60.0 / real
    );
    ExitCode::SUCCESS
}
