//! Random changes and questions to the two topic indexes, held against plain lists and `filter_matches`; and their cost at
//! scale. `BIFRO_FUZZ_SECONDS` (default 1) is how long each fuzzer runs, `BIFRO_FUZZ_SEED` (default 1) what it begins with,
//! `BIFRO_TOPIC_SCALE` (default 20,000) how many filters the cost is measured with.

use bifro_core::rng::Prng;
use bifro_mqtt::topic::{
    FilterIndex, ParsedFilter, TopicError, TopicLimits, TopicTree, check_filter, check_name, filter_covers,
    filter_matches, filters_overlap,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::{Duration, Instant};

const LIMITS: TopicLimits = TopicLimits { bytes_max: 40, levels_max: 6, level_bytes_max: 8 };
/// Levels that are alike in bytes, or lie next to `/` and `$` in byte order.
const LEVELS: &[&str] = &["a", "b", "", "a!", "a0", "a.", "$", "$x", "%", "é", "文", "A", " "];
const ODD_LEVELS: &[&str] = &["#", "a+", "+#", "\u{0}"];

fn from_env<T: FromStr>(key: &str, default: T) -> T {
    std::env::var(key).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs rounds with seeds counted up until the time is over; a failing round names its seed.
fn fuzz(round: impl Fn(&mut Prng)) {
    let end = Instant::now() + Duration::from_secs(from_env("BIFRO_FUZZ_SECONDS", 1));
    let mut seed = from_env("BIFRO_FUZZ_SEED", 1_u64);
    while Instant::now() < end {
        let named = SeedOnPanic(seed);
        round(&mut Prng::new(seed));
        drop(named);
        seed += 1;
    }
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with BIFRO_FUZZ_SEED={}", self.0);
        }
    }
}

fn below(rng: &mut Prng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).expect("below a usize")
}

fn topic(rng: &mut Prng) -> String {
    // Few levels and few of them distinct, so that topics and filters meet.
    let kinds = 1 + below(rng, LEVELS.len());
    let levels: Vec<&str> = (0..=rng.below(5)).map(|_| LEVELS[below(rng, kinds)]).collect();
    let topic = levels.join("/");
    if topic.is_empty() { "a".into() } else { topic }
}

/// A filter, mostly well-formed; the indexes take the others too.
fn filter(rng: &mut Prng) -> String {
    let topic = topic(rng);
    let levels = topic.split('/').map(|level| match rng.below(30) {
        0..9 => "+",
        9 => ODD_LEVELS[below(rng, ODD_LEVELS.len())],
        _ => level,
    });
    let filter = levels.collect::<Vec<_>>().join("/");
    match rng.below(8) {
        0 => "#".into(),
        1 | 2 => filter + "/#",
        _ => filter,
    }
}

#[test]
fn the_filter_index_agrees_with_a_list() {
    fuzz(|rng| {
        let (mut index, mut list): (FilterIndex<u64>, Vec<(String, u64)>) = (FilterIndex::new(), Vec::new());
        let grow = 2 + rng.below(3);
        for _ in 0..rng.below(200) {
            match rng.below(6) {
                n if n < grow => {
                    let (filter, value) = (filter(rng), rng.below(4));
                    index.insert(&filter, value);
                    list.push((filter, value));
                }
                5 => {
                    let (filter, value) = (filter(rng), rng.below(4));
                    let place = list.iter().position(|(f, v)| *f == filter && *v == value);
                    let expected = place.map(|place| list.swap_remove(place).1);
                    assert_eq!(index.remove(&filter, |&v| v == value), expected);
                }
                _ if !list.is_empty() => {
                    let (filter, value) = list.swap_remove(below(rng, list.len()));
                    assert_eq!(index.remove(&filter, |&v| v == value), Some(value));
                }
                _ => {}
            }
            ask_index(&index, &list, &topic(rng), below(rng, 20));
        }
        let mut stored: Vec<(String, u64)> =
            index.iter().flat_map(|(filter, values)| values.iter().map(move |&v| (filter.to_string(), v))).collect();
        stored.sort();
        list.sort();
        assert_eq!(stored, list);
        for (filter, value) in list {
            assert_eq!(index.remove(&filter, |&v| v == value), Some(value));
        }
        assert_eq!((index.len(), index.filters(), index.nodes()), (0, 0, 0), "nothing is left behind");
    });
}

fn ask_index(index: &FilterIndex<u64>, list: &[(String, u64)], topic: &str, budget: usize) {
    assert_eq!(index.len(), list.len());
    let mut expected: Vec<u64> =
        list.iter().filter(|(filter, _)| filter_matches(filter, topic)).map(|(_, value)| *value).collect();
    expected.sort_unstable();
    let mut found = Vec::new();
    let visited = index.for_each_match(topic, |&value| found.push(value));
    assert!(visited <= index.nodes() + 1);
    found.sort_unstable();
    assert_eq!(found, expected, "{topic:?}");
    match index.for_each_match_within(topic, budget, |value| assert!(expected.contains(value))) {
        Ok(nodes) => assert_eq!(nodes, visited),
        Err(spent) => assert!(spent.visited <= budget.max(1) && visited > budget),
    }
}

#[test]
fn the_topic_tree_agrees_with_a_map() {
    fuzz(|rng| {
        let (mut tree, mut map): (TopicTree<u64>, BTreeMap<String, u64>) = (TopicTree::new(), BTreeMap::new());
        for _ in 0..rng.below(200) {
            let topic = topic(rng);
            match rng.below(8) {
                0..5 => {
                    let value = rng.next_u64();
                    assert_eq!(tree.insert(&topic, value), map.insert(topic, value));
                }
                5 => assert_eq!(tree.remove(&topic), map.remove(&topic)),
                6 if rng.below(8) == 0 => {
                    let filter = filter(rng);
                    let mut removed = Vec::new();
                    tree.remove_matching(&filter, |topic, value| removed.push((topic.to_owned(), value)));
                    let expected: Vec<_> = map.extract_if(.., |topic, _| filter_matches(&filter, topic)).collect();
                    assert_eq!(removed, expected, "{filter:?}");
                }
                _ => assert_eq!(tree.get(&topic), map.get(&topic)),
            }
            let steps_max = if rng.below(2) == 0 { usize::MAX } else { 1 + below(rng, 6) };
            ask_tree(&tree, &map, &filter(rng), steps_max);
        }
        assert!(tree.iter().eq(map.iter().map(|(topic, value)| (topic.as_str(), value))));
    });
}

fn ask_tree(tree: &TopicTree<u64>, map: &BTreeMap<String, u64>, filter: &str, steps_max: usize) {
    assert_eq!(tree.len(), map.len());
    let (mut found, mut bookmark, mut pages) = (Vec::new(), Some(String::new()), 0);
    while let Some(from) = bookmark {
        bookmark = tree.scan(filter, &from, steps_max, |topic, &value| {
            found.push((topic.to_owned(), value));
            ControlFlow::Continue(())
        });
        pages += 1;
    }
    let expected: Vec<(String, u64)> =
        map.iter().filter(|(topic, _)| filter_matches(filter, topic)).map(|(t, v)| (t.clone(), *v)).collect();
    assert_eq!(found, expected, "{filter:?}");
    assert!(pages <= map.len() / steps_max + 1, "no topic is looked at twice");
}

#[test]
fn checks_and_relations_hold_together() {
    fuzz(|rng| {
        for _ in 0..200 {
            let (a, b, topic) = (filter(rng), filter(rng), topic(rng));
            let shared = format!("$share/{}/{a}", LEVELS[below(rng, LEVELS.len())]);
            for full in [&a, &shared] {
                if let Ok(parsed) = ParsedFilter::parse(full, &LIMITS) {
                    assert_eq!(check_filter(parsed.filter, &LIMITS), Ok(()), "{full:?}");
                    assert_eq!(parsed.has_wildcard, parsed.filter.contains(['+', '#']), "{full:?}");
                }
            }
            match check_name(&a, &LIMITS) {
                Err(TopicError::WildcardInName) => assert!(a.contains(['+', '#']), "{a:?}"),
                verdict => assert_eq!(verdict, check_filter(&a, &LIMITS), "without wildcards both are one: {a:?}"),
            }
            let (on_a, on_b) = (filter_matches(&a, &topic), filter_matches(&b, &topic));
            assert!(!filter_covers(&a, &b) || !on_b || on_a, "{a:?} covers {b:?} but not {topic:?}");
            assert!(filters_overlap(&a, &b) || !(on_a && on_b), "{a:?} and {b:?} meet in {topic:?}");
            assert!(filter_covers(&a, &a) && filters_overlap(&a, &b) == filters_overlap(&b, &a));
        }
    });
}

// The tests below print times and memory, meaningful in release builds and for one test per process, and hold the costs that
// do not depend on the machine.

#[test]
fn cost_of_exact_routes() {
    measure_routes(published);
}

#[test]
fn cost_of_hash_routes() {
    measure_routes(|n| format!("plant{}/device{n:08}/#", n % 97));
}

/// Half exact, a quarter each with `+` and `#`.
#[test]
fn cost_of_mixed_routes() {
    measure_routes(|n| match n % 4 {
        0 => format!("plant{}/device{n:08}/+", n % 97),
        1 => format!("plant{}/device{n:08}/#", n % 97),
        _ => published(n),
    });
}

#[test]
fn cost_of_routes_with_wildcards_everywhere() {
    measure_routes(|n| match n % 4 {
        0 => format!("+/device{n:08}/state"),
        1 => format!("plant{}/+/x{n}", n % 97),
        2 => format!("+/+/y{n}/#"),
        _ => format!("plant{}/device{n:08}/+", n % 97),
    });
}

fn scale() -> usize {
    from_env("BIFRO_TOPIC_SCALE", 20_000).max(1)
}

/// Topics to ask for, at random.
fn asked() -> Vec<String> {
    let mut rng = Prng::new(7);
    (0..scale().min(200_000)).map(|_| published(below(&mut rng, scale()))).collect()
}

fn published(n: usize) -> String {
    format!("plant{}/device{n:08}/state", n % 97)
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

fn measure(what: &str, asked: &[String], mut ask: impl FnMut(&str) -> usize) {
    let start = Instant::now();
    let answers: usize = asked.iter().map(|topic| ask(topic)).sum();
    let each = start.elapsed().as_nanos() / asked.len() as u128;
    eprintln!("{what}: {each} ns each, {answers} found for {}", asked.len());
}

fn measure_routes(route: impl Fn(usize) -> String) {
    let (scale, asked) = (scale(), asked());
    let before = resident_bytes();
    let mut index = FilterIndex::new();
    let (mut total, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for n in 0..scale {
        let filter = route(n);
        let begin = Instant::now();
        index.insert(&filter, [n as u64, 0]);
        let took = begin.elapsed();
        (total, slowest) = (total + took, slowest.max(took));
    }
    let memory = resident_bytes().saturating_sub(before) / scale;
    let each = total.as_nanos() / scale as u128;
    eprintln!("{}: insert {each} ns, slowest {slowest:?}; {memory} bytes each, {} nodes", route(1), index.nodes());
    measure("  match", &asked, |topic| {
        let mut found = 0;
        let visited = index.for_each_match(topic, |value| found += usize::from(black_box(value[1]) == 0));
        assert!(visited <= 16, "the routes of other devices are not looked at");
        found
    });
    let start = Instant::now();
    for n in 0..scale {
        assert!(index.remove(&route(n), |value| value[0] == n as u64).is_some());
    }
    eprintln!("  remove {} ns", start.elapsed().as_nanos() / scale as u128);
    assert_eq!((index.len(), index.nodes()), (0, 0));
}

#[test]
fn cost_of_the_topic_tree() {
    let (scale, asked) = (scale(), asked());
    let before = resident_bytes();
    let mut tree = TopicTree::new();
    let start = Instant::now();
    for n in 0..scale {
        tree.insert(&published((n * 7_919) % scale), [n as u64, 0]);
    }
    let each = start.elapsed().as_nanos() / scale as u128;
    eprintln!("topic tree: insert {each} ns; {} bytes each", resident_bytes().saturating_sub(before) / tree.len());
    let count = |filter: &str| {
        let mut found = 0;
        tree.for_each_match(filter, |_, value| {
            found += usize::from(black_box(value[1]) == 0);
            ControlFlow::Continue(())
        });
        found
    };
    measure("  get", &asked, |topic| usize::from(tree.get(topic).is_some()));
    let some = &asked[..asked.len().min(1_000)];
    measure("  plant/device/#", some, |topic| count(&topic.replace("state", "#")));
    measure("  +/device/+", some, |topic| count(&format!("+/{}/+", topic.split('/').nth(1).unwrap_or(""))));
    measure("  #", &["#".into()], count);
    measure("  +/nothing", &["+/nothing".into()], count);
    measure("  +/+/nothing", &["+/+/nothing".into()], count);
    let start = Instant::now();
    tree.remove_matching("#", |_, _| ());
    eprintln!("  remove all, {} ns each", start.elapsed().as_nanos() / scale as u128);
    assert!(tree.is_empty());
}
