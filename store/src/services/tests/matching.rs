//! A publish after SUBACK always matches, whatever the order in which shards hear of each other.

use super::*;
use bifro_core::ports::{Dist, GroupName, Matches, PortError, Receiver};
use bifro_mqtt::topic::filter_matches;
use std::collections::BTreeSet;

const TOPICS: [&str; 6] = ["a/1", "a/2", "b/1", "b", "c/d/e", "$SYS/x"];
const FILTERS: [&str; 9] = ["a/1", "a/+", "b/#", "b", "+/1", "#", "c/+/e", "$SYS/#", "nobody"];

type Route = (&'static str, Receiver);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Adding,
    Confirmed,
}

/// Publishers and subscribers on all shards, and what the publishers may rely on.
struct World {
    sim: Sim,
    routes: Vec<(Route, State)>,
    adding: BTreeMap<ReqId, Receiver>,
    /// Publishes that wait for their matches: topic, and who had a SUBACK when they began.
    publishing: BTreeMap<ReqId, (&'static str, Vec<Receiver>)>,
    next_slot: u32,
    published: usize,
}

fn all(matches: &Matches) -> BTreeSet<Receiver> {
    assert!(matches.live.is_sorted_by(|one, other| one.0 < other.0), "shards ascending, each once");
    assert!(matches.inboxes.is_sorted_by(|one, other| one.0 < other.0), "ranges ascending, each once");
    let live =
        matches.live.iter().flat_map(|(shard, slots)| slots.iter().map(|&slot| Receiver::Live { shard: *shard, slot }));
    let inboxes = matches.inboxes.iter().flat_map(|(range, places)| {
        places.iter().map(|&(inbox, subscription)| Receiver::Inbox { range: *range, inbox, subscription })
    });
    live.chain(inboxes).collect()
}

impl World {
    fn new(seed: u64, shards: u16) -> Self {
        Self {
            sim: Sim::new(seed, shards),
            routes: vec![],
            adding: BTreeMap::new(),
            publishing: BTreeMap::new(),
            next_slot: 0,
            published: 0,
        }
    }

    fn subscribe(&mut self) {
        let (shard, req) = (self.sim.any_shard(), self.sim.req());
        let filter = FILTERS[self.sim.pick(FILTERS.len())];
        self.next_slot += 1;
        let slot = slot(self.next_slot);
        let receiver = match self.sim.pick(2) {
            0 => Receiver::Live { shard, slot },
            _ => Receiver::Inbox { range: RangeIdx(shard.0), inbox: slot, subscription: 3 },
        };
        self.routes.push(((filter, receiver), State::Adding));
        self.adding.insert(req, receiver);
        self.sim.call(shard, |services, now, tenant| services.add_route(now, req, tenant, filter, None, receiver));
    }

    fn unsubscribe(&mut self) {
        if self.routes.is_empty() {
            return;
        }
        let index = self.sim.pick(self.routes.len());
        let ((filter, receiver), _) = self.routes.swap_remove(index);
        for (_, expected) in self.publishing.values_mut() {
            expected.retain(|&other| other != receiver);
        }
        let shard = match receiver {
            Receiver::Live { shard, .. } => shard,
            Receiver::Inbox { range, .. } => ShardId(range.0),
            Receiver::Remote { .. } => panic!("there is one node"),
        };
        self.sim.call(shard, |services, now, tenant| services.remove_route(now, tenant.idx, filter, None, receiver));
    }

    fn publish(&mut self, shard: ShardId, topic: &'static str) {
        let expected = self.confirmed(topic);
        self.published += 1;
        match self.sim.call(shard, |services, _, tenant| services.matches(tenant.idx, topic)) {
            Some(matches) => check(&expected, &all(&matches), topic),
            None => {
                let req = self.sim.req();
                self.publishing.insert(req, (topic, expected));
                self.sim.call(shard, |services, now, tenant| services.request_matches(now, req, tenant.idx, topic));
            }
        }
    }

    fn confirmed(&self, topic: &str) -> Vec<Receiver> {
        let matching =
            |((filter, _), state): &&(Route, State)| *state == State::Confirmed && filter_matches(filter, topic);
        self.routes.iter().filter(matching).map(|((_, receiver), _)| *receiver).collect()
    }

    fn listen(&mut self) {
        for (_, completion) in self.sim.take_heard() {
            match completion {
                Completion::RouteAdded { req, result } => {
                    assert_eq!(result, Ok(()));
                    let receiver = self.adding.remove(&req).expect("asked for once");
                    let route = self.routes.iter_mut().find(|((_, other), _)| *other == receiver);
                    if let Some((_, state)) = route {
                        *state = State::Confirmed;
                    }
                }
                Completion::Matched { req, matches } => {
                    let (topic, expected) = self.publishing.remove(&req).expect("asked for once");
                    check(&expected, &all(&matches), topic);
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    fn act(&mut self) {
        match self.sim.pick(10) {
            0 | 1 => self.subscribe(),
            2 => self.unsubscribe(),
            3..=5 => {
                let (shard, topic) = (self.sim.any_shard(), TOPICS[self.sim.pick(TOPICS.len())]);
                self.publish(shard, topic);
            }
            _ => {
                self.sim.step();
            }
        }
        self.listen();
    }

    fn settle(&mut self) {
        self.sim.settle();
        self.listen();
        assert!(self.adding.is_empty() && self.publishing.is_empty(), "everybody was answered");
    }

    /// With nothing under way, every shard knows exactly the routes there are, remembered or asked.
    fn check_all(&mut self) {
        for shard in 0..self.sim.shards.len() as u16 {
            for topic in TOPICS {
                self.publish(ShardId(shard), topic);
                self.settle();
                let found = self.sim.call(ShardId(shard), |services, _, tenant| services.matches(tenant.idx, topic));
                let exact: BTreeSet<Receiver> = self.confirmed(topic).into_iter().collect();
                assert_eq!(all(&found.expect("remembered")), exact, "{topic} on {shard}");
            }
        }
    }
}

fn check(expected: &[Receiver], found: &BTreeSet<Receiver>, topic: &str) {
    for receiver in expected {
        assert!(found.contains(receiver), "{topic}: {receiver:?} had its SUBACK and is not in {found:?}");
    }
}

#[test]
fn a_publish_after_the_suback_matches_under_all_interleavings() {
    let mut published = 0;
    for seed in 0..150 {
        let mut world = World::new(seed, 1 + (seed % 5) as u16);
        for _ in 0..200 {
            world.act();
        }
        world.settle();
        world.check_all();
        published += world.published;
    }
    assert!(published > 5_000, "the test publishes at all: {published}");
}

#[test]
fn after_everybody_has_left_no_route_and_no_interest_is_left_behind() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        for _ in 0..100 {
            world.act();
        }
        while !world.routes.is_empty() {
            world.unsubscribe();
        }
        world.settle();
        world.sim.assert_nothing_used();
        world.check_all();
    }
}

fn group(name: &str) -> GroupName {
    GroupName { name: name.into(), ordered: false }
}

/// Two members race for one place in a group that every partition has: at most one gets it, and all partitions agree.
#[test]
fn a_group_is_never_larger_than_allowed_and_partitions_agree_on_it() {
    for seed in 0..50 {
        let settings = TenantSettings { shared_group_members_max: 1, ..TenantSettings::default() };
        let mut sim = Sim::with(seed, 4, settings, &QuotaLimits::default());
        for index in 0..2 {
            let (shard, req) = (ShardId(index), sim.req());
            let receiver = Receiver::Live { shard, slot: slot(0) };
            sim.call(shard, |services, now, tenant| {
                services.add_route(now, req, tenant, "+/x", Some(&group("g")), receiver);
            });
        }
        sim.settle();
        let results: Vec<Result<(), PortError>> = (sim.take_heard().into_iter())
            .filter_map(|(_, completion)| match completion {
                Completion::RouteAdded { result, .. } => Some(result),
                _ => None,
            })
            .collect();
        let admitted = results.iter().filter(|result| result.is_ok()).count();
        assert!(results.len() == 2 && admitted <= 1, "seed {seed}: {results:?}");
        for shard in 0..4 {
            let req = sim.req();
            sim.call(ShardId(shard), |services, now, tenant| {
                services.request_group(now, req, tenant.idx, "+/x", &group("g"));
            });
            let heard = sim.take_heard();
            let [(_, Completion::Matched { matches, .. })] = &heard[..] else { panic!("{heard:?}") };
            assert_eq!(matches.groups.iter().map(|g| g.members.len()).sum::<usize>(), admitted, "seed {seed}");
        }
    }
}

#[test]
fn the_members_of_a_group_are_found_on_the_shard_that_has_them() {
    let mut sim = Sim::new(3, 4);
    let receiver = Receiver::Live { shard: ShardId(2), slot: slot(0) };
    let req = sim.req();
    sim.call(ShardId(2), |services, now, tenant| {
        services.add_route(now, req, tenant, "a/+", Some(&group("g")), receiver);
    });
    sim.settle();
    for (shard, name, members) in [(0, "g", 1), (1, "g", 1), (3, "h", 0)] {
        let req = sim.req();
        sim.call(ShardId(shard), |services, now, tenant| {
            services.request_group(now, req, tenant.idx, "a/+", &group(name));
        });
        sim.settle();
        let heard = sim.take_heard();
        let (_, Completion::Matched { matches, .. }) = heard.last().expect("answered") else { panic!("{heard:?}") };
        assert_eq!(matches.groups.len(), members);
    }
}

#[test]
fn hits_and_misses_are_counted() {
    let mut world = World::new(9, 2);
    for _ in 0..3 {
        world.publish(ShardId(0), "a/1");
        world.settle();
    }
    let counted = &world.sim.metrics[0];
    assert_eq!((counted.match_cache_misses.read(), counted.match_cache_hits.read()), (1, 2));
}
