//! Directed scripts: faults at chosen times, where what must be true is about a whole story and not about any one event.

use crate::options::{Options, Settings, Weather};
use crate::queue::Moment;
use crate::simulation::Simulation;
use bifro_core::ids::RangeId;
use bifro_core::rng::Prng;
use bifro_raft::{Role, Term};
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
    for other in (0..options.nodes).filter(|other| *other != alone) {
        simulation.world.network.cut(alone, other, until);
        simulation.world.network.cut(other, alone, until);
    }
    simulation.run_until(until + SETTLED);
    let after = leader(&simulation)?;
    if before == after {
        Ok(())
    } else {
        Err(format!("seed {seed}: {before:?} led before n{alone} came back, then {after:?}"))
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
