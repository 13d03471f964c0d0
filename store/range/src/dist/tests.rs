//! Exact effects of partition and cache; how they work together is tested over all shards in bifro-store.

use super::*;
use crate::key::TenantKeyRef;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::{RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::ports::{Matches, PortError, Receiver};

const TENANT: TenantIdx = TenantIdx(0);

fn live(shard: u16, index: u32) -> Receiver {
    Receiver::Live { shard: ShardId(shard), slot: Slot { index, generation: 0 } }
}

fn inbox(shard: u16, index: u32, subscription: u32) -> Receiver {
    Receiver::Inbox { range: RangeIdx(shard), inbox: Slot { index, generation: 0 }, subscription }
}

fn line(effect: &DistEffect) -> String {
    match effect {
        DistEffect::Forget { shard, route, ack, .. } => format!("forget {} {} {ack:?}", shard.0, route.filter),
        DistEffect::Added { shard, token, result } => format!("added {} {token} {result:?}", shard.0),
        DistEffect::Matched { shard, topic, matches, .. } => format!("matched {} {topic} {}", shard.0, shape(matches)),
    }
}

fn shape(matches: &Matches) -> String {
    let live: Vec<_> = matches
        .live
        .iter()
        .map(|(shard, slots)| format!("L{}:{:?}", shard.0, slots.iter().map(|s| s.index).collect::<Vec<_>>()))
        .collect();
    let inboxes: Vec<_> = matches
        .inboxes
        .iter()
        .map(|(shard, places)| {
            format!("I{}:{:?}", shard.0, places.iter().map(|(slot, sub)| (slot.index, *sub)).collect::<Vec<_>>())
        })
        .collect();
    let groups: Vec<_> =
        matches.groups.iter().map(|group| format!("G{}:{}", group.group.name, group.members.len())).collect();
    [live, inboxes, groups].concat().join(" ")
}

#[derive(Default)]
struct Driven {
    partition: RoutePartition,
}

impl Driven {
    fn run(&mut self, call: impl FnOnce(&mut RoutePartition, &mut Vec<DistEffect>)) -> Vec<String> {
        let mut effects = vec![];
        call(&mut self.partition, &mut effects);
        effects.iter().map(line).collect()
    }

    fn add(&mut self, token: u32, full: &str, receiver: Receiver) -> Vec<String> {
        let route = Arc::new(RouteFilter::parse(full));
        self.run(|partition, effects| partition.add(ShardId(0), token, TENANT, &route, receiver, 2, effects))
    }

    fn remove(&mut self, full: &str, receiver: Receiver) -> Vec<String> {
        let route = Arc::new(RouteFilter::parse(full));
        self.run(|partition, effects| partition.remove(TENANT, &route, receiver, effects))
    }

    fn matched(&mut self, shard: u16, topic: &str) -> Vec<String> {
        self.run(|partition, effects| partition.match_topic(ShardId(shard), TENANT, topic.into(), effects))
    }

    fn forgotten(&mut self, shard: u16, ack: u32, interested: bool) -> Vec<String> {
        self.run(|partition, effects| partition.forgotten(ShardId(shard), TENANT, ack, interested, effects))
    }
}

#[test]
fn a_route_nobody_has_asked_about_is_added_at_once() {
    let mut dist = Driven::default();
    assert_eq!(dist.add(5, "a/b", live(0, 1)), ["added 0 5 Ok(())"]);
    assert_eq!(dist.partition.routes(), 1);
    assert_eq!(dist.matched(0, "a/b"), ["matched 0 a/b L0:[1]"]);
}

#[test]
fn a_route_is_added_when_every_interested_cache_has_forgotten() {
    let mut dist = Driven::default();
    dist.matched(2, "a/b");
    dist.matched(1, "x");
    assert_eq!(dist.add(5, "a/+", live(0, 1)), ["forget 1 a/+ Some(0)", "forget 2 a/+ Some(0)"]);
    assert_eq!(dist.matched(3, "a/b"), ["matched 3 a/b L0:[1]"], "matches have it before it is confirmed");
    assert_eq!(dist.forgotten(2, 0, true), [""; 0]);
    assert_eq!(dist.forgotten(1, 0, true), ["added 0 5 Ok(())"]);
    assert_eq!(dist.partition.adding(), 0);
}

#[test]
fn a_cache_that_has_lost_interest_is_not_told_again_until_it_asks_again() {
    let mut dist = Driven::default();
    dist.matched(1, "a");
    dist.add(1, "a", live(0, 1));
    dist.forgotten(1, 0, false);
    assert_eq!(dist.add(2, "a", live(0, 2)), ["added 0 2 Ok(())"]);
    dist.matched(1, "a");
    assert_eq!(dist.add(3, "a", live(0, 3)), ["forget 1 a Some(0)"]);
}

#[test]
fn adding_what_is_there_adds_nothing_but_still_waits_for_the_caches() {
    let mut dist = Driven::default();
    dist.matched(1, "a");
    assert_eq!(dist.add(1, "a", live(0, 1)), ["forget 1 a Some(0)"]);
    assert_eq!(dist.add(2, "a", live(0, 1)), ["forget 1 a Some(1)"]);
    assert_eq!(dist.partition.routes(), 1);
}

#[test]
fn removal_is_told_and_not_waited_for() {
    let mut dist = Driven::default();
    dist.add(1, "a/#", live(0, 1));
    dist.matched(1, "a");
    assert_eq!(dist.remove("a/#", live(0, 1)), ["forget 1 a/# None"]);
    assert_eq!(dist.remove("a/#", live(0, 1)), [""; 0], "once");
    assert_eq!(dist.matched(1, "a"), ["matched 1 a "]);
    assert_eq!(dist.partition.routes(), 0);
}

#[test]
fn matches_are_grouped_by_shard_ascending_and_name_each_receiver_once() {
    let mut dist = Driven::default();
    for (token, (full, receiver)) in [
        ("a/b", live(2, 9)),
        ("a/+", live(0, 4)),
        ("a/b", inbox(1, 3, 1)),
        ("#", inbox(1, 3, 0)),
        ("#", inbox(0, 8, 0)),
        ("a/b", live(0, 2)),
        ("a/+", live(0, 2)),
        ("$share/g/a/b", live(1, 1)),
        ("x", live(1, 1)),
    ]
    .into_iter()
    .enumerate()
    {
        dist.add(token as u32, full, receiver);
    }
    assert_eq!(dist.matched(0, "a/b"), ["matched 0 a/b L0:[2, 4] L2:[9] I0:[(8, 0)] I1:[(3, 0), (3, 1)] Gg:1"]);
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
#[test]
fn filters_that_start_with_a_wildcard_do_not_match_dollar_topics() {
    let mut dist = Driven::default();
    dist.add(0, "#", live(0, 1));
    dist.add(1, "+/x", live(0, 2));
    assert_eq!(dist.matched(0, "$SYS/x"), ["matched 0 $SYS/x "]);
}

#[test]
fn a_group_is_known_by_filter_name_and_order_and_has_a_limit() {
    let mut dist = Driven::default();
    for (token, full) in ["$share/g/a", "$oshare/g/a", "$share/h/a", "$share/g/a/#"].into_iter().enumerate() {
        dist.add(token as u32, full, live(0, 1));
    }
    dist.add(4, "$share/g/a", inbox(1, 2, 0));
    assert_eq!(dist.add(5, "$share/g/a", live(0, 7)), ["added 0 5 Err(QuotaExceeded)"]);
    assert_eq!(dist.add(6, "$share/g/a", live(0, 1)), ["added 0 6 Ok(())"], "a member already");
    // By filter; within a filter by name, the plain group before the ordered one.
    assert_eq!(dist.matched(0, "a"), ["matched 0 a Gg:2 Gg:1 Gh:1 Gg:1"]);
    let members = dist.partition.match_group(TENANT, &RouteFilter::parse("$share/g/a"));
    assert_eq!(members.groups[0].members, [live(0, 1), inbox(1, 2, 0)]);
    assert!(dist.partition.match_group(TENANT, &RouteFilter::parse("$share/none/a")).is_empty());
    dist.remove("$share/g/a", live(0, 1));
    assert_eq!(dist.add(7, "$share/g/a", live(0, 7)).len(), 1);
}

#[test]
fn parsing_tells_shared_filters_from_plain_ones() {
    assert_eq!(RouteFilter::parse("a/+").group, None);
    let shared = RouteFilter::parse("$oshare/g/a/+");
    assert_eq!((&*shared.filter, shared.group.map(|group| group.ordered)), ("a/+", Some(true)));
    assert_eq!(&*RouteFilter::parse("$share/g").filter, "$share/g");
}

#[test]
fn only_a_wildcard_as_first_level_spans_partitions() {
    assert!(["#", "+", "+/a"].into_iter().all(spans_partitions));
    assert!(!["a/#", "a", "/+", "+a/b", "$share"].into_iter().any(spans_partitions));
    assert_eq!((first_level("a/b"), first_level("a"), first_level("/b")), ("a", "a", ""));
}

fn key(name: &str) -> TenantKeyRef<'_> {
    TenantKeyRef { tenant: TENANT, name }
}

fn answer(cache: &mut MatchCache, partition: u16, topic: &str) -> Vec<ReqId> {
    let (_, waiting) = cache.answered(key(topic).to_key(), ShardId(partition), Matches::default());
    cache.validate();
    waiting.to_vec()
}

#[test]
fn requests_for_one_topic_are_asked_once_and_answered_together() {
    let mut cache = MatchCache::new(4);
    assert_eq!(cache.ask(key("a"), ShardId(0), ReqId(1)).as_deref(), Some("a"));
    assert_eq!(cache.ask(key("a"), ShardId(0), ReqId(2)), None);
    cache.validate();
    assert!(cache.matches(key("a")).is_none());
    assert_eq!(answer(&mut cache, 0, "a"), [ReqId(1), ReqId(2)]);
    assert!(cache.matches(key("a")).is_some());
    assert!(cache.matches(TenantKeyRef { tenant: TenantIdx(1), name: "a" }).is_none());
}

#[test]
fn forgetting_touches_the_topics_of_one_partition_that_the_filter_matches() {
    let mut cache = MatchCache::new(9);
    for (partition, topic) in [(0, "a/1"), (0, "a/2"), (0, "b"), (1, "c/1")] {
        answer(&mut cache, partition, topic);
    }
    assert!(cache.forget(TENANT, ShardId(0), "a/#"), "b is still there");
    assert!(cache.forget(TENANT, ShardId(1), "a/#"));
    cache.validate();
    assert_eq!(cache.len(), 2);
    assert!(!cache.forget(TENANT, ShardId(0), "#"));
    assert!(!cache.forget(TENANT, ShardId(7), "#"), "never asked");
    assert!(cache.matches(key("c/1")).is_some());
}

#[test]
fn a_cache_that_waits_for_an_answer_is_interested() {
    let mut cache = MatchCache::new(9);
    cache.ask(key("a"), ShardId(0), ReqId(1));
    assert!(cache.forget(TENANT, ShardId(0), "#"));
    answer(&mut cache, 0, "a");
    assert!(!cache.forget(TENANT, ShardId(0), "#"));
    assert!(cache.is_empty());
}

#[test]
fn the_least_recently_added_topics_go_first() {
    let mut cache = MatchCache::new(2);
    for topic in ["a", "b", "a", "c"] {
        answer(&mut cache, 0, topic);
    }
    assert!(cache.matches(key("b")).is_none());
    assert!(cache.matches(key("a")).is_some(), "added again after b");
    for round in 0..100 {
        answer(&mut cache, 0, &format!("t{round}"));
        cache.forget(TENANT, ShardId(0), "#");
        cache.validate();
    }
}

#[test]
fn a_refusal_leaves_no_trace() {
    let mut dist = Driven::default();
    let route = Arc::new(RouteFilter::parse("$share/g/a"));
    let refused = dist.run(|p, effects| p.add(ShardId(0), 1, TENANT, &route, live(0, 1), 0, effects));
    assert_eq!(refused, [format!("added 0 1 {:?}", Err::<(), _>(PortError::QuotaExceeded))]);
    assert_eq!(dist.partition.routes(), 0);
    assert_eq!(dist.matched(0, "a"), ["matched 0 a "]);
}
