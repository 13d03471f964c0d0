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
mod failure;
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

pub use failure::Asked;
pub use options::{Kind, Options};
pub use report::Report;

use simulation::Simulation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A violation by Raft groups.
pub type Failure = failure::Failure<Options>;

/// A run in which nothing that must be true was found false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What it has been through.
    pub report: Report,
    /// What happened, as one number.
    pub trace: u64,
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
            let violation = failure::words(&*panic);
            Err(Box::new(Failure { seed, options, at: simulation.now().to_string(), violation }))
        }
    }
}

/// Leaves out as many kinds of fault as a failure does not need to happen.
pub fn minimise(failure: &Failure) -> Failure {
    failure.without(Kind::ALL, |options, (kind, _)| options.without.push(kind), simulate)
}

impl Asked for Options {
    fn nodes(&self) -> usize {
        self.nodes
    }

    fn command(&self, seed: u64) -> String {
        let Self { nodes, minutes, without, .. } = self;
        let without = failure::without(without.iter().map(|kind| kind.name()));
        format!("bifro-sim --seed {seed} --nodes {nodes} --minutes {minutes}{without}")
    }
}
