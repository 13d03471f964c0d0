//! Directed scripts: faults at chosen times, where what must be true is about a whole story and not about any one event.

use crate::guard;
use crate::options::{Options, Settings, Weather};
use crate::queue::Moment;
use crate::simulation::Simulation;
use bifro_core::ids::RangeId;
use bifro_core::rng::Prng;
use bifro_raft::{Config, Role, Term};
use std::time::Duration;

/// Long enough for an election, and for a leader to be at home.
const SETTLED: Duration = Duration::from_secs(5);

/// Long enough to begin ten elections that cannot be won.
const ALONE: Duration = Duration::from_secs(20);

/// A follower is alone for a while and comes back. The others have had a leader all the time, and keep it in its term: who has been
/// away has nothing to say about that (dissertation, 9.6).
///
/// # Errors
/// If leader or term are others afterwards.
pub fn a_follower_comes_back(seed: u64, options: &Options) -> Result<(), String> {
    let settings = Settings { groups: 1, ..Settings::drawn(&mut Prng::new(seed)) };
    let mut simulation = Simulation::with_settings(seed, options.clone(), settings);
    simulation.world.weather = Weather::fair();
    simulation.run_until(Moment(0) + SETTLED);
    let before = leader(&simulation)?;
    let alone = (0..options.nodes).find(|node| *node != before.0).ok_or("there is nobody else")?;
    let until = simulation.now() + ALONE;
    isolate(&mut simulation, alone, until);
    simulation.run_until(until + SETTLED);
    let after = leader(&simulation)?;
    if before == after {
        Ok(())
    } else {
        Err(format!("seed {seed}: {before:?} led before n{alone} came back, then {after:?}"))
    }
}

/// Leaders are cut off, one after another, while clients write elsewhere and ask anywhere: a leader that does not know yet that it
/// was deposed must not answer from its own state. With leases in even seeds, without in odd ones.
///
/// # Errors
/// If something that must be true is not.
pub fn leaders_are_cut_off(seed: u64, options: &Options) -> Result<(), String> {
    let drawn = Settings::drawn(&mut Prng::new(seed));
    let config = Config { lease_reads: seed.is_multiple_of(2), quiesce_after: None, ..Config::DEFAULT };
    let settings = Settings { config, groups: 1, think: Duration::from_millis(20), reads_percent: 50, ..drawn };
    let mut simulation = Simulation::with_settings(seed, options.clone(), settings);
    simulation.world.weather = Weather::fair();
    guard(seed, options, simulation, |simulation| {
        for _ in 0..30 {
            simulation.run_until(simulation.now() + SETTLED);
            let Ok((deposed, _)) = leader(simulation) else { continue };
            let until = simulation.now() + SETTLED;
            isolate(simulation, deposed, until);
            simulation.run_until(until);
        }
    })
    .map(|_| ())
    .map_err(|failure| format!("seed {seed} at {}: {}", failure.at, failure.violation))
}

/// Cuts a node off from all others for a time.
fn isolate(simulation: &mut Simulation, node: usize, until: Moment) {
    for other in (0..simulation.nodes.len()).filter(|other| *other != node) {
        simulation.world.network.cut(node, other, until);
        simulation.world.network.cut(other, node, until);
    }
}

/// Who leads the first group, in which term.
fn leader(simulation: &Simulation) -> Result<(usize, Term), String> {
    let leads = |node: usize| {
        let (group, _) = simulation.nodes[node].replica(RangeId(0))?;
        (group.role() == Role::Leader).then_some((node, group.term()))
    };
    (0..simulation.nodes.len()).find_map(leads).ok_or_else(|| format!("nobody leads at {}", simulation.now()))
}
