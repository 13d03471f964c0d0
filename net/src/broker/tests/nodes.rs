//! Drivers of several nodes, and the batches that travel between them.

use super::*;
use bifro_core::ids::NodeIdx;
use bifro_core::nodes::{Member as Belonging, Node as Member, Nodes};
use bifro_core::ports::Via;
use bifro_core::roles::Duties;

/// Node i is counted as i + 1 by the others, and has i + 1 shards.
struct Cluster {
    nodes: Vec<Node>,
    lives: Vec<bool>,
    /// Nothing travels at present.
    is_held: bool,
    under_way: VecDeque<(usize, ShardId, Via, Vec<u8>)>,
}

const fn idx(node: usize) -> NodeIdx {
    NodeIdx(node as u16 + 1)
}

impl Cluster {
    fn new(count: usize) -> Self {
        let node = |node: usize| {
            Node::new(Setup { member: Some(NodeId(node as u64)), shards: node as u16 + 1, ..Setup::default() })
        };
        let nodes = (0..count).map(node).collect();
        let mut cluster = Self { nodes, lives: vec![true; count], is_held: false, under_way: VecDeque::new() };
        cluster.tell_nodes();
        cluster.all_links(true);
        cluster.settle();
        cluster
    }

    fn tell_nodes(&mut self) {
        let member = |node: usize| Member {
            idx: idx(node),
            id: NodeId(node as u64),
            nonce: 0,
            address: ([127, 0, 0, 1], 1).into(),
            shards: node as u16 + 1,
            duties: Duties::default(),
            is_well: true,
        };
        let belongs = |node: usize| Belonging { id: NodeId(node as u64), duties: Duties::default() };
        for me in 0..self.nodes.len() {
            let others = (0..self.nodes.len()).filter(|&node| node != me && self.lives[node]).map(member).collect();
            let members = (0..self.nodes.len()).map(belongs).collect();
            let nodes = Arc::new(Nodes { me: NodeId(me as u64), others, members });
            self.nodes[me].command(|| Command::Nodes(nodes.clone()));
        }
    }

    fn all_links(&mut self, up: bool) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|&to| to != from) {
                self.links(from, to, up);
            }
        }
    }

    /// The links of all shards of one node to another.
    fn links(&mut self, from: usize, to: usize, up: bool) {
        self.under_way.retain(|(at, _, via, _)| match via {
            Via::From(node, _) => (*node, *at) != (idx(from), to),
            Via::To(node) => (*at, *node) != (from, idx(to)),
        });
        for shard in 0..self.nodes[from].brokers.len() {
            let end = shard % self.nodes[to].brokers.len();
            let ends = [(to, end, Via::From(idx(from), ShardId(shard as u16))), (from, shard, Via::To(idx(to)))];
            for (node, shard, via) in ends {
                let now = self.nodes[node].now;
                let broker = &mut self.nodes[node].brokers[shard];
                broker.now = now;
                if up { broker.link_up(via) } else { broker.link_down(via) }
            }
        }
    }

    fn kill(&mut self, node: usize) {
        self.lives[node] = false;
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.links(node, other, false);
            self.links(other, node, false);
        }
        self.tell_nodes();
    }

    /// Puts what the drivers have for each other under way.
    fn collect(&mut self) {
        for (node, of) in self.nodes.iter_mut().enumerate() {
            for (shard, broker) in of.brokers.iter_mut().enumerate() {
                broker.remotes.flush(|via, batch| {
                    let (to, end, there) = match via {
                        Via::To(to) => {
                            let to = usize::from(to.0) - 1;
                            (to, None, Via::From(idx(node), ShardId(shard as u16)))
                        }
                        Via::From(from, end) => (usize::from(from.0) - 1, Some(end), Via::To(idx(node))),
                    };
                    // As many shards as its number says.
                    let end = end.unwrap_or(ShardId((shard % (to + 1)) as u16));
                    self.under_way.push_back((to, end, there, batch.to_vec()));
                    true
                });
            }
        }
    }

    fn settle(&mut self) {
        loop {
            self.nodes.iter_mut().for_each(Node::settle);
            self.collect();
            if self.is_held || self.under_way.is_empty() {
                return;
            }
            while let Some((node, shard, via, batch)) = self.under_way.pop_front() {
                let now = self.nodes[node].now;
                let broker = &mut self.nodes[node].brokers[shard.index()];
                broker.now = now;
                assert_eq!(broker.receive_batch(via, &batch, usize::MAX), Some(batch.len()));
            }
        }
    }

    fn advance(&mut self, time: Duration) {
        self.nodes.iter_mut().for_each(|node| node.advance(time));
        self.settle();
    }

    fn client(&mut self, node: usize, shard: usize, id: &str) -> Who {
        let who = self.nodes[node].accept(shard, Version::V5);
        self.nodes[node].send(who, &connect(Version::V5, id, &[0x21, 0, 2], 0));
        self.settle();
        let heard = self.nodes[node].hear(who);
        assert!(heard[0].starts_with("CONNACK 0x00"), "{heard:?}");
        who
    }

    fn subscribed(&mut self, node: usize, who: Who, filter: &str) {
        self.nodes[node].subscribe(who, filter, QoS::AtLeastOnce);
        self.settle();
        assert_eq!(self.nodes[node].hear(who), ["SUBACK 100 [1]"]);
    }

    fn publish(&mut self, node: usize, who: Who, topic: &str, payload: &str, packet_id: Option<u16>) {
        self.nodes[node].publish(who, topic, payload.as_bytes(), packet_id);
        self.settle();
    }
}

#[test]
fn a_message_reaches_the_subscribers_of_every_node_once() {
    let mut cluster = Cluster::new(3);
    let publisher = cluster.client(2, 2, "p");
    let subscribers: Vec<_> = [(0, 0), (1, 0), (1, 1), (2, 1)]
        .into_iter()
        .map(|(node, shard)| (node, cluster.client(node, shard, &format!("s{node}{shard}"))))
        .collect();
    for &(node, who) in &subscribers {
        cluster.subscribed(node, who, "a/+");
        cluster.subscribed(node, who, "#");
    }
    cluster.publish(2, publisher, "a/b", "one", None);
    cluster.publish(2, publisher, "a/b", "two", Some(7));
    for (node, who) in subscribers {
        assert_eq!(cluster.nodes[node].hear(who), ["PUBLISH q0 a/b=one", "PUBLISH q1 #1 a/b=two"], "node {node}");
    }
    assert_eq!(cluster.nodes[2].hear(publisher), ["PUBACK 7 0x00 SUCCESS"]);
    assert!(cluster.nodes.iter().flat_map(|node| &node.brokers).all(|broker| broker.publishes.is_idle()));
}

#[test]
fn messages_that_differ_by_their_payload_alone_come_in_order_however_little_a_turn_may_do() {
    let mut cluster = Cluster::new(2);
    let (publisher, one, merged) =
        (cluster.client(0, 0, "p"), cluster.client(1, 0, "one"), cluster.client(1, 0, "two"));
    for (who, filter) in [(one, "a"), (one, "b"), (merged, "b"), (merged, "+")] {
        cluster.subscribed(1, who, filter);
    }
    // Each counts as one, and as one more for each of its two receivers.
    for (topic, most, turns_expected) in [("a", 1, 4), ("a", 4, 2), ("b", 1, 4), ("b", 7, 2), ("b", 100, 1)] {
        cluster.publish(0, publisher, topic, "0", None);
        cluster.is_held = true;
        for payload in ["1", "2", "3", "4"] {
            cluster.nodes[0].publish(publisher, topic, payload.as_bytes(), None);
        }
        cluster.settle();
        let (node, shard, via, batch) = cluster.under_way.pop_front().expect("a batch");
        assert!(cluster.under_way.is_empty());
        let (mut at, mut turns, broker) = (0, 0, &mut cluster.nodes[node].brokers[shard.index()]);
        while at < batch.len() {
            turns += 1;
            at += broker.receive_batch(via, &batch[at..], broker.work + most).expect("well formed");
        }
        assert_eq!(turns, turns_expected, "{topic} {most}");
        cluster.is_held = false;
        cluster.settle();
        let heard = ["0", "1", "2", "3", "4"].map(|payload| format!("PUBLISH q0 {topic}={payload}"));
        assert_eq!(cluster.nodes[1].hear(merged), heard, "{topic} {most}");
        assert_eq!(cluster.nodes[1].hear(one), heard, "{topic} {most}");
        assert_eq!(cluster.nodes[0].hear(publisher), [""; 0]);
    }
}

#[test]
fn a_publish_is_acknowledged_when_the_other_node_has_taken_it_over_and_not_before() {
    let mut cluster = Cluster::new(2);
    let (publisher, subscriber) = (cluster.client(0, 0, "p"), cluster.client(1, 1, "s"));
    cluster.subscribed(1, subscriber, "t");
    cluster.is_held = true;
    cluster.publish(0, publisher, "t", "x", Some(1));
    assert!(cluster.nodes[0].hear(publisher).is_empty());
    cluster.is_held = false;
    cluster.settle();
    assert_eq!(cluster.nodes[1].hear(subscriber), ["PUBLISH q1 #1 t=x"]);
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 1 0x00 SUCCESS"]);
    cluster.publish(0, publisher, "elsewhere", "x", Some(2));
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 2 0x10 NO_MATCHING_SUBSCRIBERS"]);
}

#[test]
fn a_publish_that_a_link_may_have_lost_fails_and_one_for_the_dead_does_not() {
    let mut cluster = Cluster::new(2);
    let (publisher, subscriber) = (cluster.client(0, 0, "p"), cluster.client(1, 0, "s"));
    cluster.subscribed(1, subscriber, "t");
    cluster.is_held = true;
    cluster.publish(0, publisher, "t", "lost", Some(1));
    cluster.links(0, 1, false);
    cluster.settle();
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 1 0x83 IMPLEMENTATION_SPECIFIC_ERROR"]);
    // Now it waits for a link: what the node listens to is not known.
    cluster.publish(0, publisher, "t", "later", Some(2));
    cluster.publish(0, publisher, "t", "nobody waits for this", None);
    assert!(cluster.nodes[0].hear(publisher).is_empty());
    cluster.is_held = false;
    cluster.links(0, 1, true);
    cluster.settle();
    assert_eq!(cluster.nodes[1].hear(subscriber), ["PUBLISH q1 #1 t=later"]);
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 2 0x00 SUCCESS"]);

    cluster.is_held = true;
    cluster.publish(0, publisher, "t", "for the dead", Some(3));
    cluster.kill(1);
    cluster.settle();
    let heard = cluster.nodes[0].hear(publisher);
    assert_eq!(heard, ["PUBACK 3 0x83 IMPLEMENTATION_SPECIFIC_ERROR"], "its link ended first: who knows");
    cluster.publish(0, publisher, "t", "for nobody", Some(4));
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 4 0x10 NO_MATCHING_SUBSCRIBERS"]);
    assert!(cluster.nodes[0].brokers[0].publishes.is_idle());
}

#[test]
fn a_publish_waits_for_a_live_node_without_a_link_until_the_deadline() {
    let mut cluster = Cluster::new(2);
    let publisher = cluster.client(0, 0, "p");
    cluster.links(1, 0, false);
    cluster.links(0, 1, false);
    cluster.publish(0, publisher, "t", "x", Some(1));
    assert!(cluster.nodes[0].hear(publisher).is_empty());
    assert_eq!(cluster.nodes[0].metrics(0).nodes_unheard.read(), 1);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 1 0x83 IMPLEMENTATION_SPECIFIC_ERROR"]);
    // The node dies: it is waited for no longer.
    cluster.publish(0, publisher, "t", "x", Some(2));
    cluster.lives[1] = false;
    cluster.tell_nodes();
    cluster.settle();
    assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 2 0x10 NO_MATCHING_SUBSCRIBERS"]);
}

/// [MQTT5-4.8.2]
#[test]
fn a_group_over_several_nodes_gets_each_message_once_and_all_its_members_get_some() {
    let mut cluster = Cluster::new(3);
    let members: Vec<_> = [(0, 0), (1, 1), (1, 0), (2, 2)]
        .into_iter()
        .map(|(node, shard)| (node, cluster.client(node, shard, &format!("m{node}{shard}"))))
        .collect();
    for &(node, who) in &members {
        cluster.subscribed(node, who, "$share/g/t");
    }
    let publisher = cluster.client(0, 0, "p");
    let mut counts = vec![0; members.len()];
    for n in 1..=200 {
        cluster.publish(0, publisher, "t", &format!("{n}"), Some(1));
        assert_eq!(cluster.nodes[0].hear(publisher), ["PUBACK 1 0x00 SUCCESS"]);
        let mut got = 0;
        for (at, &(node, who)) in members.iter().enumerate() {
            let heard = cluster.nodes[node].hear(who);
            got += heard.len();
            counts[at] += heard.len();
            for line in heard {
                let id = line.split('#').nth(1).and_then(|rest| rest.split(' ').next()).expect("a packet identifier");
                cluster.nodes[node].puback(who, id.parse().expect("a number"));
            }
        }
        assert_eq!(got, 1, "message {n}");
    }
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

#[test]
fn a_message_for_a_member_that_has_just_left_goes_to_one_on_another_node() {
    let mut cluster = Cluster::new(2);
    let (publisher, here, there) = (cluster.client(0, 0, "p"), cluster.client(0, 0, "m0"), cluster.client(1, 0, "m1"));
    cluster.subscribed(0, here, "$share/g/t");
    cluster.subscribed(1, there, "$share/g/t");
    cluster.is_held = true;
    // Node 0 does not hear that its member is alone.
    cluster.nodes[1].unsubscribe(there, "$share/g/t");
    cluster.settle();
    for n in 1..=16 {
        cluster.publish(0, publisher, "t", &format!("{n}"), Some(n));
    }
    let late = cluster.nodes[0].hear(here).len();
    cluster.under_way.make_contiguous().sort_by_key(|(node, ..)| std::cmp::Reverse(*node));
    cluster.is_held = false;
    cluster.settle();
    assert_eq!(cluster.nodes[0].hear(publisher).len(), 16);
    for n in 1..=16 {
        cluster.nodes[0].puback(here, n);
        cluster.settle();
    }
    let heard = cluster.nodes[0].hear(here).len();
    assert!(late < 16, "some were offered to the other node");
    assert_eq!(late + heard, 16, "all of them came here in the end");
    assert!(cluster.nodes[0].brokers[0].requests.is_empty());
}

/// [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn a_client_id_taken_over_on_another_node_ends_the_old_connection_before_the_new_one_is_accepted() {
    let mut cluster = Cluster::new(3);
    let mut old = (0, cluster.client(0, 0, "same"));
    for turn in 1..9 {
        let node = turn % 3;
        let new = (node, cluster.client(node, 0, "same"));
        assert_eq!(cluster.nodes[old.0].hear(old.1), ["DISCONNECT 0x8e SESSION_TAKEN_OVER"]);
        old = new;
    }
}

#[test]
fn what_is_no_batch_is_refused() {
    let mut cluster = Cluster::new(2);
    let (to, from) = (Via::To(idx(1)), Via::From(idx(1), ShardId(0)));
    let broker = &mut cluster.nodes[0].brokers[0];
    assert_eq!(broker.receive_batch(from, b"anything", usize::MAX), None);
    assert_eq!(broker.receive_batch(from, &[1, 0, 0, 0, 4], usize::MAX), None, "answers do not come this way");
    assert_eq!(broker.receive_batch(to, &[1, 0, 0, 0, 4], usize::MAX), Some(5));
    assert_eq!(broker.receive_batch(to, &[3, 0, 0, 0, 1, 0, 0], usize::MAX), None, "the services cannot read that");
    assert_eq!(broker.receive_batch(to, &[0, 0, 0, 0], usize::MAX), None, "a frame has a kind");
    assert_eq!(
        broker.receive_batch(from, &[2, 0, 0, 0, 9, b'x'], usize::MAX),
        None,
        "there is nothing it could follow"
    );
}

#[test]
fn a_batch_is_taken_as_far_as_the_turn_has_work_left() {
    let mut cluster = Cluster::new(2);
    let (publisher, subscriber) = (cluster.client(0, 0, "p"), cluster.client(1, 0, "s"));
    cluster.subscribed(1, subscriber, "t");
    cluster.is_held = true;
    for n in 0..100 {
        cluster.nodes[0].publish(publisher, "t", format!("{n}").as_bytes(), None);
    }
    cluster.settle();
    let (_, shard, via, batch) = cluster.under_way.pop_front().expect("one batch");
    let node = &mut cluster.nodes[1];
    let mut at = 0;
    let mut turns = 0;
    while at < batch.len() {
        let broker = &mut node.brokers[shard.index()];
        let most = broker.work + 20;
        at += broker.receive_batch(via, &batch[at..], most).expect("well formed");
        turns += 1;
        assert!(broker.work <= most + 1);
        node.settle();
    }
    assert!(turns >= 5, "{turns}");
    let expected: Vec<_> = (0..100).map(|n| format!("PUBLISH q0 t={n}")).collect();
    assert_eq!(node.hear(subscriber), expected);
}
