//! The index of filters with a million of them: ordinary topics hot and cold, and the worst a tenant may do to it.

use bifro_mqtt::topic::FilterIndex;
use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;

const FILTERS: u32 = 1_000_000;

/// A building's devices: mostly exact filters, one in ten with a wildcard.
fn filter(n: u32) -> String {
    let (building, floor, room) = (n / 1000, n / 50 % 20, n % 50);
    match n % 10 {
        0 => format!("building/{building}/+/{room}/temperature"),
        1 => format!("building/{building}/{floor}/#"),
        _ => format!("building/{building}/{floor}/{room}/temperature"),
    }
}

fn topic(n: u32) -> String {
    format!("building/{}/{}/{}/temperature", n / 1000, n / 50 % 20, n % 50)
}

fn matching(criterion: &mut Criterion) {
    let mut index = FilterIndex::new();
    for n in 0..FILTERS {
        index.insert(&filter(n), n);
    }
    let mut group = criterion.benchmark_group("index/1M filters");
    group.throughput(Throughput::Elements(1));
    let hot = topic(123_456);
    let matches = |index: &FilterIndex<u32>, topic: &str| {
        let mut count = 0_usize;
        index.for_each_match(topic, |_| count += 1);
        count
    };
    group.bench_function("match, one topic again and again", |b| {
        b.iter(|| black_box(matches(&index, black_box(&hot))));
    });
    let topics: Vec<String> = (0..FILTERS).map(|n| topic(n.wrapping_mul(7919) % FILTERS)).collect();
    let mut next = 0;
    group.bench_function("match, a new topic each time", |b| {
        b.iter(|| {
            next = (next + 1) % topics.len();
            black_box(matches(&index, &topics[next]))
        });
    });
    let mut n = FILTERS;
    group.bench_function("insert and remove a wildcard filter", |b| {
        b.iter(|| {
            n += 1;
            let filter = format!("building/{}/+/{n}/temperature", n % 1000);
            index.insert(&filter, n);
            black_box(index.remove(&filter, |_| true));
        });
    });
    group.finish();
}

/// Filters `+/a/+/a/…` and `a/+/a/+/…` in all mixtures: every level of `a/a/a/…` branches.
fn adversarial(criterion: &mut Criterion) {
    const LEVELS: u32 = 12;
    let mut index = FilterIndex::new();
    for mixture in 0..1_u32 << LEVELS {
        let levels: Vec<&str> = (0..LEVELS).map(|level| if mixture >> level & 1 == 1 { "+" } else { "a" }).collect();
        index.insert(&levels.join("/"), mixture);
    }
    let topic = vec!["a"; LEVELS as usize].join("/");
    let mut group = criterion.benchmark_group("index/4096 filters that all match");
    group.bench_function("match", |b| {
        b.iter(|| {
            let mut count = 0_usize;
            index.for_each_match(black_box(&topic), |_| count += 1);
            black_box(count)
        });
    });
    group.bench_function("match within 1,000 nodes", |b| {
        b.iter(|| black_box(index.for_each_match_within(black_box(&topic), 1_000, |_| {})));
    });
    group.finish();
}

fn building(criterion: &mut Criterion) {
    const SOME: u32 = 10_000;
    let filters: Vec<String> = (0..SOME).map(filter).collect();
    let mut group = criterion.benchmark_group("index/build");
    group.throughput(Throughput::Elements(SOME.into()));
    group.bench_function("10,000 filters", |b| {
        b.iter_batched_ref(
            FilterIndex::new,
            |index| filters.iter().zip(0_u32..).for_each(|(filter, n)| index.insert(filter, n)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    matching(&mut criterion);
    adversarial(&mut criterion);
    building(&mut criterion);
    criterion.final_summary();
}
