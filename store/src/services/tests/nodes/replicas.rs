//! Retained messages, the same on all nodes.

use super::*;
use bifro_core::ports::Retain;

impl Cluster {
    pub(super) fn retain(&mut self, node: usize, shard: u16, topic: &str, payload: &str) -> ReqId {
        let (req, message) = (self.nodes[node].req(), message(topic, payload, QoS::AtLeastOnce));
        self.call(node, ShardId(shard), |services, now, tenant| {
            services.set(now, req, tenant, &client("publisher"), &message);
        });
        req
    }

    /// Topics and payloads, as a subscriber on the node finds them.
    pub(super) fn retained(&mut self, node: usize) -> Vec<String> {
        let req = self.find(node);
        self.settle();
        self.found(node, req).expect("an answer")
    }

    pub(super) fn find(&mut self, node: usize) -> ReqId {
        let req = self.nodes[node].req();
        self.call(node, ShardId(0), |services, now, tenant| services.find(now, req, tenant, "#"));
        req
    }

    /// The answer to a search, if there is one.
    pub(super) fn found(&mut self, node: usize, req: ReqId) -> Option<Vec<String>> {
        let found = self.heard(node).into_iter().find_map(|completion| match completion {
            Completion::Retained { req: of, messages } if of == req => Some(messages),
            _ => None,
        });
        let found = found?.into_iter();
        Some(found.map(|retained| format!("{}={}", retained.message.topic(), text(&retained.message))).collect())
    }
}

pub(super) fn set(req: ReqId) -> impl Fn(&Completion) -> bool {
    move |completion| matches!(completion, Completion::RetainSet { req: of, result: Ok(()) } if *of == req)
}

#[test]
fn a_retained_message_is_on_every_node_before_its_publisher_hears_of_it() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        let req = cluster.retain(1, 1, "a/b", "x");
        while !cluster.heard(1).iter().any(set(req)) {
            assert!(cluster.step(), "it is answered");
        }
        for node in 0..3 {
            assert_eq!(cluster.retained(node), ["a/b=x"], "node {node}");
        }
        cluster.retain(2, 0, "a/b", "");
        cluster.settle();
        for node in 0..3 {
            assert!(cluster.retained(node).is_empty(), "node {node}");
        }
    }
}

#[test]
fn a_publisher_does_not_wait_for_a_node_that_dies_or_whose_link_has_lapsed() {
    let mut cluster = Cluster::new(1, 3);
    let keys: Vec<_> = cluster.links.keys().copied().filter(|&(from, _, to)| from == 0 && to == 1).collect();
    keys.iter().for_each(|&key| cluster.cut(key));
    let req = cluster.retain(0, 0, "a", "x");
    cluster.settle();
    assert!(!cluster.heard(0).iter().any(set(req)));
    keys.iter().for_each(|&key| cluster.notice(key));
    cluster.advance(LINK_LEASE.as_secs());
    assert!(cluster.heard(0).iter().any(set(req)));
    let req = cluster.retain(2, 0, "b", "x");
    // Whatever is under way to it is lost with it.
    cluster.kill(1);
    cluster.settle();
    assert!(cluster.heard(2).iter().any(set(req)));
}

#[test]
fn nodes_that_meet_again_have_the_same_retained_messages_whatever_each_was_told_meanwhile() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(seed, 3);
        let topics: Vec<String> = (0..12).map(|n| format!("t/{n}")).collect();
        for topic in &topics {
            cluster.retain(0, 0, topic, "first");
        }
        cluster.settle();
        let keys: Vec<_> = cluster.links.keys().copied().collect();
        for &key in keys.iter().filter(|(from, _, to)| *from == 2 || *to == 2) {
            cluster.cut(key);
            cluster.notice(key);
        }
        for step in 0..40 {
            let (node, topic) = (cluster.pick(3), &topics[cluster.pick(12)]);
            let payload = if cluster.pick(4) == 0 { String::new() } else { format!("{node}.{step}") };
            cluster.nodes[node].now = Instant::from_micros(cluster.nodes[node].now.as_micros() + 1_000);
            cluster.retain(node, 0, topic, &payload);
            for _ in 0..cluster.pick(20) {
                cluster.step();
            }
        }
        for key in keys.into_iter().filter(|(from, _, to)| *from == 2 || *to == 2) {
            cluster.link(key);
        }
        cluster.settle();
        let one = cluster.retained(0);
        assert_eq!(cluster.retained(1), one, "seed {seed}");
        assert_eq!(cluster.retained(2), one, "seed {seed}");
        assert!(cluster.nodes.iter().flat_map(|node| &node.shards).all(|services| services.mergings.is_empty()));
    }
}
