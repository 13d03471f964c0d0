//! Replicas that come and go.

use super::cluster::{Cluster, RANGE};
use bifro_raft::{ChangeError, Membership};
use std::time::Duration;

/// Has the leader make these seats the members, and waits until they are.
fn change(cluster: &mut Cluster, voters: &[usize], learners: &[usize]) {
    let ids = |seats: &[usize], cluster: &Cluster| seats.iter().map(|at| cluster.ids[*at]).collect::<Vec<_>>();
    let target = Membership::new(ids(voters, cluster), ids(learners, cluster));
    let is_done = |cluster: &Cluster| {
        let leads = cluster.leader().and_then(|at| cluster.group(at));
        leads.is_some_and(|group| *group.membership() == target && group.members_since() <= group.committed())
    };
    while !is_done(cluster) {
        let (leader, now) = (cluster.await_leader(), cluster.now);
        match cluster.host(leader).change_membership(now, RANGE, target.clone()) {
            Ok(()) | Err(ChangeError::Pending | ChangeError::NotLeader { .. } | ChangeError::Unchanged) => {}
            Err(ChangeError::NotCaughtUp { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        cluster.pass(Duration::from_millis(50));
    }
}

fn is_gone(cluster: &Cluster, at: usize) -> bool {
    let host = cluster.seats[at].as_ref().map(|seat| &seat.host);
    host.is_some_and(|host| host.membership(RANGE).is_none() && host.absent.contains_key(&RANGE))
}

#[test]
fn a_node_that_founded_nothing_has_a_replica_when_it_is_spoken_to() {
    for overlay_bytes in [usize::MAX, 4_096] {
        let mut cluster = Cluster::new(3, 1, |settings| settings.space.overlay_bytes = overlay_bytes);
        cluster.write(0..40, 300);
        assert!(is_gone(&cluster, 3));
        change(&mut cluster, &[0, 1, 2], &[3]);
        let (leader, id) = (cluster.await_leader(), cluster.ids[3]);
        cluster.until("it has caught up", |cluster| {
            cluster.seats[leader].as_ref().is_some_and(|seat| seat.host.lag(RANGE, id) == Some(0))
        });
        cluster.await_agreement(&[0, 1, 2, 3]);
        cluster.stop(3);
        cluster.start(3);
        assert!(!is_gone(&cluster, 3), "it is found again");
        change(&mut cluster, &[0, 1, 2, 3], &[]);
        cluster.await_agreement(&[0, 1, 2, 3]);
    }
}

#[test]
fn a_removed_replica_goes_for_good_until_it_is_added_again() {
    for overlay_bytes in [usize::MAX, 4_096] {
        let mut cluster = Cluster::new(3, 1, |settings| settings.space.overlay_bytes = overlay_bytes);
        cluster.write(0..20, 300);
        change(&mut cluster, &[0, 1, 2], &[3]);
        change(&mut cluster, &[1, 2, 3], &[]);
        cluster.until("its replica goes", |cluster| is_gone(cluster, 0));
        cluster.stop(0);
        cluster.start(0);
        cluster.pass(Duration::from_secs(4));
        assert!(is_gone(&cluster, 0), "and stays away");
        cluster.write(20..30, 300);
        cluster.await_agreement(&[1, 2, 3]);
        change(&mut cluster, &[1, 2, 3], &[0]);
        change(&mut cluster, &[0, 1, 2], &[]);
        cluster.until("the other one goes", |cluster| is_gone(cluster, 3));
        cluster.await_agreement(&[0, 1, 2]);
    }
}

#[test]
fn a_removal_that_a_crash_cuts_short_is_finished_at_the_start() {
    let mut cluster = Cluster::new(3, 0, |settings| settings.space.overlay_bytes = 2_000);
    cluster.write(0..40, 300);
    let leader = cluster.await_leader();
    let removed = (leader + 1) % 3;
    let has_space = |cluster: &Cluster| {
        let range = cluster.seats[removed].as_ref().and_then(|seat| seat.host.ranges.get(&RANGE));
        range.is_some_and(|range| range.space.checkpointed() > 0)
    };
    cluster.until("there is something to remove", has_space);
    let target = Membership::new((0..3).filter(|at| *at != removed).map(|at| cluster.ids[at]), []);
    let now = cluster.now;
    cluster.host(leader).change_membership(now, RANGE, target).expect("it leads");
    let is_going =
        |cluster: &Cluster| cluster.seats[removed].as_ref().is_some_and(|seat| seat.host.burials.contains_key(&RANGE));
    cluster.until("the replica is going", is_going);
    // The log is written to its end, but nobody is left to have the space dropped.
    cluster.stop(removed);
    cluster.start(removed);
    assert!(cluster.host(removed).membership(RANGE).is_none(), "it does not come back");
    cluster.until("the rest goes", |cluster| is_gone(cluster, removed));
    cluster.stop(removed);
    cluster.start(removed);
    assert!(is_gone(&cluster, removed), "and stays away");
}

#[test]
fn who_was_away_when_it_was_removed_is_told_later() {
    let mut cluster = Cluster::new(3, 1, |_| {});
    cluster.write(0..5, 10);
    change(&mut cluster, &[0, 1, 2], &[3]);
    cluster.await_agreement(&[0, 1, 2, 3]);
    let leader = cluster.await_leader();
    let removed = (leader + 1) % 3;
    let rest: Vec<usize> = (0..4).filter(|at| *at != removed).collect();
    cluster.cut_off(removed);
    change(&mut cluster, &rest, &[]);
    cluster.pass(Duration::from_secs(3));
    assert!(!is_gone(&cluster, removed));
    cluster.net.cut.clear();
    cluster.until("it is told", |cluster| is_gone(cluster, removed));
    cluster.write(5..10, 10);
    cluster.await_agreement(&rest);
}

#[test]
fn a_leader_that_is_removed_hands_over_and_goes() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    cluster.write(0..5, 10);
    let old = cluster.await_leader();
    let rest: Vec<usize> = (0..3).filter(|at| *at != old).collect();
    change(&mut cluster, &rest, &[]);
    cluster.until("its replica goes", |cluster| is_gone(cluster, old));
    cluster.write(5..10, 10);
    cluster.await_agreement(&rest);
}
