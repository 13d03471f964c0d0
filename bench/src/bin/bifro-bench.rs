//! The binary: reads the command line, runs, prints.
#![expect(clippy::print_stdout, reason = "the result of a command goes to standard output")]

use bifro_bench::options::{Cli, Command, LoadOptions};
use bifro_bench::plan::{self, Plan};
use bifro_bench::report::{Report, grouped};
use bifro_bench::run::{Body, run};
use bifro_bench::{compare, idle, page, sink, stages, worker};
use clap::Parser;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bifro-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says whether every check held.
fn execute(command: Command) -> Result<bool, Box<dyn Error>> {
    match command {
        Command::Conn(options) => {
            let (plan, load) = (idle::plan(&options), options.load.clone());
            let body = Arc::new(move |index: usize, progress: &_| idle::run(index, &options, progress));
            finish("conn", &Arc::new(plan), &load, body)
        }
        Command::Pair(options) => load("pair", plan::pair(&options), &options.load),
        Command::Fanout(options) => load("fanout", plan::fanout(&options), &options.load),
        Command::Fanin(options) => load("fanin", plan::fanin(&options), &options.load),
        Command::Tree(options) => load("tree", plan::tree(&options), &options.load),
        Command::Retain(options) => conclude(&stages::retain(&options, &*stop_flag()?)?, &options.load),
        Command::Session(options) => conclude(&stages::session(&options, &*stop_flag()?)?, &options.load),
        Command::Takeover(options) => conclude(&stages::takeover(&options, &*stop_flag()?)?, &options.load),
        Command::Mix(options) => {
            let weights = toml::from_str(&std::fs::read_to_string(&options.weights)?)?;
            load("mix", plan::mix(&weights, options.publishers, &options.load), &options.load)
        }
        Command::Compare(options) => {
            let table = compare::compare(&options, &|line| eprintln!("{line}"))?;
            print!("{table}");
            Ok(true)
        }
        Command::Sink(options) => {
            sink::serve(&options, |address| println!("listening on {address}"))?;
            Ok(true)
        }
    }
}

fn load(scenario: &str, plan: Plan, options: &LoadOptions) -> Result<bool, Box<dyn Error>> {
    let plan = Arc::new(plan);
    let (of_worker, own) = (plan.clone(), options.clone());
    let body = Arc::new(move |index: usize, progress: &_| worker::run(index, &of_worker, &own, progress));
    finish(scenario, &plan, options, body)
}

fn finish(scenario: &str, plan: &Arc<Plan>, options: &LoadOptions, body: Body) -> Result<bool, Box<dyn Error>> {
    let stop = stop_flag()?;
    let is_terminal = std::io::stderr().is_terminal();
    let report = run(
        scenario,
        plan,
        options,
        &stop,
        &|at_s, whole_s, received_per_s| {
            if is_terminal {
                show_progress(at_s / whole_s, received_per_s);
            }
        },
        body,
    )?;
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    conclude(&report, options)
}

/// Set by Ctrl-C.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, stop.clone())?;
    Ok(stop)
}

/// Writes and prints the result; says whether every check held.
fn conclude(report: &Report, options: &LoadOptions) -> Result<bool, Box<dyn Error>> {
    write_files(report, options)?;
    print!("{}", report.table());
    Ok(report.is_good())
}

fn show_progress(part: f64, received_per_s: f64) {
    let filled = (part.clamp(0.0, 1.0) * 40.0) as usize;
    eprint!("\r[{}{}] {} /s\x1b[K", "#".repeat(filled), ".".repeat(40 - filled), grouped(received_per_s));
    let _ = std::io::stderr().flush();
}

fn write_files(report: &Report, options: &LoadOptions) -> Result<(), Box<dyn Error>> {
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, page::page(report))?;
    }
    Ok(())
}
