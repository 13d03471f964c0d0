//! Safety under every fault at once; liveness when they end.

use super::world::{Faults, World};
use alloc::vec::Vec;
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Ten seconds of faults drawn from the seed, then none: all nodes must settle, on one value.
fn episode(seed: u64) -> World {
    let sizes = [(1, 2), (2, 2), (3, 3), (3, 5), (4, 4), (5, 6)];
    let (seeds, nodes) = sizes[seed as usize % sizes.len()];
    let mut world = World::new(seed, seeds, nodes);
    let mut drawn = |most| if world.rng.below(3) == 0 { 0 } else { world.rng.below(most) };
    world.faults = Faults { loss: drawn(400), duplicates: drawn(300), delays: drawn(300), crashes: drawn(150) };
    for node in 0..nodes {
        let delay = Duration::from_micros(world.rng.below(3_000_000));
        world.start_after(delay, node);
    }
    for _ in 0..5 {
        world.sides = (0..nodes).map(|_| u8::from(world.rng.below(4) == 0)).collect();
        world.run(SECOND);
        world.sides.fill(0);
        world.run(SECOND);
    }
    world.faults = Faults::default();
    world.run(90 * SECOND);
    let settled = world.settled();
    assert_eq!(settled.len(), nodes, "seed {seed}: not all nodes know the cluster");
    assert!(settled.iter().all(|value| *value == settled[0]), "seed {seed}: {settled:?}");
    assert!(world.nodes.iter().all(|node| node.conflicts.is_empty()), "seed {seed}");
    world
}

/// `BIFRO_GENESIS_SEEDS` makes it more.
#[test]
fn whatever_fails_there_is_never_a_second_decision_and_there_is_one_when_nothing_fails() {
    let seeds = std::env::var("BIFRO_GENESIS_SEEDS").map_or(4_000, |seeds| seeds.parse().expect("a number of seeds"));
    for seed in 0..seeds {
        episode(seed);
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in 0..12 {
        assert_eq!(episode(seed).trace, episode(seed).trace);
    }
}

#[test]
fn a_majority_that_lives_decides_without_the_others() {
    for seed in 0..50 {
        for (seeds, there) in [(3, 2), (4, 3), (5, 3)] {
            let mut world = World::new(seed, seeds, seeds);
            (0..there).for_each(|node| world.start(node));
            world.run(8 * SECOND);
            let settled = world.settled();
            assert_eq!(settled.len(), there, "seed {seed}");
            assert_eq!(settled[0].founders, (0..there).map(World::id).collect::<Vec<_>>(), "who had a part in it");
        }
    }
}

#[test]
fn halves_without_a_majority_decide_nothing_and_one_thing_when_they_meet() {
    for seed in 0..50 {
        let mut world = World::new(seed, 4, 6);
        world.sides = [0, 0, 1, 1, 0, 1].into();
        (0..6).for_each(|node| world.start(node));
        world.run(60 * SECOND);
        assert!(world.settled().is_empty() && world.nodes.iter().all(|node| node.disk.decided.is_none()));
        world.sides.fill(0);
        world.run(10 * SECOND);
        assert_eq!(world.settled().len(), 6, "seed {seed}");
    }
}

/// The founder ends after each of its effects in turn, and stays away.
#[test]
fn a_founder_may_end_at_any_step() {
    for seed in 0..20 {
        let mut steps = 0;
        loop {
            let mut world = World::new(seed, 3, 3);
            (0..3).for_each(|node| world.start(node));
            let mut passed = 0;
            // Whoever has accepted its own proposal first is the founder.
            let founder = loop {
                world.run(Duration::from_micros(500));
                let proposer = world.nodes.iter().position(|node| node.disk.accepted.is_some());
                passed += 1;
                if let Some(founder) = proposer.filter(|_| passed >= steps) {
                    break founder;
                }
            };
            world.crash(founder);
            let at_the_end = world.settled().len() == 3;
            world.run(20 * SECOND);
            let others = world.nodes.iter().enumerate().filter(|(node, _)| *node != founder);
            assert!(others.clone().all(|(_, node)| node.settled.is_some()), "seed {seed}, step {steps}");
            world.start(founder);
            world.run(5 * SECOND);
            let settled = world.settled();
            assert!(settled.len() == 3 && settled.iter().all(|value| *value == settled[0]), "seed {seed}");
            if at_the_end {
                break;
            }
            steps = passed + 1;
        }
    }
}
