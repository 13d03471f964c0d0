//! Who is who: restarts, moved and copied data directories, reused addresses.

use super::world::{World, address, announcement};
use crate::{Event, Health, Status};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use core::time::Duration;
use std::net::SocketAddr;

#[test]
fn a_process_restarted_at_once_is_back_at_once() {
    let mut world = World::cluster(1, 5);
    world.kill(address(2));
    world.start(announcement(2, 2, 22), &[address(1)]);
    world.run_until(Duration::from_secs(1), "everybody knows the new process", |world| {
        let others = world.nodes.values().filter(|node| node.me().id != NodeId(2));
        world.is_whole()
            && others.into_iter().all(|node| node.member(NodeId(2)).is_some_and(|m| m.announcement.nonce == 22))
    });
}

#[test]
fn a_node_that_moves_is_followed() {
    let mut world = World::cluster(2, 5);
    world.kill(address(2));
    let mut moved = announcement(2, 2, 22);
    moved.address = address(99);
    world.start(moved, &[address(1)]);
    world.run_until(Duration::from_secs(2), "everybody knows where it is", World::is_whole);
    assert!(world.count(|event| event == Event::Changed(NodeId(2))) >= 4);
}

#[test]
fn another_node_on_the_address_of_a_dead_one_is_not_taken_for_it() {
    let mut world = World::cluster(3, 5);
    world.kill(address(2));
    let mut other = announcement(77, 1, 77);
    other.address = address(2);
    world.start(other, &[address(1)]);
    world.run_until(Duration::from_secs(10), "the old one is dead, the new one alive", |world| {
        world.nodes.values().all(|node| node.member(NodeId(2)).is_some_and(|member| member.status == Status::Dead))
            && world.is_whole()
    });
    assert!(world.count(|event| event == Event::AddressTaken(NodeId(2), NodeId(77))) > 0);
    assert!(world.nodes.values().all(|node| node.lost() == 0), "nobody asks for the old one where the new one is");
}

/// Where processes have been told to end.
fn superseded(world: &World) -> Vec<SocketAddr> {
    let ended = world.events.iter().filter(|(_, _, event)| *event == Event::Superseded);
    ended.map(|(_, at, _)| *at).collect()
}

#[test]
fn of_two_processes_with_one_identity_the_older_ends() {
    let mut world = World::cluster(4, 4);
    let mut copy = announcement(2, 2, 5);
    copy.address = address(50);
    world.start(copy, &[address(1)]);
    world.run(Duration::from_secs(5));
    assert_eq!(superseded(&world), [address(2)]);
    world.kill(address(2));
    world.run_until(Duration::from_secs(10), "the younger goes on", World::is_whole);
}

#[test]
fn of_two_processes_from_one_copied_directory_one_ends() {
    let mut world = World::cluster(5, 4);
    let mut copy = announcement(2, 1, 1);
    copy.address = address(50);
    world.start(copy, &[address(1)]);
    world.run(Duration::from_secs(5));
    assert_eq!(superseded(&world), [address(50)], "the one with the lower nonce");
}

#[test]
fn a_node_with_an_old_copy_of_its_directory_is_heard() {
    let mut world = World::cluster(6, 4);
    world.kill(address(2));
    world.start(announcement(2, 9, 22), &[address(1)]);
    world.run_until(Duration::from_secs(5), "start 9 is known", World::is_whole);
    world.kill(address(2));
    world.run(Duration::from_secs(10));
    world.start(announcement(2, 3, 23), &[address(1)]);
    world.run_until(Duration::from_secs(20), "start 3 is known", World::is_whole);
    assert_eq!(world.nodes[&address(2)].me().incarnation.start, 9, "it counts on from what the others know");
}

#[test]
fn health_is_known_everywhere_and_no_reason_for_suspicion() {
    let mut world = World::cluster(7, 10);
    world.with(4, |node, _| node.set_health(Health::Impaired));
    world.run_until(Duration::from_secs(2), "everybody knows", |world| {
        let others = world.nodes.values().filter(|node| node.me().id != NodeId(4));
        others
            .into_iter()
            .all(|node| node.member(NodeId(4)).is_some_and(|member| member.announcement.health == Health::Impaired))
    });
    assert_eq!(world.count(|event| event == Event::Changed(NodeId(4))), 9);
    assert!(world.is_whole());
}
