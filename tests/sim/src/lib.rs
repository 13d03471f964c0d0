//! The simulator: a whole cluster of Raft shards in one process, in virtual time, from one seed. It drives the machines that the
//! broker drives, [`bifro_raft::Multi`], over a network, disks and clocks that do what real ones do on their worst day, and checks
//! after every event what must always be true.
//!
//! ```text
//!   seed ─► Prng ─► Settings (once), Weather (per episode)
//!                        │
//!   Queue ── event ─► Simulation ─► Node ─► Multi ─► effects ─► Disk, Network, Machine ─► Queue
//!                        │            └── end of turn ─► invariants
//!                        └─ after healing ─► liveness
//! ```
//!
//! A run is a row of episodes of one virtual minute. In each, faults happen for [`options::FAULTY`], then all of them end, and
//! [`options::HEALED_WITHIN`] later everything must be well. Nothing depends on the length of the run, so a failure at some minute needs no
//! later ones to be seen again. Two runs with equal seeds and options are equal, event by event.

mod checkpoints;
mod client;
mod clock;
mod disk;
mod effects;
mod faults;
mod invariants;
mod logcopy;
mod machine;
mod network;
mod node;
mod operator;
pub mod options;
mod queue;
mod replica;
mod report;
pub mod scripts;
pub mod services;
mod simulation;
mod trace;
mod underlay;
mod world;

pub use options::{Kind, Options};
pub use report::Report;

use simulation::Simulation;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A run in which nothing that must be true was found false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What it has been through.
    pub report: Report,
    /// What happened, as one number.
    pub trace: u64,
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// What it was asked to do, with no more minutes than are needed to see it.
    pub options: Options,
    /// When, in virtual time.
    pub at: String,
    /// What is not true.
    pub violation: String,
}

/// Runs one seed.
///
/// # Errors
/// If something that must be true is not.
pub fn simulate(seed: u64, options: &Options) -> Result<Passed, Box<Failure>> {
    guard(seed, options, Simulation::new(seed, options.clone()), Simulation::run)
}

/// Runs a simulation, and turns what breaks an invariant into a failure.
fn guard(
    seed: u64,
    options: &Options,
    mut simulation: Simulation,
    run: impl FnOnce(&mut Simulation),
) -> Result<Passed, Box<Failure>> {
    match catch_unwind(AssertUnwindSafe(|| run(&mut simulation))) {
        Ok(()) => Ok(Passed { report: simulation.report().clone(), trace: simulation.world.trace.hash() }),
        Err(panic) => {
            let minutes = simulation.now().0 / options::EPISODE.as_micros() as u64 + 1;
            let options = Options { minutes: minutes.min(options.minutes), ..options.clone() };
            let violation = words(&*panic);
            Err(Box::new(Failure { seed, options, at: simulation.now().to_string(), violation }))
        }
    }
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// Leaves out as many kinds of fault as a failure does not need to happen.
pub fn minimise(failure: &Failure) -> Failure {
    let mut least = failure.clone();
    for (kind, _) in Kind::ALL {
        let mut options = least.options.clone();
        options.without.push(kind);
        if let Err(failure) = simulate(least.seed, &options) {
            least = *failure;
        }
    }
    least
}

impl Failure {
    /// The command that shows it again.
    pub fn command(&self) -> String {
        let Options { nodes, minutes, without, .. } = &self.options;
        let without: Vec<&str> = without.iter().map(|kind| kind.name()).collect();
        let without = if without.is_empty() { String::new() } else { format!(" --without {}", without.join(",")) };
        format!("bifro-sim --seed {} --nodes {nodes} --minutes {minutes}{without}", self.seed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, {} nodes, at {}: {}\n  {}",
            self.seed,
            self.options.nodes,
            self.at,
            self.violation,
            self.command()
        )
    }
}
