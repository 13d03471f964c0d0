//! The topic tree against the definition, its paging, its cost.

use super::super::*;
use super::{LEVELS, any_filter, any_topic, filters, on_a_small_stack, topics};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use proptest::prelude::*;
use std::format;

fn tree_of<'a>(topics: impl IntoIterator<Item = &'a str>) -> TopicTree<usize> {
    let mut tree = TopicTree::new();
    for (n, topic) in topics.into_iter().enumerate() {
        tree.insert(topic, n);
    }
    tree
}

fn matched<V>(tree: &TopicTree<V>, filter: &str) -> Vec<String> {
    let mut found = Vec::new();
    tree.for_each_match(filter, |topic, _| {
        found.push(topic.into());
        ControlFlow::Continue(())
    });
    found
}

/// Stored topics a filter looks at, counted by pages of one step.
fn steps<V>(tree: &TopicTree<V>, filter: &str) -> usize {
    let (mut steps, mut bookmark) = (0, Some(String::new()));
    while let Some(from) = bookmark {
        bookmark = tree.scan(filter, &from, 1, |_, _| ControlFlow::Continue(()));
        steps += 1;
    }
    steps
}

#[test]
fn topics_are_set_changed_and_removed() {
    let mut tree = TopicTree::new();
    assert!(tree.is_empty());
    assert_eq!((tree.insert("a/b", 1), tree.insert("a/b", 2), tree.insert("a", 3)), (None, Some(1), None));
    if let Some(value) = tree.get_mut("a") {
        *value = 4;
    }
    assert_eq!((tree.get("a"), tree.get("a/b"), tree.get("a/"), tree.len()), (Some(&4), Some(&2), None, 2));
    assert_eq!(tree.iter().collect::<Vec<_>>(), [("a", &4), ("a/b", &2)]);
    assert_eq!((tree.remove("a/b"), tree.remove("a/b"), tree.len()), (Some(2), None, 1));
    tree.clear();
    assert!(tree.is_empty());
}

/// Every filter of up to three levels against the set of all topics of up to four: hidden dollar topics [MQTT-4.7.2-1]
/// [MQTT5-4.7.2-1], parents under `#` [MQTT-4.7.1-2] [MQTT5-4.7.1-1], empty levels [MQTT-4.7.1-3] [MQTT5-4.7.1-2] and nothing
/// normalised [MQTT-4.7.3-4] [MQTT5-4.7.3-4].
#[test]
fn all_small_filters_find_all_small_topics_as_defined_and_sorted() {
    let mut topics = topics(LEVELS, 4);
    topics.sort();
    let tree = tree_of(topics.iter().map(String::as_str));
    for filter in filters(LEVELS, 3) {
        let expected: Vec<&String> = topics.iter().filter(|topic| filter_matches(&filter, topic)).collect();
        assert_eq!(matched(&tree, &filter).iter().collect::<Vec<_>>(), expected, "{filter}");
    }
}

proptest! {
    #[test]
    fn any_set_of_topics_agrees_with_a_list(
        topics in prop::collection::btree_set(any_topic(), 0..40),
        filters in prop::collection::vec(any_filter(), 12),
    ) {
        for filter in filters {
            let mut tree = tree_of(topics.iter().map(String::as_str));
            let (hit, missed): (Vec<&String>, Vec<&String>) = topics.iter().partition(|topic| filter_matches(&filter, topic));
            let found = matched(&tree, &filter);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), hit.clone());
            prop_assert!(steps(&tree, &filter) <= tree.len() + 1);
            let mut removed = Vec::new();
            tree.remove_matching(&filter, |topic, value| removed.push((String::from(topic), value)));
            prop_assert_eq!(removed.iter().map(|(topic, _)| topic).collect::<Vec<_>>(), hit);
            prop_assert_eq!(tree.iter().map(|(topic, _)| topic).collect::<Vec<_>>(), missed);
            tree.remove_matching("#", |_, _| ());
            prop_assert!(tree.iter().all(|(topic, _)| topic.starts_with('$')), "`#` leaves what it does not see");
        }
    }

    #[test]
    fn pages_of_any_size_add_up_while_other_topics_come_and_go(
        topics in prop::collection::btree_set(any_topic(), 0..40),
        passing in prop::collection::vec(any_topic(), 1..20),
        filter in any_filter(),
        steps_max in 1..5usize,
        matches_max in 1..4usize,
    ) {
        let mut tree = tree_of(topics.iter().map(String::as_str));
        let passing: Vec<&String> = passing.iter().filter(|topic| !topics.contains(*topic)).collect();
        let mut found = Vec::new();
        let (mut bookmark, mut page) = (Some(String::new()), 0);
        while let Some(from) = bookmark {
            let mut left = matches_max;
            bookmark = tree.scan(&filter, &from, steps_max, |topic, _| {
                found.push(String::from(topic));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            for topic in &passing {
                if page % 2 == 0 { tree.insert(topic, 0) } else { tree.remove(topic) };
            }
            page += 1;
        }
        prop_assert!(found.is_sorted_by(|a, b| a < b), "once each, by topic");
        found.retain(|topic| topics.contains(topic));
        let expected: Vec<&String> = topics.iter().filter(|topic| filter_matches(&filter, topic)).collect();
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_limit_stops_the_walk_and_the_bookmark_goes_on() {
    let topics: Vec<String> = (0..10).map(|n| format!("t/{n}")).collect();
    let tree = tree_of(topics.iter().map(String::as_str));
    let mut found = Vec::new();
    let bookmark = tree.scan("t/+", "", usize::MAX, |_, &n| {
        found.push(n);
        if found.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((found, bookmark.as_deref()), (vec![0, 1, 2, 3], Some("t/4")));
    assert_eq!(tree.scan("t/+", "t/4", 0, |_, _| unreachable!("no step, no topic")).as_deref(), Some("t/4"));
    let mut rest = 0;
    let end = tree.scan("t/+", "t/4", usize::MAX, |_, _| {
        rest += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((rest, end), (6, None));
}

#[test]
fn subtrees_that_cannot_match_are_passed_by_in_one_step() {
    let mut tree = TopicTree::new();
    for device in 0..50 {
        for sensor in 0..100 {
            tree.insert(&format!("d{device:02}/s{sensor:02}/value"), ());
            tree.insert(&format!("d{device:02}/s{sensor:02}/unit"), ());
        }
    }
    assert_eq!(matched(&tree, "+/s50/value").len(), 50);
    assert!(steps(&tree, "+/s50/value") <= 50 * 4, "{}", steps(&tree, "+/s50/value"));
    assert!(steps(&tree, "+/nothing") <= 50 * 2 + 1, "{}", steps(&tree, "+/nothing"));
    assert_eq!(steps(&tree, "d07/s07/unit"), 2, "the topic, and that there is no other");
    assert_eq!(steps(&tree, "d07/s07/#"), 2 + 1);
    assert_eq!(steps(&tree, "d07/+/unit"), 100 + 100 + 1, "each unit, each value behind it, the end");
    assert_eq!(steps(&tree, "zzz/#"), 1);
    assert_eq!(steps(&tree, "#"), tree.len());
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1].
#[test]
fn hidden_topics_cost_a_wildcard_one_step_however_many_there_are() {
    let mut tree = tree_of(["a", "b"]);
    for n in 0..1_000 {
        tree.insert(&format!("$SYS/{n}"), n);
    }
    assert_eq!(steps(&tree, "#"), 1 + 2);
    assert_eq!(matched(&tree, "+/5"), [""; 0]);
    assert_eq!(matched(&tree, "$SYS/5"), ["$SYS/5"]);
    tree.remove_matching("+", |topic, _| assert!(topic == "a" || topic == "b"));
    assert_eq!(tree.len(), 1_000);
    tree.remove_matching("$SYS/#", |_, _| ());
    assert!(tree.is_empty());
}

/// Hostile input 27: filters of many `+` cost one step per stored topic at most.
#[test]
fn filters_of_many_pluses_cost_no_more_than_the_topics_there_are() {
    let mut tree = TopicTree::new();
    for levels in 1..=256 {
        tree.insert(&["a"].repeat(levels).join("/"), levels);
        tree.insert(&["b"].repeat(levels).join("/"), levels);
    }
    for levels in [1, 128, 256, 1_024] {
        let pluses = ["+"].repeat(levels).join("/");
        assert!(steps(&tree, &pluses) <= tree.len() + 1);
        assert_eq!(matched(&tree, &pluses).len(), if levels <= 256 { 2 } else { 0 });
        assert!(steps(&tree, &(pluses + "/x")) <= tree.len() + 1);
    }
}

/// Hostile input 27: 65,536 levels.
#[test]
fn the_deepest_topics_take_no_stack() {
    on_a_small_stack(|| {
        let slashes = "/".repeat(65_535);
        let mut tree = tree_of([slashes.as_str(), "/", "a"]);
        assert_eq!(matched(&tree, "#").len(), 3);
        assert_eq!(matched(&tree, &(["+"].repeat(30_000).join("/") + "/#")), core::slice::from_ref(&slashes));
        tree.remove_matching(&slashes, |_, n| assert_eq!(n, 0));
        assert_eq!(tree.iter().map(|(topic, _)| topic).collect::<Vec<_>>(), ["/", "a"]);
    });
}

#[test]
fn filters_agree_with_a_map_over_a_changing_set() {
    let (mut tree, mut map) = (TopicTree::new(), BTreeMap::new());
    let topics = topics(LEVELS, 3);
    for round in 0..5 {
        for (n, topic) in topics.iter().enumerate().skip(round).step_by(3) {
            assert_eq!(tree.insert(topic, n), map.insert(topic.clone(), n));
        }
        for topic in topics.iter().skip(2 * round).step_by(5) {
            assert_eq!(tree.remove(topic), map.remove(topic));
        }
        for filter in filters(LEVELS, 2) {
            let expected: Vec<&String> = map.keys().filter(|topic| filter_matches(&filter, topic)).collect();
            assert_eq!(matched(&tree, &filter).iter().collect::<Vec<_>>(), expected, "{filter}");
        }
    }
}
