//! Who leads, what their gates let go, and what is left when they are cut off or crash.

use super::cluster::{Cluster, RANGE};
use bifro_raft::Membership;
use std::time::Duration;

#[test]
fn what_the_leader_records_is_applied_everywhere() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    cluster.write(0..20, 100);
    cluster.await_agreement(&[0, 1, 2]);
    assert_eq!(cluster.records(1).len(), 20);
    let leader = cluster.await_leader();
    let members = Membership::new(cluster.ids.clone(), []);
    let id = cluster.ids[leader];
    for at in 0..3 {
        let host = cluster.host(at);
        assert_eq!((host.leader(RANGE), host.membership(RANGE)), (Some(id), Some(&members)));
        assert_eq!(host.leads(RANGE), at == leader);
    }
    let other = cluster.ids[(leader + 1) % 3];
    // Two of them are enough to commit: the third's word may still be on its way to the leader.
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.host(leader).lag(RANGE, other), Some(0));
}

#[test]
fn whoever_does_not_lead_records_nothing_and_nothing_breaks() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    let leader = cluster.await_leader();
    let follower = (leader + 1) % 3;
    cluster.record(follower, b"k", b"v");
    cluster.pass(Duration::from_secs(1));
    let host = cluster.host(follower);
    assert!(host.applied(RANGE) < host.recorded(RANGE), "its gate stays closed");
    host.record(bifro_core::ids::RangeId(99), Vec::new());
    assert_eq!(cluster.records(follower).len(), 0);
}

#[test]
fn another_leads_when_the_leader_is_cut_off_and_lost_gates_never_open() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    cluster.write(0..5, 10);
    let old = cluster.await_leader();
    cluster.cut_off(old);
    let cut_at = cluster.now;
    cluster.record(old, b"lost", b"1");
    let is_new = move |cluster: &Cluster| cluster.leader().is_some_and(|at| at != old);
    cluster.until("another leads", is_new);
    assert!(cluster.now.since(cut_at) < Duration::from_secs(8), "{:?}", cluster.now.since(cut_at));
    cluster.until("the old one gives up", |cluster| cluster.seats[old].as_ref().is_some_and(|seat| seat.has_lost()));
    cluster.write(5..10, 10);
    cluster.net.cut.clear();
    cluster.await_agreement(&[0, 1, 2]);
    assert!(!cluster.records(old).contains_key(&b"lost"[..]), "nobody else had it");
    let (new, back) = (cluster.await_leader(), cluster.ids[old]);
    let now = cluster.now;
    cluster.host(new).transfer_leadership(now, RANGE, back).expect("it leads");
    cluster.until("the old one leads again", |cluster| cluster.leader() == Some(old));
    // Gates of this reign open, the lost one stays closed: the seat looks at it in every turn.
    cluster.write(10..15, 10);
    cluster.await_agreement(&[0, 1, 2]);
}

#[test]
fn replicas_that_crash_come_back_as_they_were_and_catch_up() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    cluster.write(0..10, 50);
    let follower = (cluster.await_leader() + 1) % 3;
    cluster.stop(follower);
    cluster.write(10..20, 50);
    cluster.start(follower);
    cluster.await_agreement(&[0, 1, 2]);
    let leader = cluster.await_leader();
    cluster.stop(leader);
    cluster.until("another leads", |cluster| cluster.leader().is_some());
    cluster.write(20..30, 50);
    cluster.start(leader);
    cluster.await_agreement(&[0, 1, 2]);
    (0..3).for_each(|at| cluster.stop(at));
    (0..3).for_each(|at| cluster.start(at));
    cluster.write(30..35, 50);
    cluster.await_agreement(&[0, 1, 2]);
    assert_eq!(cluster.records(follower).len(), 35);
}

#[test]
fn a_group_that_went_quiet_finds_another_leader_when_its_node_is_down() {
    let mut cluster = Cluster::new(3, 0, |_| {});
    cluster.write(0..3, 10);
    let quiet = |cluster: &Cluster| (0..3).all(|at| cluster.group(at).is_some_and(|group| group.is_quiet()));
    cluster.until("the group goes quiet", quiet);
    let leader = cluster.await_leader();
    cluster.stop(leader);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.leader(), None, "nobody has noticed");
    let (now, gone) = (cluster.now, cluster.ids[leader]);
    for at in (0..3).filter(|at| *at != leader) {
        cluster.host(at).node_down(now, gone);
    }
    cluster.write(3..6, 10);
    cluster.start(leader);
    cluster.await_agreement(&[0, 1, 2]);
}

#[test]
fn a_new_leader_is_given_everything_page_by_page() {
    // From memory, and from a base.
    for overlay_bytes in [usize::MAX, 20_000] {
        let mut cluster = Cluster::new(3, 0, |settings| settings.space.overlay_bytes = overlay_bytes);
        let leader = cluster.await_leader();
        for key in 0..10_000_u64 {
            cluster.record(leader, &key.to_be_bytes(), b"value");
            if key % 500 == 0 {
                cluster.round();
            }
        }
        cluster.until("all is acknowledged", |cluster| cluster.acknowledged.len() == 10_000);
        cluster.await_agreement(&[0, 1, 2]);
        let leader = cluster.await_leader();
        let (now, next) = (cluster.now, (leader + 1) % 3);
        let to = cluster.ids[next];
        cluster.host(leader).transfer_leadership(now, RANGE, to).expect("it leads");
        cluster.until("the next one leads", |cluster| cluster.leader() == Some(next));
        let loaded = cluster.seats[next].as_ref().map(|seat| seat.loaded.clone());
        assert_eq!(loaded.as_ref(), Some(&cluster.acknowledged));
        let is_all_hot = cluster.host(next).ranges[&RANGE].space.is_all_hot();
        assert_eq!(is_all_hot, overlay_bytes == usize::MAX);
    }
}
