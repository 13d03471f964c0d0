//! What matches, covers and overlaps what.

use super::super::*;
use super::{any_filter, any_topic, filters, topics};
use alloc::string::String;
use alloc::vec::Vec;
use proptest::prelude::*;

/// The examples of the standards' sections 4.7.1.2 and 4.7.1.3 [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2].
#[test]
fn the_examples_of_the_standard_hold() {
    let player = "sport/tennis/player1/#";
    for (filter, topic, matches) in [
        (player, "sport/tennis/player1", true),
        (player, "sport/tennis/player1/ranking", true),
        (player, "sport/tennis/player1/score/wimbledon", true),
        (player, "sport/tennis/player2", false),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "sport/tennis", true),
        ("sport/+/player1", "sport/tennis/player1", true),
    ] {
        assert_eq!(filter_matches(filter, topic), matches, "{filter} {topic}");
    }
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1], hostile input 7.
#[test]
fn wildcards_at_the_start_do_not_see_dollar_topics() {
    for filter in ["#", "+", "+/#", "+/monitor/Clients", "+/+/#"] {
        for topic in ["$SYS", "$SYS/monitor/Clients", "$", "$share/g/a"] {
            assert!(!filter_matches(filter, topic), "{filter} {topic}");
        }
    }
    for (filter, topic) in [
        ("$SYS/#", "$SYS"),
        ("$SYS/#", "$SYS/monitor/Clients"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("$SYS/+", "$SYS/$x"),
        ("+/$x", "a/$x"),
        ("#", "a/$SYS"),
        ("/#", "/$SYS"),
    ] {
        assert!(filter_matches(filter, topic), "{filter} {topic}");
    }
}

/// [MQTT-4.7.3-4] [MQTT5-4.7.3-4].
#[test]
fn levels_match_character_for_character_without_normalisation() {
    for (filter, topic) in [
        ("ACCOUNTS", "Accounts"),
        ("/finance", "finance"),
        ("finance/", "finance"),
        ("a//b", "a/b"),
        ("a/./b", "a/b"),
        ("a b", "a%20b"),
        ("\u{e9}", "e\u{301}"),
        ("a", "\u{feff}a"),
    ] {
        assert!(!filter_matches(filter, topic) && !filter_matches(topic, filter), "{filter} {topic}");
        assert!(filter_matches(filter, filter) && filter_matches(topic, topic));
    }
}

#[test]
fn covers_and_overlaps_by_example() {
    for (a, b, covers, overlaps) in [
        ("#", "a/+/b", true, true),
        ("#", "+/#", true, true),
        ("+/#", "#", true, true),
        ("#", "$SYS/#", false, false),
        ("+/x", "$SYS/x", false, false),
        ("$SYS/#", "#", false, false),
        ("a/#", "a", true, true),
        ("a/+/#", "a/#", false, true),
        ("a/#", "a/+", true, true),
        ("+/b", "a/+", false, true),
        ("a/+", "b/+", false, false),
        ("a/+", "a/+/c", false, false),
        ("a/b", "a/b", true, true),
        ("a/b", "a/B", false, false),
        ("+", "a", true, true),
        ("+", "/", false, false),
        ("/+/#", "/#", true, true),
        ("+", "/#", false, false),
    ] {
        assert_eq!(filter_covers(a, b), covers, "does {a} cover {b}");
        assert_eq!(filters_overlap(a, b), overlaps, "does {a} overlap {b}");
        assert_eq!(filters_overlap(b, a), overlaps, "does {b} overlap {a}");
    }
}

/// Every pair of filters of up to three levels, held against every topic of up to four, among them levels no filter names.
#[test]
fn covers_and_overlaps_say_what_the_matched_topics_say() {
    let filters = filters(&["a", "", "$"], 3);
    let topics = topics(&["a", "", "$", "z"], 5);
    let matched: Vec<Vec<bool>> =
        filters.iter().map(|filter| topics.iter().map(|topic| filter_matches(filter, topic)).collect()).collect();
    for (a, a_matched) in filters.iter().zip(&matched) {
        for (b, b_matched) in filters.iter().zip(&matched) {
            let covers = a_matched.iter().zip(b_matched).all(|(a, b)| *a || !*b);
            let overlaps = a_matched.iter().zip(b_matched).any(|(a, b)| *a && *b);
            assert_eq!(filter_covers(a, b), covers, "does {a} cover {b}");
            assert_eq!(filters_overlap(a, b), overlaps, "does {a} overlap {b}");
        }
    }
}

/// The definition of the standard, by levels and without cleverness.
fn matches_by_the_book(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([wanted, filter @ ..], [level, topic @ ..]) if *wanted == "+" || wanted == level => {
            matches_by_the_book(filter, topic)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_is_as_the_book_says(filter in any_filter(), topic in any_topic()) {
        let filter_levels: Vec<&str> = filter.split('/').collect();
        let topic_levels: Vec<&str> = topic.split('/').collect();
        let hidden = topic.starts_with('$') && (filter == "#" || filter_levels[0] == "+");
        let expected = !hidden && matches_by_the_book(&filter_levels, &topic_levels);
        prop_assert_eq!(filter_matches(&filter, &topic), expected);
    }

    #[test]
    fn a_cover_overlaps_and_matches_what_it_covers(a in any_filter(), b in any_filter(), topic in any_topic()) {
        if filter_covers(&a, &b) {
            prop_assert!(filters_overlap(&a, &b));
            prop_assert!(!filter_matches(&b, &topic) || filter_matches(&a, &topic));
        }
        if filter_matches(&a, &topic) && filter_matches(&b, &topic) {
            prop_assert!(filters_overlap(&a, &b) && filters_overlap(&b, &a));
        }
    }
}

/// Hostile input 27: one pass over the levels, none of it on the stack.
#[test]
fn a_topic_of_65_536_levels_is_matched_without_recursion() {
    super::on_a_small_stack(|| {
        let topic = "/".repeat(65_535);
        let filter: String = ["+/"].repeat(32_767).concat() + "+";
        assert!(filter_matches("#", &topic) && filter_matches(&topic, &topic));
        assert!(!filter_matches(&filter, &topic));
        assert!(filter_matches(&(filter.clone() + "/#"), &topic));
        assert!(filter_covers("#", &filter) && filters_overlap(&filter, &filter));
    });
}
