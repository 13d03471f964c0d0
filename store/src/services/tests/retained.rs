//! Retained messages from several shards at once.

use super::*;
use bifro_core::ports::{PortError, Retain};

fn set(sim: &mut Sim, shard: ShardId, topic: &str, payload: &str) {
    let req = sim.req();
    let (message, publisher) = (message(topic, payload, QoS::AtLeastOnce), client("p"));
    sim.call(shard, |services, now, tenant| services.set(now, req, tenant, &publisher, &message));
}

/// What a filter finds, asked on `shard`, as `topic=payload`.
fn find(sim: &mut Sim, shard: ShardId, filter: &str) -> Vec<String> {
    sim.settle();
    sim.take_heard();
    let req = sim.req();
    sim.call(shard, |services, now, tenant| services.find(now, req, tenant, filter));
    sim.settle();
    let heard = sim.take_heard();
    let found = heard.into_iter().find_map(|(_, completion)| match completion {
        Completion::Retained { req: answered, messages } if answered == req => Some(messages),
        _ => None,
    });
    let line = |m: &Published| format!("{}={}", m.topic(), text(m));
    found.expect("answered").iter().map(|retained| line(&retained.message)).collect()
}

/// HOSTILE 24, [MQTT-3.3.1-5] [MQTT5-3.3.1-5] [MQTT5-3.3.1-6]
#[test]
fn concurrent_sets_and_clears_leave_one_last_writer_per_topic_and_never_mix_topics() {
    const TOPICS: [&str; 3] = ["x/1", "x/2", "y"];
    for seed in 0..60 {
        let mut sim = Sim::new(seed, 4);
        let mut last: BTreeMap<(&str, ShardId), String> = BTreeMap::new();
        for write in 0..150 {
            let (shard, topic) = (sim.any_shard(), TOPICS[sim.pick(TOPICS.len())]);
            let payload = if sim.pick(3) == 0 { String::new() } else { format!("{topic} by {write}") };
            set(&mut sim, shard, topic, &payload);
            last.insert((topic, shard), payload);
            for _ in 0..sim.pick(4) {
                sim.step();
            }
        }
        let everything = find(&mut sim, ShardId(0), "#");
        for shard in 1..4 {
            assert_eq!(find(&mut sim, ShardId(shard), "#"), everything, "seed {seed}");
        }
        for topic in TOPICS {
            let retained = find(&mut sim, ShardId(1), topic);
            let payload = match &retained[..] {
                [] => "",
                [one] => one.strip_prefix(topic).and_then(|rest| rest.strip_prefix('=')).expect("its own topic"),
                more => panic!("seed {seed}: {more:?}"),
            };
            assert!(payload.is_empty() || payload.starts_with(topic), "seed {seed}: {payload} under {topic}");
            let candidates: Vec<_> = (0..4).filter_map(|shard| last.get(&(topic, ShardId(shard)))).collect();
            assert!(
                candidates.is_empty() || candidates.iter().any(|&c| c == payload),
                "seed {seed}: a last write wins"
            );
        }
        for topic in TOPICS {
            set(&mut sim, ShardId(2), topic, "");
        }
        sim.settle();
        sim.assert_nothing_used();
        assert_eq!(sim.gauge(|m| m.retained_messages.read() + m.retained_bytes.read()), 0);
    }
}

#[test]
fn a_write_that_was_answered_is_followed_by_the_next() {
    let mut sim = Sim::new(5, 4);
    for (shard, payload) in [(0, "one"), (3, "two"), (1, ""), (2, "three")] {
        set(&mut sim, ShardId(shard), "t", payload);
        sim.settle();
        let expected: Vec<String> = if payload.is_empty() { vec![] } else { vec![format!("t={payload}")] };
        assert_eq!(find(&mut sim, ShardId(0), "t"), expected);
        assert_eq!(find(&mut sim, ShardId(2), "+"), expected);
    }
}

#[test]
fn a_search_over_all_shards_is_ordered_by_topic_and_cut_to_the_limits() {
    let settings = TenantSettings { retained_matches_max: 5, ..TenantSettings::default() };
    let mut sim = Sim::with(6, 4, settings, &QuotaLimits::default());
    for index in 0..30 {
        let shard = sim.any_shard();
        set(&mut sim, shard, &format!("t/{index:02}"), "x");
    }
    assert_eq!(find(&mut sim, ShardId(3), "t/+"), ["t/00=x", "t/01=x", "t/02=x", "t/03=x", "t/04=x"]);
    assert_eq!(sim.gauge(|m| m.retained_messages.read()), 30);
}

#[test]
fn quotas_hold_over_all_shards() {
    let limits = QuotaLimits { total_retain_topics: 10, ..QuotaLimits::default() };
    let mut sim = Sim::with(7, 4, TenantSettings::default(), &limits);
    for index in 0..30 {
        set(&mut sim, ShardId(index % 4), &format!("t/{index}"), "x");
    }
    sim.settle();
    let refused = |(_, completion): &&(ShardId, Completion)| {
        matches!(completion, Completion::RetainSet { result: Err(PortError::QuotaExceeded), .. })
    };
    assert_eq!(sim.take_heard().iter().filter(refused).count(), 20);
    assert_eq!(find(&mut sim, ShardId(0), "#").len(), 10);
}

#[test]
fn searches_and_their_bytes_have_rates() {
    let bytes = message("a", "x", QoS::AtLeastOnce).footprint_bytes() as u64;
    let limits = QuotaLimits {
        total_retain_match_per_second: 2,
        total_retain_match_bytes_per_second: 2 * bytes,
        ..QuotaLimits::default()
    };
    let mut sim = Sim::with(8, 2, TenantSettings::default(), &limits);
    for topic in ["a", "b", "c"] {
        set(&mut sim, ShardId(0), topic, "x");
    }
    assert_eq!(find(&mut sim, ShardId(1), "#").len(), 2, "as many bytes as the second has");
    sim.advance(1);
    assert_eq!(find(&mut sim, ShardId(1), "a").len(), 1);
    assert_eq!(find(&mut sim, ShardId(1), "a").len(), 1);
    assert_eq!(find(&mut sim, ShardId(1), "a").len(), 0, "a search too many");
    sim.advance(1);
    assert_eq!(find(&mut sim, ShardId(1), "a").len(), 1);
}
