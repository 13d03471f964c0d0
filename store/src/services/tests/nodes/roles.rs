//! Nodes that do not do everything: those without copies of retained messages ask others, and without hosts there are no persistent sessions.

use super::replicas::set;
use super::*;
use bifro_core::ports::{Inbox, PortError};
use bifro_core::roles::Roles;

/// Three nodes, of which these do not have the role.
fn without(seed: u64, role: Roles, nodes: &[usize]) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    for &node in nodes {
        cluster.duties[node].roles = Roles::ALL.without(role);
    }
    cluster.tell_nodes();
    cluster.settle();
    cluster
}

fn messages(cluster: &Cluster, node: usize) -> u64 {
    cluster.nodes[node].metrics.iter().map(|metrics| metrics.retained_messages.read()).sum()
}

#[test]
fn a_node_without_copies_sets_and_finds_retained_messages_on_those_that_have_them() {
    for seed in 0..20 {
        let mut cluster = without(seed, Roles::RETAIN, &[1]);
        let topics: Vec<String> = (0..6).map(|n| format!("t/{n}")).collect();
        for topic in &topics {
            let req = cluster.retain(1, 1, topic, "some words");
            while !cluster.heard(1).iter().any(set(req)) {
                assert!(cluster.step(), "it is answered");
            }
        }
        let all: Vec<String> = topics.iter().map(|topic| format!("{topic}=some words")).collect();
        for node in 0..3 {
            assert_eq!(cluster.retained(node), all, "node {node}");
        }
        assert_eq!((messages(&cluster, 0), messages(&cluster, 1), messages(&cluster, 2)), (6, 0, 6));
        cluster.retain(0, 0, "t/3", "");
        cluster.settle();
        cluster.retain(1, 0, "t/4", "other words");
        cluster.settle();
        let found = cluster.retained(1);
        assert_eq!((found.len(), &*found[3]), (5, "t/4=other words"));
        let is_done = |services: &RangeServices| services.lookups.is_empty();
        assert!(cluster.nodes.iter().flat_map(|node| &node.shards).all(is_done));
    }
}

#[test]
fn whatever_becomes_of_the_node_that_is_asked_another_one_answers() {
    for seed in 0..40 {
        let mut cluster = without(seed, Roles::RETAIN, &[1]);
        for topic in ["a", "b", "c"] {
            cluster.retain(0, 0, topic, "kept");
        }
        cluster.settle();
        let (found, kept) = (cluster.find(1), cluster.retain(1, 0, "d", "kept"));
        for _ in 0..cluster.pick(12) {
            cluster.step();
        }
        let asked = if seed % 2 == 0 { 0 } else { 2 };
        if seed % 3 == 0 {
            cluster.kill(asked);
        } else {
            let keys: Vec<_> =
                cluster.links.keys().copied().filter(|&(from, _, to)| from == 1 && to == asked).collect();
            for key in keys {
                cluster.cut(key);
                cluster.notice(key);
            }
        }
        cluster.settle();
        cluster.advance(LINK_LEASE.as_secs());
        let heard = cluster.heard(1);
        assert!(heard.iter().any(set(kept)), "seed {seed}");
        let found = heard.iter().find_map(|completion| match completion {
            Completion::Retained { req, messages } if *req == found => Some(messages.len()),
            _ => None,
        });
        assert!(found.is_some_and(|found| found == 3 || found == 4), "seed {seed}: {found:?}");
        assert_eq!(cluster.retained(1).len(), 4);
    }
}

#[test]
fn with_nobody_to_ask_for_long_nothing_is_set_or_found() {
    let mut cluster = without(1, Roles::RETAIN, &[0, 1, 2]);
    let (found, kept) = (cluster.find(1), cluster.retain(1, 0, "a", "lost"));
    cluster.settle();
    assert!(cluster.heard(1).is_empty(), "somebody may come");
    cluster.advance(6);
    let heard = cluster.heard(1);
    let is_refused = |of: &Completion| matches!(of, Completion::RetainSet { req, result: Err(PortError::Unavailable) } if *req == kept);
    assert!(heard.iter().any(is_refused), "{heard:?}");
    let is_empty =
        |of: &Completion| matches!(of, Completion::Retained { req, messages } if *req == found && messages.is_empty());
    assert!(heard.iter().any(is_empty), "{heard:?}");
    let (found, kept) = (cluster.find(1), cluster.retain(1, 0, "a", "in time"));
    cluster.duties[2].roles = Roles::ALL;
    cluster.tell_nodes();
    cluster.settle();
    let heard = cluster.heard(1);
    assert!(heard.iter().any(set(kept)), "{heard:?}");
    assert!(heard.iter().any(|of| matches!(of, Completion::Retained { req, .. } if *req == found)), "{heard:?}");
}

#[test]
fn persistent_sessions_are_refused_while_no_node_may_have_them() {
    let mut cluster = without(1, Roles::INBOX, &[0, 1, 2]);
    let attach = |cluster: &mut Cluster| {
        let (req, client, conn) = (cluster.nodes[0].req(), client("c"), conn(ShardId(0), 1));
        cluster.call(0, ShardId(0), |services, now, tenant| {
            let terms = AttachTerms { clean_start: false, expiry_s: 60, will: None };
            services.attach(now, req, conn, &client, tenant, terms);
        });
        cluster.settle();
        cluster.heard(0).into_iter().find_map(|completion| match completion {
            Completion::Attached { req: of, result } if of == req => Some(result.map(|_| ())),
            _ => None,
        })
    };
    assert_eq!(attach(&mut cluster), Some(Err(PortError::Unavailable)));
    cluster.duties[2] = Duties { is_draining: true, ..Duties::default() };
    cluster.tell_nodes();
    assert_eq!(attach(&mut cluster), Some(Ok(())), "one that is to go has them until others come");
}
