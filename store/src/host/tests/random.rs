//! Faults by chance, from seeds: nothing acknowledged is lost, replicas agree, lost gates stay closed.

use super::cluster::{Cluster, RANGE};
use bifro_core::rng::Prng;
use bifro_raft::Membership;
use std::time::Duration;

/// One more fault, the end of one, or a change.
fn disturb(cluster: &mut Cluster, rng: &mut Prng) {
    let at = rng.below(4) as usize;
    match rng.below(8) {
        0 => cluster.cut_off(at),
        1 => {
            let other = (at + 1 + rng.below(3) as usize) % 4;
            cluster.net.cut.insert((at, other));
        }
        2 | 3 => cluster.net.cut.clear(),
        4 => {
            cluster.stop(at);
            cluster.start(at);
        }
        5 => {
            (cluster.net.loss, cluster.net.repeat, cluster.net.delay_ms) = (rng.below(20), rng.below(20), rng.below(40))
        }
        6 => {
            let (now, to) = (cluster.now, cluster.ids[at]);
            if let Some(leader) = cluster.leader() {
                // It may be itself, or have lost its reign.
                let _may_be_refused = cluster.host(leader).transfer_leadership(now, RANGE, to);
            }
        }
        _ => {
            let voters = (0..4).filter(|other| *other != at).map(|other| cluster.ids[other]);
            let target = Membership::new(voters, (rng.below(2) == 0).then_some(cluster.ids[at]));
            let now = cluster.now;
            if let Some(leader) = cluster.leader() {
                // Another may be under way, or somebody lack too much.
                let _may_be_refused = cluster.host(leader).change_membership(now, RANGE, target);
            }
        }
    }
}

fn run(seed: u64) {
    let mut rng = Prng::new(seed);
    let mut cluster = Cluster::new(3, 1, |settings| {
        settings.space.overlay_bytes = 3_000;
        settings.replication.chunk_bytes = 1_000;
        settings.replication.raft.tail_bytes_max = 2_000;
    });
    cluster.rng = rng.derive(1);
    let mut key = 0_u64;
    for _ in 0..25 {
        disturb(&mut cluster, &mut rng);
        for _ in 0..rng.below(20) {
            if let Some(leader) = cluster.leader() {
                key += 1;
                cluster.record(leader, &key.to_be_bytes(), &vec![key as u8; rng.below(300) as usize]);
            }
            cluster.pass(Duration::from_millis(rng.below(60)));
        }
    }
    cluster.net.cut.clear();
    (cluster.net.loss, cluster.net.repeat, cluster.net.delay_ms) = (0, 0, 0);
    cluster.write(1_000_000..1_000_001, 10);
    let is_settled = |cluster: &Cluster| {
        let leads = cluster.leader().and_then(|at| cluster.group(at));
        leads.is_some_and(|group| !group.membership().is_joint() && group.members_since() <= group.committed())
    };
    cluster.until("the members are settled", is_settled);
    let leader = cluster.await_leader();
    let members = cluster.group(leader).expect("it leads").membership().clone();
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..4).partition(|at| members.contains(cluster.ids[*at]));
    cluster.await_agreement(&inside);
    // One that was made for a candidate which had been removed has no members, and a learner that slept while it was removed sleeps on.
    let is_harmless = |cluster: &Cluster, at: usize| {
        cluster.group(at).is_none_or(|group| group.membership().is_empty() || group.is_quiet())
    };
    cluster.until("removed replicas go", |cluster| outside.iter().all(|at| is_harmless(cluster, *at)));
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost() {
    for seed in 1..=6 {
        eprintln!("seed {seed}");
        run(seed);
    }
}
