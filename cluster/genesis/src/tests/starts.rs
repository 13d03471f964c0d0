//! Nodes start in order, at once, late, and with what they had before.

use super::world::World;
use crate::{Effect, Question};
use alloc::vec::Vec;
use core::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_that_start_together_are_all_founders_and_soon_done() {
    for seed in 0..200 {
        let mut world = World::new(seed, 3, 3);
        for node in 0..3 {
            let delay = Duration::from_micros(world.rng.below(700_000));
            world.start_after(delay, node);
        }
        world.run(5 * SECOND);
        let settled = world.settled();
        assert_eq!(settled.len(), 3, "seed {seed}");
        assert_eq!(settled[0].founders, (0..3).map(World::id).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn one_of_three_waits_two_make_the_cluster_and_the_third_joins_it() {
    let mut world = World::new(1, 3, 3);
    world.start(2);
    world.run(60 * SECOND);
    assert!(world.settled().is_empty());
    let waiting = world.nodes[2].machine.as_ref().expect("it runs").waiting(world.now);
    assert_eq!((waiting.heard, waiting.seeds, waiting.is_seed), (1, 3, true));
    assert_eq!(waiting.missing, [0, 1]);
    assert!(world.nodes[2].disk.promised.round == 0, "nothing is proposed to nobody");
    world.start(0);
    world.run(3 * SECOND);
    assert_eq!(world.settled().len(), 2);
    assert_eq!(world.settled()[0].founders, [World::id(0), World::id(2)]);
    world.start(1);
    world.run(SECOND);
    assert_eq!(world.settled().len(), 3);
}

#[test]
fn the_only_seed_needs_nobody_and_others_learn_from_it() {
    let mut world = World::new(1, 1, 3);
    world.start(1);
    world.run(30 * SECOND);
    assert!(world.settled().is_empty(), "who is no seed creates nothing");
    assert!(!world.nodes[1].machine.as_ref().expect("it runs").waiting(world.now).is_seed);
    world.start(0);
    world.run(Duration::from_micros(1));
    assert_eq!(world.settled().len(), 1);
    world.start(2);
    world.run(SECOND);
    assert_eq!(world.settled().len(), 3);
    assert_eq!(world.settled()[0].founders, [World::id(0)]);
}

#[test]
fn a_node_with_data_brings_its_cluster_along() {
    for seed in 0..100 {
        let mut world = World::new(seed, 3, 4);
        let value = world.decided_alone(1);
        world.trust(&value);
        (0..4).for_each(|node| world.start(node));
        world.run(5 * SECOND);
        assert_eq!(world.settled(), [&value; 4], "seed {seed}");
    }
}

#[test]
fn all_ended_and_started_in_another_order_know_what_they_knew() {
    let mut world = World::new(7, 3, 3);
    (0..3).for_each(|node| world.start(node));
    world.run(5 * SECOND);
    let before = world.settled()[0].clone();
    (0..3).for_each(|node| {
        world.crash(node);
        world.nodes[node].settled = None;
    });
    world.start(1);
    world.run(2 * SECOND);
    assert_eq!(world.settled(), [&before], "it waits for nobody for long");
    world.start(2);
    world.start(0);
    world.run(Duration::from_millis(100));
    assert_eq!(world.settled(), [&before; 3], "another that says the same is enough");
}

#[test]
fn two_that_know_different_clusters_tell_of_it() {
    let mut world = World::new(3, 2, 2);
    let values = [world.decided_alone(0), world.decided_alone(1)];
    (0..2).for_each(|node| world.start(node));
    world.run(3 * SECOND);
    for node in 0..2 {
        assert_eq!(world.nodes[node].conflicts[0], values[1 - node]);
        assert_eq!(world.nodes[node].settled.as_ref(), Some(&values[node]), "it keeps what it has");
    }
}

#[test]
fn a_settled_node_is_quiet() {
    let mut world = World::new(5, 3, 3);
    (0..3).for_each(|node| world.start(node));
    world.run(5 * SECOND);
    assert_eq!(world.settled().len(), 3);
    let before = world.trace.len();
    world.run(60 * SECOND);
    assert_eq!(world.trace.len(), before);
    let asks =
        world.trace.iter().filter(|(_, _, effect)| matches!(effect, Effect::Ask { question: Question::Ask, .. }));
    assert!(asks.count() < 60, "a start is not a flood");
}
