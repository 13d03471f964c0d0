//! The services' simulation: on each node the real underlay machine ([`bifro_swim::Swim`]) and on each of its shards the real services
//! ([`bifro_store::services::RangeServices`]) over the real host of Raft groups, in virtual time and from one seed. The log and the engine are in memory, and
//! durable when the simulation says so; the driver, links and clients are models of bifro-net's.
//!
//! ```text
//!   Queue ── event ─► Simulation ─┬─► Shard ─► RangeServices ─► Host ─► storage of the node, in steps
//!                        ▲        │     └ uplinks, remotes, publishing, connections: the driver's part
//!                        │        ├─► Swim ─► Nodes ─► Shard
//!                        │        └─► Subscriber, Publisher ─► invariants::{delivery, owners}
//!                        └─ after healing ─► invariants::liveness
//! ```
//! A run is a row of episodes. In each, faults happen for [`options::FAULTY`], then all of them end, and within stated times everything must be well.

mod cluster;
mod connections;
mod delivered;
mod exactly_once;
mod faults;
mod groups;
mod invariants;
mod links;
mod listener;
mod node;
pub mod options;
mod publisher;
mod publishing;
mod remotes;
mod report;
mod shard;
mod subscriber;
mod talk;
mod uplinks;

pub use options::{Kind, Options};
pub use report::Report;

use crate::failure::{self, Asked};
use cluster::Simulation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A violation by the services.
pub type Failure = failure::Failure<Options>;

/// A run in which nothing that must be true was found false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What it has been through.
    pub report: Report,
    /// What happened, as one number.
    pub trace: u64,
    /// How long it was, in virtual seconds.
    pub seconds: u64,
}

/// Runs one seed.
///
/// # Errors
/// If something that must be true is not.
pub fn simulate(seed: u64, options: &Options) -> Result<Passed, Box<Failure>> {
    let mut simulation = Simulation::new(seed, options.clone());
    match catch_unwind(AssertUnwindSafe(|| simulation.run())) {
        Ok(()) => Ok(Passed {
            report: simulation.world.report.clone(),
            trace: simulation.world.trace.hash(),
            seconds: simulation.now().0 / 1_000_000,
        }),
        Err(panic) => {
            let violation = failure::words(&*panic);
            Err(Box::new(Failure { seed, options: options.clone(), at: simulation.now().to_string(), violation }))
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
        let Self { nodes, episodes, without, .. } = self;
        let without = failure::without(without.iter().map(|kind| kind.name()));
        format!("bifro-sim services --seed {seed} --nodes {nodes} --episodes {episodes}{without}")
    }
}
