//! How soon a killed process is found out, how rarely a live one is taken for dead, and what it costs.

use super::world::{World, address};
use crate::{Config, Event};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use core::time::Duration;

/// How long after a kill everybody has been told that the process is dead.
fn detection(seed: u64, count: u64) -> Duration {
    let mut world = World::cluster(seed, count);
    let pause = Duration::from_micros(world.rng.below(1_000_000));
    world.run(pause);
    world.kill(address(2));
    let died = |world: &World| world.count(|event| event == Event::Died(NodeId(2)));
    world.run_until(Duration::from_secs(20), "everybody knows that node 2 is dead", |world| {
        died(world) == world.nodes.len()
    })
}

#[test]
fn a_killed_process_is_known_to_be_dead_within_two_seconds_among_three() {
    let mut spans: Vec<Duration> = (0..50).map(|seed| detection(seed, 3)).collect();
    spans.sort_unstable();
    std::eprintln!("3 nodes: median {:?}, worst {:?}", spans[25], spans[49]);
    assert!(spans[49] < Duration::from_secs(2), "{spans:?}");
}

#[test]
fn a_killed_process_is_known_to_be_dead_within_four_seconds_among_a_hundred() {
    let mut spans: Vec<Duration> = (0..50).map(|seed| detection(seed, 100)).collect();
    spans.sort_unstable();
    std::eprintln!("100 nodes: median {:?}, worst {:?}", spans[25], spans[49]);
    assert!(spans[49] < Duration::from_secs(4), "{spans:?}");
}

/// Deaths of processes that live, in `span`, with 5 % of the messages lost.
fn false_deaths(seed: u64, count: u64, span: Duration) -> (usize, usize) {
    let mut world = World::cluster(seed, count);
    world.loss_percent = 5;
    world.run(span);
    let died = world.count(|event| matches!(event, Event::Died(_)));
    (world.count(|event| matches!(event, Event::Suspected(_))), died)
}

/// `BIFRO_SWIM_HOURS` makes it as many hours of ten nodes: 168 are ten node-weeks, in some minutes.
#[test]
fn five_percent_loss_kills_fewer_than_one_in_a_node_week() {
    let hours = std::env::var("BIFRO_SWIM_HOURS").map_or(1, |hours| hours.parse().expect("a number of hours"));
    let (suspected, died) = false_deaths(1, 10, Duration::from_secs(hours * 3_600));
    std::eprintln!("10 nodes, {hours} hours: {suspected} suspicions, {died} deaths");
    assert!(suspected > 0, "otherwise this shows nothing");
    assert!(died as u64 * 168 <= hours * 10, "{died} deaths");
    let (_, died) = false_deaths(2, 3, Duration::from_secs(3_600));
    assert_eq!(died, 0);
}

/// Bytes per node and second in a quiet cluster.
fn quiet_rate(count: u64) -> f64 {
    let mut world = World::formed(9, count);
    let (before, span) = (world.bytes, Duration::from_secs(20));
    world.run(span);
    assert!(world.events.is_empty());
    (world.bytes - before) as f64 / count as f64 / span.as_secs_f64()
}

#[test]
fn what_a_node_sends_in_a_quiet_cluster_does_not_grow_with_the_cluster() {
    let [ten, hundred, thousand] = [10, 100, 1_000].map(quiet_rate);
    std::eprintln!("bytes per node and second: {ten:.0} of 10, {hundred:.0} of 100, {thousand:.0} of 1,000");
    assert!(thousand < ten * 1.1 && hundred < ten * 1.1);
}

#[test]
fn a_process_that_was_stopped_takes_nobody_for_dead() {
    for seconds in [1, 10, 60] {
        let mut world = World::cluster(seconds, 5);
        world.stop(address(2));
        world.run(Duration::from_secs(seconds));
        world.go_on(address(2));
        world.run_until(Duration::from_secs(20), "the stopped node is back", World::is_whole);
        let dead: Vec<NodeId> = world
            .events
            .iter()
            .filter_map(|(_, _, event)| match event {
                Event::Died(id) => Some(*id),
                _ => None,
            })
            .collect();
        assert!(dead.iter().all(|id| *id == NodeId(2)), "{dead:?}");
        assert_eq!(dead.is_empty(), seconds == 1, "a second is no death, {seconds} are");
    }
}

#[test]
fn who_is_cut_off_from_one_other_is_vouched_for_by_the_rest() {
    let mut world = World::cluster(4, 5);
    world.cut(&[1], &[2]);
    world.run(Duration::from_secs(60));
    assert_eq!(world.count(|event| matches!(event, Event::Died(_) | Event::Suspected(_))), 0);
}

#[test]
fn a_dead_member_is_evicted_once_after_the_grace() {
    let config = Config { eviction_grace: Duration::from_secs(5), ..Config::default() };
    let mut world = World::cluster_with(5, 3, config);
    world.kill(address(3));
    world.run(Duration::from_secs(5));
    assert_eq!(world.count(|event| event == Event::Evicted(NodeId(3))), 0);
    world.run(Duration::from_secs(30));
    assert_eq!(world.count(|event| event == Event::Evicted(NodeId(3))), 2, "each of the others hears it once");
}
