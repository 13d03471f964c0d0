//! The filter index against the definition, its memory after removal, its cost on hostile input.

use super::super::*;
use super::{LEVELS, any_filter, any_topic, filters, on_a_small_stack, topics};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn matched<V: Clone + Ord>(index: &FilterIndex<V>, topic: &str) -> Vec<V> {
    let mut found = Vec::new();
    index.for_each_match(topic, |value| found.push(value.clone()));
    found.sort();
    found
}

#[test]
fn values_are_found_changed_and_removed_under_their_filter() {
    let mut index = FilterIndex::new();
    assert!(index.is_empty() && index.get("a").is_empty() && matched(&index, "a").is_empty());
    for (filter, value) in [("a/b", 1), ("a/+", 2), ("a/#", 3), ("a/+", 4), ("#", 5), ("a/b", 6)] {
        index.insert(filter, value);
    }
    assert_eq!((index.len(), index.filters()), (6, 4));
    assert_eq!(matched(&index, "a/b"), [1, 2, 3, 4, 5, 6]);
    assert_eq!(matched(&index, "a"), [3, 5]);
    assert_eq!(matched(&index, "$a"), [0; 0]);
    assert_eq!((index.get("a/+"), index.get("a/b"), index.get("a")), (&[2, 4][..], &[1, 6][..], &[][..]));
    index.get_mut("a/+").iter_mut().chain([&mut 0]).for_each(|value| *value *= 10);
    assert_eq!(index.remove("a/+", |&value| value == 2), None);
    assert_eq!(index.remove("a/+", |&value| value == 20), Some(20));
    assert_eq!(index.remove("b/+", |_| true), None);
    assert_eq!(index.remove("b", |_| true), None);
    assert_eq!(matched(&index, "a/b"), [1, 3, 5, 6, 40]);
    let all: BTreeMap<String, Vec<i32>> = index.iter().map(|(f, values)| (f.into_owned(), values.to_vec())).collect();
    let expected = [("#", vec![5]), ("a/#", vec![3]), ("a/+", vec![40]), ("a/b", vec![1, 6])];
    assert_eq!(all, expected.map(|(filter, values)| (filter.into(), values)).into());
    index.validate();
}

/// Every filter of up to three levels against every topic of up to four: hidden dollar topics [MQTT-4.7.2-1] [MQTT5-4.7.2-1],
/// parents under `#` [MQTT-4.7.1-2] [MQTT5-4.7.1-1], empty levels [MQTT-4.7.1-3] [MQTT5-4.7.1-2] and nothing normalised
/// [MQTT-4.7.3-4] [MQTT5-4.7.3-4].
#[test]
fn all_small_filters_match_all_small_topics_as_defined() {
    let filters: BTreeSet<String> = filters(LEVELS, 3).into_iter().collect();
    let mut index = FilterIndex::new();
    for filter in &filters {
        index.insert(filter, filter.clone());
    }
    index.validate();
    for topic in topics(LEVELS, 4) {
        let expected: Vec<String> = filters.iter().filter(|filter| filter_matches(filter, &topic)).cloned().collect();
        assert_eq!(matched(&index, &topic), expected, "{topic}");
    }
    for filter in &filters {
        assert_eq!(index.get(filter), core::slice::from_ref(filter));
        assert_eq!(index.remove(filter, |_| true).as_ref(), Some(filter));
    }
    index.validate();
    assert_eq!((index.len(), index.filters(), index.nodes()), (0, 0, 0), "removal leaves nothing behind");
}

proptest! {
    #[test]
    fn any_sequence_of_changes_agrees_with_a_list(
        changes in prop::collection::vec((any_filter(), 0u8..3, any::<bool>()), 0..60),
        topics in prop::collection::vec(any_topic(), 8),
    ) {
        let (mut index, mut list) = (FilterIndex::new(), Vec::new());
        for (filter, value, add) in changes {
            if add {
                index.insert(&filter, value);
                list.push((filter, value));
            } else {
                let place = list.iter().position(|(f, v)| *f == filter && *v == value);
                prop_assert_eq!(index.remove(&filter, |&v| v == value), place.map(|place| list.remove(place).1));
            }
            index.validate();
            prop_assert_eq!(index.len(), list.len());
        }
        for topic in topics {
            let mut expected: Vec<u8> =
                list.iter().filter(|(filter, _)| filter_matches(filter, &topic)).map(|(_, value)| *value).collect();
            expected.sort_unstable();
            prop_assert_eq!(matched(&index, &topic), expected);
        }
        for (filter, value) in list {
            prop_assert_eq!(index.remove(&filter, |&v| v == value), Some(value));
        }
        prop_assert_eq!((index.nodes(), index.filters(), index.len()), (0, 0, 0));
    }
}

/// Filters of all 2^levels shapes of `a` and `+`.
fn all_shapes(levels: u32) -> Vec<String> {
    let shape = |bits: u32| -> Vec<&str> { (0..levels).map(|i| if bits >> i & 1 == 1 { "+" } else { "a" }).collect() };
    (0..1 << levels).map(|bits| shape(bits).join("/")).collect()
}

/// Hostile input 27: the worst set of filters costs a match exactly the nodes it has, however long the topic is.
#[test]
fn no_match_visits_a_node_twice_whatever_the_filters_and_topic() {
    let mut index = FilterIndex::new();
    for filter in all_shapes(10) {
        index.insert(&filter, ());
        index.insert(&[&filter, "#"].join("/"), ());
    }
    assert_eq!(index.nodes(), (1 << 11) - 2, "shapes share their prefixes");
    let mut found = 0;
    let visited = index.for_each_match(&["a"].repeat(10).join("/"), |()| found += 1);
    assert_eq!((visited, found), (index.nodes() + 1, 2 << 10), "each node once, the root too");
    found = 0;
    let visited = index.for_each_match(&["a"].repeat(1_024).join("/"), |()| found += 1);
    assert_eq!((visited, found), (index.nodes() + 1, 1 << 10));
}

/// Hostile input 27.
#[test]
fn plus_filters_of_every_length_cost_one_node_per_level() {
    let mut index = FilterIndex::new();
    for levels in 1..=1_024 {
        index.insert(&["+"].repeat(levels).join("/"), levels);
        index.insert(&["+"].repeat(levels).join("/").replacen('+', "a", 1), levels);
    }
    assert_eq!(index.nodes(), 2 * 1_024);
    let visited = index.for_each_match(&["a"].repeat(1_024).join("/"), |_| ());
    assert_eq!(visited, 2 * 1_024 + 1);
    assert_eq!(index.for_each_match("x", |_| ()), 2);
}

#[test]
fn a_spent_budget_is_an_error_and_never_overdrawn() {
    let mut index = FilterIndex::new();
    for filter in all_shapes(8) {
        index.insert(&filter, filter.clone());
    }
    let topic = ["a"].repeat(8).join("/");
    let all = index.nodes() + 1;
    for nodes_max in 0..all {
        let mut found = 0;
        let spent = index.for_each_match_within(&topic, nodes_max, |filter| {
            assert!(filter_matches(filter, &topic));
            found += 1;
        });
        assert!(spent.is_err_and(|spent| spent.visited <= nodes_max.max(1)), "{nodes_max}");
        assert!(found < 256);
    }
    assert_eq!(index.for_each_match_within(&topic, all, |_| ()), Ok(all));
    assert_eq!(index.for_each_match_within("b", 2, |_| ()), Ok(2), "the budget is for what is reached");
}

/// Hostile inputs 20 and 27: 65,536 levels go in, match, come out and are dropped without a stack frame each.
#[test]
fn the_deepest_filters_take_no_stack() {
    on_a_small_stack(|| {
        let slashes = "/".repeat(65_535);
        let pluses = ["+"].repeat(32_768).join("/");
        let mut index = FilterIndex::new();
        for filter in [&slashes, &pluses, &(slashes.clone() + "#"), &(pluses.clone() + "/#")] {
            index.insert(filter, ());
        }
        let mut found = 0;
        index.for_each_match(&slashes, |()| found += 1);
        assert_eq!(found, 3);
        assert!(index.remove(&pluses, |()| true).is_some());
        assert_eq!(index.iter().count(), 3);
        drop(index.clone());
        for filter in [slashes.clone(), slashes + "#", pluses + "/#"] {
            assert!(index.remove(&filter, |()| true).is_some());
        }
        assert_eq!(index.nodes(), 0);
    });
}

/// Hostile input 20: as many filters as one packet can carry.
#[test]
fn sixty_four_thousand_filters_come_and_go() {
    let mut index = FilterIndex::new();
    let filter = |n: u32| if n.is_multiple_of(2) { std::format!("f/{n}") } else { std::format!("f/{n}/+") };
    for n in 0..65_536 {
        index.insert(&filter(n), n);
    }
    assert_eq!((matched(&index, "f/400"), matched(&index, "f/401/x")), (vec![400], vec![401]));
    assert!(index.for_each_match("f/401/x", |_| ()) <= 4, "other filters are not looked at");
    for n in (0..65_536).rev() {
        assert_eq!(index.remove(&filter(n), |_| true), Some(n));
    }
    index.validate();
    assert_eq!((index.len(), index.nodes()), (0, 0));
}

#[test]
fn equal_operations_find_values_in_equal_order() {
    let build = || {
        let mut index = FilterIndex::new();
        for (n, filter) in filters(LEVELS, 3).iter().enumerate() {
            index.insert(filter, n);
        }
        let mut order = Vec::new();
        for topic in topics(LEVELS, 3) {
            index.for_each_match(&topic, |&n| order.push(n));
        }
        order.extend(index.iter().map(|(_, values)| values[0]));
        order
    };
    assert_eq!(build(), build(), "hash seeds differ, the order does not");
}
