//! Several nodes: links that come and go, nodes that die, and what must hold all the while.

mod reliance;
mod replicas;
mod returning;
mod roles;

use super::*;
use bifro_core::ids::NodeId;
use bifro_core::limits::{LINK_LEASE, RELIANCE_OVER};
use bifro_core::nodes::{Member, Node};
use bifro_core::ports::{Dist, GroupName, Receiver, SessionDict};
use bifro_core::roles::Duties;
use bifro_mqtt::topic::filter_matches;

const TOPICS: [&str; 4] = ["a/1", "a/2", "b", "c/d"];
const FILTERS: [&str; 6] = ["a/1", "a/+", "b/#", "+/1", "#", "c/d"];

/// The link of a shard to a node, and its two queues.
#[derive(Default)]
struct Link {
    is_up: bool,
    there: VecDeque<RemoteSend>,
    back: VecDeque<RemoteSend>,
}

/// Names a link: from which node and shard to which node.
type Key = (usize, u16, usize);

/// Node i is counted as i + 1 by all others.
struct Cluster {
    nodes: Vec<Sim>,
    lives: Vec<bool>,
    duties: Vec<Duties>,
    links: BTreeMap<Key, Link>,
    rng: Prng,
}

const fn idx(node: usize) -> NodeIdx {
    NodeIdx(node as u16 + 1)
}

const fn index(node: NodeIdx) -> usize {
    node.0 as usize - 1
}

impl Cluster {
    /// Nodes of 1, 2, 3, 1... shards, all linked.
    fn new(seed: u64, nodes: usize) -> Self {
        let shards = |node: usize| node as u16 % 3 + 1;
        let sim = |node| {
            let mut sim = Sim::new(seed + node as u64, shards(node));
            sim.shards = sim.shards.into_iter().map(|services| services.join(NodeId(node as u64 + 100))).collect();
            sim
        };
        let mut cluster = Self {
            nodes: (0..nodes).map(sim).collect(),
            lives: vec![true; nodes],
            duties: vec![Duties::default(); nodes],
            links: BTreeMap::new(),
            rng: Prng::new(seed),
        };
        for from in 0..nodes {
            for to in (0..nodes).filter(|&to| to != from) {
                for shard in 0..shards(from) {
                    cluster.links.insert((from, shard, to), Link::default());
                }
            }
        }
        cluster.tell_nodes();
        for key in cluster.links.keys().copied().collect::<Vec<_>>() {
            cluster.link(key);
        }
        cluster.settle();
        cluster
    }

    fn pick(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn call<R>(
        &mut self,
        node: usize,
        shard: ShardId,
        call: impl FnOnce(&mut RangeServices, Instant, &TenantCtx) -> R,
    ) -> R {
        let result = self.nodes[node].call(shard, call);
        self.post(node);
        result
    }

    /// What a node wants sent goes into the links that are up.
    fn post(&mut self, node: usize) {
        while let Some((shard, send)) = self.nodes[node].remote.pop_front() {
            match send.via {
                Via::To(to) => {
                    let link = self.links.get_mut(&(node, shard.0, index(to))).expect("all have links to all");
                    if link.is_up {
                        link.there.push_back(send);
                    }
                }
                Via::From(from, of) => {
                    let link = self.links.get_mut(&(index(from), of.0, node)).expect("all have links to all");
                    if link.is_up {
                        link.back.push_back(send);
                    }
                }
            }
        }
    }

    /// Where a shard's link to a node arrives.
    fn lands_on(&self, shard: u16, to: usize) -> ShardId {
        ShardId(shard % self.nodes[to].shards.len() as u16)
    }

    fn link(&mut self, (from, shard, to): Key) {
        self.links.insert((from, shard, to), Link { is_up: true, ..Link::default() });
        let end = self.lands_on(shard, to);
        self.call(to, end, |services, now, _| services.link_up(now, Via::From(idx(from), ShardId(shard))));
        self.call(from, ShardId(shard), |services, now, _| services.link_up(now, Via::To(idx(to))));
    }

    /// Cuts a link: the dialler notices first, if it is told to.
    fn cut(&mut self, (from, shard, to): Key) {
        self.links.insert((from, shard, to), Link::default());
        self.call(from, ShardId(shard), |services, now, _| services.link_down(now, Via::To(idx(to))));
    }

    fn notice(&mut self, (from, shard, to): Key) {
        let end = self.lands_on(shard, to);
        self.call(to, end, |services, now, _| services.link_down(now, Via::From(idx(from), ShardId(shard))));
    }

    fn tell_nodes(&mut self) {
        let lives = self.lives.clone();
        self.tell_nodes_that(|_, other| lives[other]);
    }

    /// Tells each node which of the others live, as it sees them.
    fn tell_nodes_that(&mut self, sees: impl Fn(usize, usize) -> bool) {
        for me in 0..self.nodes.len() {
            let others = (0..self.nodes.len()).filter(|&node| node != me && sees(me, node)).map(|node| Node {
                idx: idx(node),
                id: NodeId(node as u64 + 100),
                nonce: 1,
                address: ([127, 0, 0, 1], 1).into(),
                shards: self.nodes[node].shards.len() as u16,
                duties: self.duties[node],
                is_well: true,
            });
            let member = |node: usize| Member { id: NodeId(node as u64 + 100), duties: self.duties[node] };
            let members = (0..self.nodes.len()).map(member).collect();
            let nodes = Arc::new(Nodes { me: NodeId(me as u64 + 100), others: others.collect(), members });
            for shard in 0..self.nodes[me].shards.len() as u16 {
                self.call(me, ShardId(shard), |services, now, _| services.set_nodes(now, &nodes));
            }
        }
    }

    fn kill(&mut self, node: usize) {
        self.lives[node] = false;
        for ((from, _, to), link) in &mut self.links {
            if *from == node || *to == node {
                *link = Link::default();
            }
        }
        self.tell_nodes();
    }

    /// Delivers one message inside some node or over some link. False if there is none.
    fn step(&mut self) -> bool {
        let mut busy: Vec<Result<usize, (Key, bool)>> = Vec::new();
        for (node, sim) in self.nodes.iter().enumerate().filter(|(node, _)| self.lives[*node]) {
            if sim.mesh.values().any(|queue| !queue.is_empty()) {
                busy.push(Ok(node));
            }
        }
        for (&key, link) in &self.links {
            busy.extend((!link.there.is_empty()).then_some(Err((key, true))));
            busy.extend((!link.back.is_empty()).then_some(Err((key, false))));
        }
        if busy.is_empty() {
            return false;
        }
        match busy[self.pick(busy.len())] {
            Ok(node) => {
                self.nodes[node].step();
                self.post(node);
            }
            Err((key, there)) => self.carry(key, there),
        }
        true
    }

    fn carry(&mut self, (from, shard, to): Key, there: bool) {
        let end = self.lands_on(shard, to);
        let link = self.links.get_mut(&(from, shard, to)).expect("it is there");
        let queue = if there { &mut link.there } else { &mut link.back };
        let send = queue.pop_front().expect("it is busy");
        let (node, at, via) = match there {
            true => (to, end, Via::From(idx(from), ShardId(shard))),
            false => (from, ShardId(shard), Via::To(idx(to))),
        };
        let read = self.call(node, at, |services, now, _| services.receive_remote(now, via, send.tenant, &send.bytes));
        assert!(read, "{via:?}");
    }

    /// Delivers everything, and lets everybody tell everything.
    fn settle(&mut self) {
        while self.step() || self.go_on() {}
    }

    /// Calls those who want to be called at once. False if there are none.
    fn go_on(&mut self) -> bool {
        let mut worked = false;
        for node in 0..self.nodes.len() {
            for shard in 0..self.nodes[node].shards.len() {
                let now = self.nodes[node].now;
                if self.nodes[node].shards[shard].next_timeout().is_some_and(|at| at <= now) {
                    self.call(node, ShardId(shard as u16), |services, now, _| services.handle_timeout(now));
                    worked = true;
                }
            }
        }
        worked
    }

    fn advance(&mut self, secs: u64) {
        self.advance_by(Duration::from_secs(secs));
    }

    fn advance_by(&mut self, by: Duration) {
        for node in 0..self.nodes.len() {
            self.nodes[node].advance_by(by);
            self.post(node);
        }
        self.settle();
    }

    fn heard(&mut self, node: usize) -> Vec<Completion> {
        self.nodes[node].take_heard().into_iter().map(|(_, completion)| completion).collect()
    }

    /// Nodes that a publish on this shard goes to: because they listen, or because nobody knows whether they do.
    fn reached(&mut self, node: usize, shard: ShardId, topic: &str) -> Option<(Vec<usize>, bool)> {
        let matches = self.call(node, shard, |services, _, tenant| services.matches(tenant.idx, topic))?;
        let unheard = self.nodes[node].shards[shard.index()].unheard_nodes();
        let reached = matches.nodes.iter().chain(unheard).map(|&node| index(node)).collect();
        Some((reached, !matches.live.is_empty()))
    }

    /// As [`Self::reached`], once everybody has answered.
    fn reached_in_the_end(&mut self, node: usize, topic: &str) -> Vec<usize> {
        if self.reached(node, ShardId(0), topic).is_none() {
            let req = self.nodes[node].req();
            let ask = |services: &mut RangeServices, now, tenant: &TenantCtx| {
                services.request_matches(now, req, tenant.idx, topic);
            };
            self.call(node, ShardId(0), ask);
            self.settle();
        }
        let mut reached = self.reached(node, ShardId(0), topic).expect("it has been asked for").0;
        reached.sort_unstable();
        reached.dedup();
        reached
    }

    fn subscribe(&mut self, node: usize, shard: u16, filter: &str, group: Option<&GroupName>, at: u32) -> ReqId {
        let req = self.nodes[node].req();
        let receiver = Receiver::Live { shard: ShardId(shard), slot: slot(at) };
        self.call(node, ShardId(shard), |services, now, tenant| {
            services.add_route(now, req, tenant, filter, group, receiver);
        });
        req
    }

    fn unsubscribe(&mut self, node: usize, shard: u16, filter: &str, group: Option<&GroupName>, at: u32) {
        let receiver = Receiver::Live { shard: ShardId(shard), slot: slot(at) };
        self.call(node, ShardId(shard), |services, now, tenant| {
            services.remove_route(now, tenant.idx, filter, group, receiver);
        });
    }

    fn connect(&mut self, node: usize, shard: u16, at: u32, id: &str) -> ReqId {
        let (req, client, conn) = (self.nodes[node].req(), client(id), conn(ShardId(shard), at));
        let register = |services: &mut RangeServices, now, tenant: &TenantCtx| {
            services.register(now, req, conn, &client, tenant);
        };
        self.call(node, ShardId(shard), register);
        req
    }

    fn disconnect(&mut self, node: usize, shard: u16, at: u32, id: &str) {
        let (client, conn) = (client(id), conn(ShardId(shard), at));
        self.call(node, ShardId(shard), |services, now, tenant| services.unregister(now, conn, &client, tenant));
    }
}

fn added(req: ReqId) -> impl Fn(&Completion) -> bool {
    move |completion| matches!(completion, Completion::RouteAdded { req: of, result: Ok(()) } if *of == req)
}

fn registered(req: ReqId) -> impl Fn(&Completion) -> bool {
    move |completion| matches!(completion, Completion::Registered { req: of } if *of == req)
}

fn kicked(completions: &[Completion]) -> Vec<u32> {
    let kicked = completions.iter().filter_map(|completion| match completion {
        Completion::Kick { conn } => Some(conn.slot.index),
        _ => None,
    });
    kicked.collect()
}

/// Node, shard, filter and place of a subscriber.
type Subscriber = (usize, u16, &'static str, u32);

/// Subscribers who have their SUBACK.
type Confirmed = Vec<Subscriber>;

fn check_all_publishers(cluster: &mut Cluster, confirmed: &Confirmed) {
    for node in (0..cluster.nodes.len()).filter(|&node| cluster.lives[node]).collect::<Vec<_>>() {
        for shard in (0..cluster.nodes[node].shards.len() as u16).map(ShardId) {
            for topic in TOPICS {
                let Some((reached, is_live)) = cluster.reached(node, shard, topic) else { continue };
                for (at, _, filter, _) in confirmed.iter().filter(|(_, _, filter, _)| filter_matches(filter, topic)) {
                    let found = if *at == node { is_live } else { reached.contains(at) };
                    assert!(found, "{topic} published on {node} misses {filter} on {at}, which has its SUBACK");
                }
            }
        }
    }
}

/// Links are cut at any time; the end that does not notice goes on relying on them for less than the lease.
#[test]
fn a_publish_after_suback_matches_on_every_node_whatever_becomes_of_the_links() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed, 3);
        let mut waiting: Vec<(ReqId, Subscriber)> = Vec::new();
        let mut confirmed = Confirmed::new();
        let mut unnoticed: Option<Key> = None;
        for step in 0..400 {
            match cluster.pick(20) {
                0..=2 => {
                    let node = cluster.pick(3);
                    let shard = cluster.pick(cluster.nodes[node].shards.len()) as u16;
                    let filter = FILTERS[cluster.pick(FILTERS.len())];
                    waiting.push((cluster.subscribe(node, shard, filter, None, step), (node, shard, filter, step)));
                }
                3 if !confirmed.is_empty() => {
                    let at = cluster.pick(confirmed.len());
                    let (node, shard, filter, at) = confirmed.swap_remove(at);
                    cluster.unsubscribe(node, shard, filter, None, at);
                }
                4 if unnoticed.is_none() => {
                    let keys: Vec<_> = cluster.links.keys().copied().collect();
                    let key = keys[cluster.pick(keys.len())];
                    cluster.cut(key);
                    unnoticed = Some(key);
                }
                5 => {
                    // What the other end notices at the latest now it has noticed before the lease ends.
                    if let Some(key) = unnoticed.take() {
                        cluster.notice(key);
                        if cluster.pick(2) == 0 {
                            cluster.advance(LINK_LEASE.as_secs());
                        }
                        cluster.link(key);
                    }
                }
                6..=8 => {
                    let (node, topic) = (cluster.pick(3), TOPICS[cluster.pick(TOPICS.len())]);
                    let (req, shard) = (cluster.nodes[node].req(), cluster.nodes[node].any_shard());
                    cluster.call(node, shard, |services, now, tenant| {
                        services.request_matches(now, req, tenant.idx, topic);
                    });
                }
                _ => {
                    for _ in 0..10 {
                        cluster.step();
                    }
                    if cluster.pick(2) == 0 {
                        cluster.go_on();
                    }
                }
            }
            for node in 0..3 {
                for completion in cluster.heard(node) {
                    let Completion::RouteAdded { req, result } = completion else { continue };
                    assert_eq!(result, Ok(()));
                    let at = waiting.iter().position(|(of, (at, ..))| *of == req && *at == node).expect("asked for");
                    confirmed.push(waiting.swap_remove(at).1);
                }
            }
            check_all_publishers(&mut cluster, &confirmed);
        }
    }
}

#[test]
fn a_filter_reaches_the_other_nodes_with_its_first_subscriber_and_leaves_them_with_its_last() {
    let mut cluster = Cluster::new(1, 3);
    assert_eq!(cluster.reached_in_the_end(0, "a/1"), [], "all are heard, and nobody listens");
    for at in 0..2 {
        let req = cluster.subscribe(2, at as u16, "a/+", None, at);
        cluster.settle();
        assert!(cluster.heard(2).iter().any(added(req)));
    }
    assert_eq!(cluster.reached_in_the_end(0, "a/1"), [2]);
    assert_eq!(cluster.reached_in_the_end(1, "a/1"), [2]);
    cluster.unsubscribe(2, 0, "a/+", None, 0);
    cluster.settle();
    assert_eq!(cluster.reached_in_the_end(0, "a/1"), [2], "one is left");
    cluster.unsubscribe(2, 1, "a/+", None, 1);
    cluster.settle();
    assert_eq!(cluster.reached_in_the_end(0, "a/1"), []);
    assert!(cluster.nodes.iter().all(|node| node.gauge(|metrics| metrics.routes.read()) == 0));
}

#[test]
fn a_subscriber_waits_for_a_node_that_cannot_be_reached_until_it_dies_or_the_lease_is_over() {
    let mut cluster = Cluster::new(2, 3);
    let key = (0, 0, 1);
    cluster.cut(key);
    let req = cluster.subscribe(0, 0, "b", None, 1);
    cluster.settle();
    assert!(!cluster.heard(0).iter().any(added(req)), "node 1 relies on what it has heard");
    cluster.notice(key);
    cluster.advance(LINK_LEASE.as_secs());
    assert!(cluster.heard(0).iter().any(added(req)), "node 1 knows that it does not know");
    assert_eq!(cluster.reached_in_the_end(1, "b"), [0]);
    assert_eq!(cluster.nodes[1].shards[0].unheard_nodes(), [idx(0)]);
    cluster.link(key);
    cluster.settle();
    assert!(cluster.nodes[1].shards[0].unheard_nodes().is_empty());
    assert_eq!(cluster.reached_in_the_end(1, "b"), [0]);

    cluster.cut(key);
    let req = cluster.subscribe(0, 0, "c/d", None, 2);
    cluster.settle();
    assert!(!cluster.heard(0).iter().any(added(req)));
    cluster.kill(1);
    cluster.advance_by(RELIANCE_OVER);
    assert!(cluster.heard(0).iter().any(added(req)), "the dead need not know");
}

#[test]
fn what_was_unsubscribed_while_a_link_was_down_is_forgotten_when_it_is_up_again() {
    let mut cluster = Cluster::new(3, 2);
    cluster.subscribe(1, 0, "a/1", None, 1);
    cluster.subscribe(1, 0, "a/2", None, 2);
    cluster.settle();
    let key = (1, 0, 0);
    cluster.cut(key);
    cluster.notice(key);
    cluster.unsubscribe(1, 0, "a/1", None, 1);
    cluster.link(key);
    cluster.settle();
    assert_eq!(cluster.reached_in_the_end(0, "a/1"), []);
    assert_eq!(cluster.reached_in_the_end(0, "a/2"), [1]);
}

#[test]
fn a_group_has_its_members_of_all_nodes_on_each() {
    let mut cluster = Cluster::new(4, 3);
    let group = GroupName { name: "g".into(), ordered: false };
    for at in 0..3 {
        cluster.subscribe(2, 1, "a/1", Some(&group), at);
    }
    cluster.subscribe(0, 0, "a/1", Some(&group), 9);
    cluster.settle();
    let members = |cluster: &mut Cluster| {
        let req = cluster.nodes[1].req();
        cluster.call(1, ShardId(0), |services, now, tenant| {
            services.request_group(now, req, tenant.idx, "a/1", &group);
        });
        cluster.settle();
        let matched = cluster.heard(1).into_iter().find_map(|completion| match completion {
            Completion::Matched { req: of, matches } if of == req => Some(matches),
            _ => None,
        });
        matched.expect("an answer").groups.first().map_or_else(Vec::new, |group| group.members.clone())
    };
    let of = |node, shard, nth| Receiver::Remote { node: idx(node), shard: ShardId(shard), nth };
    assert_eq!(members(&mut cluster), [of(0, 0, 0), of(2, 1, 0), of(2, 1, 1), of(2, 1, 2)]);
    cluster.unsubscribe(2, 1, "a/1", Some(&group), 0);
    cluster.settle();
    assert_eq!(members(&mut cluster), [of(0, 0, 0), of(2, 1, 0), of(2, 1, 1)]);
    cluster.kill(2);
    cluster.settle();
    assert_eq!(members(&mut cluster), [of(0, 0, 0)]);
}

#[test]
fn one_connection_owns_a_client_id_among_all_nodes() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(seed, 3);
        let first = cluster.connect(0, 0, 1, "c");
        cluster.settle();
        assert!(cluster.heard(0).iter().any(registered(first)));
        let second = cluster.connect(2, 2, 2, "c");
        cluster.settle();
        assert_eq!(kicked(&cluster.heard(0)), [1]);
        assert!(!cluster.heard(2).iter().any(registered(second)), "the old one is still there");
        cluster.disconnect(0, 0, 1, "c");
        cluster.settle();
        assert!(cluster.heard(2).iter().any(registered(second)));
        cluster.disconnect(2, 2, 2, "c");
        cluster.settle();
        assert!(cluster.nodes.iter().flat_map(|node| &node.shards).all(|services| services.owners.is_empty()));
    }
}

#[test]
fn a_dead_nodes_connections_own_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.connect(2, 0, 1, "c");
        cluster.settle();
        let second = cluster.connect(0, 0, 2, "c");
        // Whoever was responsible dies with it, or notices.
        cluster.kill(2);
        cluster.settle();
        assert!(cluster.heard(0).iter().any(registered(second)), "seed {seed}");
    }
}

#[test]
fn a_request_that_a_link_has_lost_is_made_again_over_the_next() {
    let mut cluster = Cluster::new(5, 2);
    let remote = (0..).map(|n| format!("client-{n}"));
    let id = remote.into_iter().find(|id| cluster.nodes[0].shards[0].responsible("t", id) == idx(1)).expect("half are");
    let key = (0, 0, 1);
    let req = cluster.connect(0, 0, 1, &id);
    cluster.cut(key);
    cluster.notice(key);
    cluster.settle();
    assert!(!cluster.heard(0).iter().any(registered(req)));
    cluster.link(key);
    cluster.settle();
    assert!(cluster.heard(0).iter().any(registered(req)));
}

#[test]
fn an_answer_takes_the_link_of_the_question_for_there_may_be_no_other_yet() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        let keys: Vec<_> = cluster.links.keys().copied().filter(|(_, _, to)| *to == 2).collect();
        keys.iter().for_each(|&key| cluster.cut(key));
        // On its way to node 2 nothing goes over the others' links.
        let req = cluster.connect(2, 1, 1, "c");
        cluster.settle();
        assert!(cluster.heard(2).iter().any(registered(req)), "seed {seed}");
        let taken_over = cluster.connect(2, 2, 2, "c");
        cluster.settle();
        assert_eq!(kicked(&cluster.heard(2)), [1], "seed {seed}");
        cluster.disconnect(2, 1, 1, "c");
        cluster.settle();
        assert!(cluster.heard(2).iter().any(registered(taken_over)), "seed {seed}");
    }
}

#[test]
fn halves_that_come_together_keep_one_of_two_connections_with_one_client_id() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 4);
        cluster.tell_nodes_that(|me, other| (me < 2) == (other < 2));
        let (one, other) = (cluster.connect(0, 0, 1, "c"), cluster.connect(3, 0, 2, "c"));
        cluster.settle();
        assert!(cluster.heard(0).iter().any(registered(one)));
        assert!(cluster.heard(3).iter().any(registered(other)));
        cluster.tell_nodes();
        for key in cluster.links.keys().copied().collect::<Vec<_>>() {
            cluster.link(key);
        }
        cluster.settle();
        let kicks = [kicked(&cluster.heard(0)), kicked(&cluster.heard(3))].concat();
        assert_eq!(kicks.len(), 1, "seed {seed}: {kicks:?}");
    }
}
