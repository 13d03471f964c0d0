//! How filters relate to topic names and to each other. This is the definition; the indexes are fast ways to ask it often.
//!
//! One pass over the levels of both strings, no allocation. Filters come without share prefix. `#` stands for any number of
//! levels, none included (`a/#` matches `a`). Since no topic name is empty, `#` says the same as `+/#`, and `/#` the same as
//! `/+/#`; [`filter_covers`] and [`filters_overlap`] treat them so.

use super::{HASH, PLUS, split_level, starts_with_wildcard};

/// Does `filter` match the topic name `topic`?
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    // A filter that starts with a wildcard sees no topic that starts with $ [MQTT-4.7.2-1] [MQTT5-4.7.2-1].
    if topic.starts_with('$') && starts_with_wildcard(filter) {
        return false;
    }
    let (mut filter_rest, mut topic_rest) = (Some(filter), Some(topic));
    loop {
        let Some(rest) = filter_rest else { return topic_rest.is_none() };
        let (wanted, after) = split_level(rest);
        if wanted == HASH && after.is_none() {
            return true; // the parent level included
        }
        let Some(rest) = topic_rest else { return false };
        let (level, topic_after) = split_level(rest);
        // Character by character, case and all [MQTT-4.7.3-4] [MQTT5-4.7.3-4].
        if wanted != PLUS && wanted != level {
            return false;
        }
        (filter_rest, topic_rest) = (after, topic_after);
    }
}

/// Does filter `a` match every topic that filter `b` matches?
pub fn filter_covers(a: &str, b: &str) -> bool {
    compare(a, b, |a, b| match (a, b) {
        (Level::Hash, _) => Verdict::Yes,
        // b reaches below where a ends, or ends where a wants one more level.
        (_, Level::Hash) | (Level::End, _) | (_, Level::End) => Verdict::No,
        (Level::Plus, Level::Plus) => Verdict::Next,
        (Level::Plus, Level::Text { dollar_topic, .. }) => Verdict::next_if(!dollar_topic),
        (Level::Text { .. }, Level::Plus) => Verdict::No,
        (Level::Text { text: a, .. }, Level::Text { text: b, .. }) => Verdict::next_if(a == b),
    })
}

/// Is there a topic that both filters match?
pub fn filters_overlap(a: &str, b: &str) -> bool {
    compare(a, b, |a, b| match (a, b) {
        // Whatever the other still wants can be chosen so.
        (Level::Hash, _) | (_, Level::Hash) => Verdict::Yes,
        (Level::End, _) | (_, Level::End) => Verdict::No,
        (Level::Plus, Level::Plus) => Verdict::Next,
        (Level::Plus, Level::Text { dollar_topic, .. }) | (Level::Text { dollar_topic, .. }, Level::Plus) => {
            Verdict::next_if(!dollar_topic)
        }
        (Level::Text { text: a, .. }, Level::Text { text: b, .. }) => Verdict::next_if(a == b),
    })
}

/// One level of a filter.
#[derive(Clone, Copy)]
enum Level<'a> {
    /// No level is left.
    End,
    Plus,
    Hash,
    /// `dollar_topic`: the first level, beginning with `$`, hidden from wildcards [MQTT-4.7.2-1] [MQTT5-4.7.2-1].
    Text {
        text: &'a str,
        dollar_topic: bool,
    },
}

/// What one pair of levels says.
enum Verdict {
    Yes,
    No,
    /// Look at the next pair.
    Next,
}

impl Verdict {
    const fn next_if(condition: bool) -> Self {
        if condition { Self::Next } else { Self::No }
    }
}

/// Walks both filters in step until a pair of levels decides; filters that end together agree.
fn compare(a: &str, b: &str, decide: impl Fn(Level<'_>, Level<'_>) -> Verdict) -> bool {
    let (mut a_rest, mut b_rest) = (Some(without_the_empty_topic(a)), Some(without_the_empty_topic(b)));
    let mut first = true;
    while a_rest.is_some() || b_rest.is_some() {
        match decide(take_level(&mut a_rest, first), take_level(&mut b_rest, first)) {
            Verdict::Yes => return true,
            Verdict::No => return false,
            Verdict::Next => first = false,
        }
    }
    true
}

/// The filter, or an equal one that does not match the empty string, which no topic is [MQTT-4.7.3-1] [MQTT5-4.7.3-1].
fn without_the_empty_topic(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        filter => filter,
    }
}

fn take_level<'a>(rest: &mut Option<&'a str>, first: bool) -> Level<'a> {
    let Some(filter) = *rest else { return Level::End };
    let (text, after) = split_level(filter);
    *rest = after;
    match text {
        HASH if after.is_none() => Level::Hash,
        PLUS => Level::Plus,
        text => Level::Text { text, dollar_topic: first && text.starts_with('$') },
    }
}
