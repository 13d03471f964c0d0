//! Soaks: `bifro-sim --seed S --minutes M [--seeds N] [--nodes N]` runs seeds S, S+1, … of Raft groups, `bifro-sim services --seed S …` of the services
//! over them, and ends with 1 at the first violation.
#![expect(clippy::print_stdout, reason = "a report on standard output is what the program is for")]

use bifro_sim::{Kind, Options, Report, minimise, services, simulate};
use clap::{Args, Parser, Subcommand};
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Instant;

/// Simulates whole clusters in virtual time.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    raft: Raft,
}

/// What to simulate, if not Raft groups by themselves.
#[derive(Debug, Subcommand)]
enum What {
    /// The services with their clients, over real membership, Raft groups and hosts
    Services(Services),
}

#[derive(Debug, Args)]
struct Raft {
    #[command(flatten)]
    seeds: Seeds,
    /// Virtual minutes of each
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Nodes of the cluster, 1 to 64
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    nodes: u64,
    /// Kinds of fault to leave out: loss, cuts, clogs, crashes, disks, clocks, freezes, changes, transfers, compaction
    #[arg(long, value_delimiter = ',', value_parser = raft_kind)]
    without: Vec<Kind>,
}

#[derive(Debug, Args)]
struct Services {
    #[command(flatten)]
    seeds: Seeds,
    /// Episodes of each, of a virtual minute and a half
    #[arg(long, default_value_t = 1)]
    episodes: u64,
    /// Nodes of the cluster, 1 to 16
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=16))]
    nodes: u64,
    /// Kinds of fault to leave out: crashes, cuts, flaps, freezes, stalls, loss, disks, clocks
    #[arg(long, value_delimiter = ',', value_parser = services_kind)]
    without: Vec<services::Kind>,
    /// Go on after a violation, and count them
    #[arg(long)]
    go_on: bool,
}

#[derive(Clone, Copy, Debug, Args)]
struct Seeds {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Tell everything that happens from this virtual second on, on standard error
    #[arg(long, value_name = "SECOND")]
    narrate_from: Option<u64>,
}

impl Seeds {
    const fn all(self) -> std::ops::Range<u64> {
        self.seed..self.seed.saturating_add(self.seeds)
    }
}

fn kind<K: Copy>(all: &[(K, &str)], name: &str) -> Result<K, String> {
    let found = all.iter().find(|(_, known)| *known == name);
    found.map(|(kind, _)| *kind).ok_or_else(|| format!("there is no such kind: {name}"))
}

fn raft_kind(name: &str) -> Result<Kind, String> {
    kind(&Kind::ALL, name)
}

fn services_kind(name: &str) -> Result<services::Kind, String> {
    kind(&services::Kind::ALL, name)
}

fn main() -> ExitCode {
    let Arguments { what, raft } = Arguments::parse();
    // Violations are told below, and looking for the least command makes more of them.
    std::panic::set_hook(Box::new(|_| {}));
    match what {
        None => run_raft(raft),
        Some(What::Services(services)) => run_services(services),
    }
}

fn run_raft(Raft { seeds, minutes, nodes, without }: Raft) -> ExitCode {
    let options = Options { without, narrate_from: seeds.narrate_from, ..Options::new(nodes as usize, minutes) };
    let (begin, mut total, mut traces) = (Instant::now(), Report::default(), 0_u64);
    for seed in seeds.all() {
        match simulate(seed, &options) {
            Ok(passed) => {
                total.add(&passed.report);
                traces = traces.rotate_left(1) ^ passed.trace;
            }
            Err(failure) => {
                tell(&*failure, options.narrate_from.is_none().then(|| minimise(&failure)));
                return ExitCode::FAILURE;
            }
        }
    }
    print!("{total}");
    conclude(seeds, traces, seeds.seeds * minutes * 60, begin);
    ExitCode::SUCCESS
}

fn run_services(Services { seeds, episodes, nodes, without, go_on }: Services) -> ExitCode {
    if seeds.narrate_from.is_some() {
        // What the services have to say stands between what happens.
        tracing_subscriber::fmt().with_env_filter("debug").without_time().with_writer(std::io::stderr).init();
    }
    let mut options = services::Options::new(nodes as usize, episodes);
    (options.without, options.narrate_from) = (without, seeds.narrate_from);
    let (begin, mut total, mut traces) = (Instant::now(), services::Report::default(), 0_u64);
    let (mut seconds, mut failures) = (0, 0);
    for seed in seeds.all() {
        match services::simulate(seed, &options) {
            Ok(passed) => {
                total.add(&passed.report);
                traces = traces.rotate_left(1) ^ passed.trace;
                seconds += passed.seconds;
            }
            Err(failure) if go_on => {
                failures += 1;
                println!("{failure}");
            }
            Err(failure) => {
                tell(&*failure, options.narrate_from.is_none().then(|| services::minimise(&failure)));
                return ExitCode::FAILURE;
            }
        }
    }
    print!("{total}");
    conclude(seeds, traces, seconds, begin);
    if failures > 0 {
        println!("{failures} violations");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn tell<F: Display>(failure: &F, least: Option<F>) {
    println!("{failure}");
    if let Some(least) = least {
        println!("leaving out what it does not need:\n{least}");
    }
}

fn conclude(seeds: Seeds, traces: u64, seconds: u64, begin: Instant) {
    let real = begin.elapsed().as_secs_f64();
    println!("{traces:>#12x} trace");
    println!(
        "{} seeds, {} virtual minutes in {real:.1} s: {:.0} times real time",
        seeds.seeds,
        seconds / 60,
        seconds as f64 / real
    );
}
