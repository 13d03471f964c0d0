//! Replicas whose log was compacted away while they were gone.

use super::cluster::{Cluster, RANGE};
use std::time::Duration;

/// With limits so small that checkpoints are frequent and a snapshot has many pieces.
fn small() -> Cluster {
    Cluster::new(3, 0, |settings| {
        settings.space.overlay_bytes = 4_096;
        settings.replication.chunk_bytes = 1_000;
        settings.replication.raft.tail_bytes_max = 4_096;
    })
}

/// Cuts off a follower until the leader's log begins behind the end of its own. Which one it is.
fn leave_behind(cluster: &mut Cluster) -> usize {
    cluster.write(0..5, 200);
    let leader = cluster.await_leader();
    let behind = (leader + 1) % 3;
    cluster.cut_off(behind);
    let is_behind = |cluster: &Cluster| {
        let end = cluster.group(behind).expect("it is up").last().index;
        (0..3).filter(|at| *at != behind).all(|at| cluster.group(at).is_some_and(|group| group.log_start().index > end))
    };
    let mut key = 5;
    while !is_behind(cluster) {
        cluster.write(key..key + 10, 200);
        key += 10;
        cluster.pass(Duration::from_millis(20));
    }
    cluster.write(key..key + 50, 200);
    behind
}

fn is_receiving(cluster: &Cluster, at: usize) -> bool {
    cluster.seats[at].as_ref().is_some_and(|seat| seat.host.receiving.contains(&RANGE))
}

/// It has more than the first piece.
fn has_pieces(cluster: &Cluster, at: usize) -> bool {
    let incoming = cluster.seats[at].as_ref().and_then(|seat| seat.host.ranges.get(&RANGE)?.incoming.as_ref());
    incoming.is_some_and(|incoming| incoming.pieces() > 1)
}

#[test]
fn who_lacks_what_was_compacted_gets_a_snapshot_even_over_a_bad_network() {
    for loss in [0, 30] {
        let mut cluster = small();
        let behind = leave_behind(&mut cluster);
        cluster.net.cut.clear();
        (cluster.net.loss, cluster.net.repeat, cluster.net.delay_ms) = (loss, loss, 10);
        cluster.until("a snapshot begins", |cluster| is_receiving(cluster, behind));
        cluster.until("it is in place", |cluster| !is_receiving(cluster, behind));
        (cluster.net.loss, cluster.net.repeat) = (0, 0);
        cluster.await_agreement(&[0, 1, 2]);
        // The log behind it holds.
        cluster.stop(behind);
        cluster.start(behind);
        cluster.await_agreement(&[0, 1, 2]);
    }
}

#[test]
fn a_snapshot_survives_the_end_of_its_leader() {
    let mut cluster = small();
    cluster.settings.replication.chunk_pause = Duration::from_millis(200);
    let behind = leave_behind(&mut cluster);
    cluster.stop(behind);
    cluster.start(behind);
    cluster.net.cut.clear();
    cluster.until("some of it is there", |cluster| has_pieces(cluster, behind));
    let old = cluster.await_leader();
    cluster.cut_off(old);
    cluster.until("another leads", |cluster| cluster.leader().is_some_and(|at| at != old));
    let rest: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    cluster.await_agreement(&rest);
    cluster.net.cut.clear();
    cluster.await_agreement(&[0, 1, 2]);
}

#[test]
fn a_crash_in_the_middle_of_a_snapshot_leaves_the_old_state() {
    let mut cluster = small();
    cluster.settings.replication.chunk_pause = Duration::from_millis(200);
    let behind = leave_behind(&mut cluster);
    cluster.stop(behind);
    cluster.start(behind);
    let before = cluster.group(behind).expect("it is up").last();
    cluster.net.cut.clear();
    cluster.until("some of it is there", |cluster| has_pieces(cluster, behind));
    cluster.stop(behind);
    cluster.start(behind);
    assert_eq!(cluster.group(behind).expect("it is up").last(), before);
    cluster.await_agreement(&[0, 1, 2]);
}

#[test]
fn a_snapshot_takes_the_place_of_a_longer_log_that_came_to_nothing() {
    let mut cluster = small();
    cluster.write(0..5, 200);
    let old = cluster.await_leader();
    cluster.cut_off(old);
    // More than the others write until they have compacted, however slow that is.
    for key in 1_000..1_200_u64 {
        cluster.record(old, &key.to_be_bytes(), b"lost");
        cluster.round();
    }
    cluster.until("another leads", |cluster| cluster.leader().is_some_and(|at| at != old));
    let mut key = 5;
    let is_compacted = |cluster: &Cluster| {
        let new = cluster.leader().and_then(|at| cluster.group(at));
        new.is_some_and(|group| group.log_start().index.0 > 10)
    };
    while !is_compacted(&cluster) {
        cluster.write(key..key + 3, 400);
        key += 3;
        cluster.pass(Duration::from_millis(20));
    }
    let last = |cluster: &Cluster, at: usize| cluster.group(at).expect("it is up").last().index;
    let new = cluster.await_leader();
    assert!(last(&cluster, old) > last(&cluster, new), "it has more, and none of it counts");
    cluster.net.cut.clear();
    cluster.until("a snapshot begins", |cluster| is_receiving(cluster, old));
    cluster.await_agreement(&[0, 1, 2]);
    // What it had in its place is gone from the disk as well.
    cluster.stop(old);
    cluster.start(old);
    cluster.await_agreement(&[0, 1, 2]);
    assert!(!cluster.records(old).contains_key(&1_000_u64.to_be_bytes()[..]));
}
