//! The match cache of a shard: what every publish asks.

use bifro_core::ids::{ReqId, ShardId, TenantIdx};
use bifro_core::ports::Matches;
use bifro_range::TenantKeyRef;
use bifro_range::dist::MatchCache;
use criterion::{Criterion, Throughput};
use std::hint::black_box;

const TOPICS: u32 = 100_000;
const TENANT: TenantIdx = TenantIdx(0);

fn topic(n: u32) -> String {
    format!("building/{}/{}/{}/temperature", n / 1000, n / 50 % 20, n % 50)
}

fn remember(cache: &mut MatchCache, name: &str) {
    let key = TenantKeyRef { tenant: TENANT, name };
    cache.ask(key, ShardId(0), ReqId(1));
    cache.answered(key.to_key(), ShardId(0), Matches::default());
}

fn cache(criterion: &mut Criterion) {
    let mut cache = MatchCache::new(TOPICS as usize);
    let topics: Vec<String> = (0..TOPICS).map(topic).collect();
    topics.iter().for_each(|topic| remember(&mut cache, topic));
    let mut group = criterion.benchmark_group("cache/100,000 topics");
    group.throughput(Throughput::Elements(1));
    let hot = TenantKeyRef { tenant: TENANT, name: &topics[42] };
    group.bench_function("hit, one topic again and again", |b| b.iter(|| black_box(cache.matches(black_box(hot)))));
    let mut next = 0;
    group.bench_function("hit, another topic each time", |b| {
        b.iter(|| {
            next = (next + 7919) % topics.len();
            black_box(cache.matches(TenantKeyRef { tenant: TENANT, name: &topics[next] }).is_some())
        });
    });
    group.bench_function("forget a topic and remember it again", |b| {
        b.iter(|| {
            next = (next + 7919) % topics.len();
            black_box(cache.forget(TENANT, ShardId(0), &topics[next]));
            remember(&mut cache, &topics[next]);
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    cache(&mut criterion);
    criterion.final_summary();
}
