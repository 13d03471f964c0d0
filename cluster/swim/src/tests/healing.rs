//! Halves that meet again, nodes that come back, nodes that leave.

use super::world::{World, address, announcement};
use crate::{Config, Event, Member, Peer, Status};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use core::time::Duration;
use std::net::SocketAddr;

#[test]
fn halves_that_were_cut_for_minutes_or_weeks_become_one_cluster() {
    for (seed, span) in [(1, 5 * 60), (2, 21 * 24 * 3_600)] {
        let mut world = World::cluster(seed, 6);
        world.cut(&[1, 2], &[3, 4, 5, 6]);
        world.run(Duration::from_secs(60));
        let present = |id: u64| world.nodes[&address(id)].present();
        assert_eq!([1, 2, 3, 4, 5, 6].map(present), [2, 2, 4, 4, 4, 4]);
        // Nothing happens in a long time but attempts to reach the others: one in so many seconds is all it takes.
        world.run(Duration::from_secs(span.min(3_600)));
        world.cuts.clear();
        let healed = world.run_until(Duration::from_secs(30), "the halves are one cluster", World::is_whole);
        std::eprintln!("cut for {span} s: healed in {healed:?}");
    }
}

#[test]
fn fifty_and_fifty_meet_again() {
    let mut world = World::cluster(3, 100);
    let (one, other): (Vec<u64>, Vec<u64>) = (1..=100).partition(|id| id % 2 == 0);
    world.cut(&one, &other);
    world.run(Duration::from_secs(120));
    assert!(world.nodes.values().all(|node| node.present() == 50));
    world.cuts.clear();
    let healed = world.run_until(Duration::from_secs(60), "the halves are one cluster", World::is_whole);
    std::eprintln!("50 and 50: healed in {healed:?}");
}

#[test]
fn a_cut_that_comes_and_goes_every_two_seconds_ends_well() {
    let mut world = World::cluster(4, 5);
    for _ in 0..30 {
        world.cut(&[1, 2], &[3, 4, 5]);
        world.run(Duration::from_secs(2));
        world.cuts.clear();
        world.run(Duration::from_secs(2));
    }
    world.run_until(Duration::from_secs(30), "one cluster", World::is_whole);
}

#[test]
fn a_cut_in_one_direction_is_healed_when_it_ends() {
    let mut world = World::cluster(5, 4);
    for other in [2, 3, 4] {
        world.cuts.insert((address(1), address(other)));
    }
    world.run(Duration::from_secs(60));
    let dead = world.nodes[&address(2)].member(NodeId(1)).map(|member| member.status);
    assert_eq!(dead, Some(Status::Dead), "nobody hears it");
    world.cuts.clear();
    world.run_until(Duration::from_secs(30), "one cluster", World::is_whole);
}

#[test]
fn a_cluster_whose_seed_is_down_at_first_forms_when_it_comes() {
    let mut world = World::new(6, crate::Config::default());
    for id in [2, 3] {
        world.start(announcement(id, 1, id), &[address(1)]);
    }
    world.run(Duration::from_secs(600));
    assert_eq!(world.nodes[&address(2)].present(), 1);
    world.start(announcement(1, 1, 1), &[address(1)]);
    world.run_until(Duration::from_secs(30), "one cluster", World::is_whole);
}

#[test]
fn everybody_killed_and_restarted_finds_each_other_without_seeds() {
    let mut world = World::cluster(7, 4);
    let peers = world.nodes[&address(1)].peers();
    assert_eq!(peers.len(), 3);
    for id in 1..=4 {
        world.kill(address(id));
    }
    for id in 1..=4 {
        let me = announcement(id, 2, 10 + id);
        let rng = bifro_core::rng::Prng::new(id);
        let remembered = if id == 1 { peers.clone() } else { Vec::new() };
        let node = crate::Swim::new(crate::Config::default(), me, remembered, rng, world.now);
        world.nodes.insert(address(id), node);
        world.with(id, |node, now| node.handle_timeout(now));
    }
    world.run_until(Duration::from_secs(30), "one cluster", World::is_whole);
}

#[test]
fn who_leaves_is_not_suspected_and_not_asked_back() {
    let mut world = World::cluster(8, 5);
    world.with(3, |node, _| node.leave());
    world.run_until(Duration::from_secs(5), "it has told", |world| world.nodes[&address(3)].has_told());
    world.kill(address(3));
    world.run(Duration::from_secs(30));
    assert_eq!(world.count(|event| event == Event::Left(NodeId(3))), 4);
    assert_eq!(world.count(|event| matches!(event, Event::Suspected(_) | Event::Died(_))), 0);
    assert!(world.nodes.values().all(|node| node.lost() == 0));
    world.start(announcement(3, 2, 33), &[address(1)]);
    world.run_until(Duration::from_secs(5), "it is back", World::is_whole);
}

#[test]
fn a_dead_member_that_an_operator_removes_is_asked_no_more() {
    let mut world = World::cluster(9, 3);
    world.kill(address(3));
    world.run(Duration::from_secs(10));
    assert_eq!(world.nodes[&address(2)].lost(), 1);
    assert!(!world.with(2, |node, now| node.remove(NodeId(1), false, now)), "it lives");
    assert!(world.with(2, |node, now| node.remove(NodeId(3), false, now)));
    world.run(Duration::from_secs(5));
    assert!(world.nodes.values().all(|node| node.lost() == 0), "the other one has heard of it");
}

#[test]
fn who_is_expelled_is_told_so_whenever_it_comes_back_and_whomever_it_asks() {
    let mut world = World::cluster(11, 4);
    world.kill(address(3));
    world.run(Duration::from_secs(10));
    assert!(world.with(2, |node, now| node.remove(NodeId(3), false, now)));
    assert!(world.with(2, |node, now| node.remove(NodeId(3), true, now)), "also if it was removed before");
    let knows = |world: &World, id: u64| world.nodes[&address(id)].member(NodeId(3)).is_some_and(Member::is_expelled);
    world.run_until(Duration::from_secs(60), "all know of it", |world| [1, 2, 4].iter().all(|&id| knows(world, id)));
    world.start(announcement(3, 9, 33), &[address(4)]);
    let is_told = |world: &World| world.count(|event| event == Event::Expelled) == 1;
    world.run_until(Duration::from_secs(5), "it hears", is_told);
    world.run(Duration::from_secs(10));
    assert!([1, 2, 4].iter().all(|&id| knows(&world, id)), "nobody has taken it in");
    let expelled = world.nodes[&address(1)].expelled();
    assert_eq!(expelled, [Peer { id: NodeId(3), address: address(3) }]);
    world.kill(address(1));
    world.start(announcement(1, 2, 11), &[address(2)]);
    world.with(1, |node, now| node.recall_expelled(&expelled, now));
    assert!(knows(&world, 1), "nor has who was started again");
    assert!(world.with(2, |node, now| node.remove(NodeId(77), true, now)), "nobody has met it");
    assert!(!world.with(2, |node, now| node.remove(NodeId(78), false, now)));
    let knows = |world: &World, id: u64| world.nodes[&address(id)].member(NodeId(77)).is_some_and(Member::is_expelled);
    world.run_until(Duration::from_secs(60), "all know of it", |world| [1, 2, 4].iter().all(|&id| knows(world, id)));
}

/// Node 4 stands still while node 3 dies and is removed; when it goes on, everybody else has had time to forget whoever left.
#[test]
fn who_was_removed_is_not_brought_back_by_old_news_but_may_come_back_itself() {
    let config = Config { departure_memory: Duration::from_secs(20), ..Config::default() };
    let mut world = World::cluster_with(10, 4, config);
    world.stopped.insert(address(4));
    world.kill(address(3));
    world.run(Duration::from_secs(10));
    assert!(world.with(2, |node, now| node.remove(NodeId(3), false, now)));
    world.run(Duration::from_secs(60));
    world.events.clear();
    world.stopped.remove(&address(4));
    world.start(announcement(5, 1, 5), &[address(4)]);
    let is_removed = |world: &World, id: u64| {
        let member = world.nodes[&address(id)].member(NodeId(3));
        member.is_some_and(|member| member.status == Status::Removed)
    };
    world.run_until(Duration::from_secs(60), "all know of it", |world| {
        [1, 2, 4, 5].iter().all(|&id| is_removed(world, id))
    });
    let came_back = |from: SocketAddr| {
        move |(_, at, event): &(_, SocketAddr, Event)| *at == from && *event == Event::Joined(NodeId(3))
    };
    assert!(!world.events.iter().any(came_back(address(1))) && !world.events.iter().any(came_back(address(2))));
    world.start(announcement(3, 2, 33), &[address(1)]);
    world.run_until(Duration::from_secs(5), "it is back", World::is_whole);
}
