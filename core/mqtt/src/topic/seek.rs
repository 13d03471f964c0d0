//! How to find the topics that match a filter in a set of topics sorted by bytes, without looking at all of them.
//!
//! [`step`] looks at one topic of the set and says that it matches, or names a string that is larger than the topic and not
//! larger than any later match, to continue from, or says that no match can follow. Whoever walks the set so touches each
//! topic at most once and skips subtrees that cannot match in one search.
//!
//! Why it is right: let the first levels of the topic match, and call the part of the topic before the level in question
//! the stem. All topics under one stem are neighbours in byte order. Later matches under the same stem begin with the stem
//! and the filter's literal levels from here on; if that string lies behind, they can only be under another stem, and a
//! stem differs from another only where the filter has `+`: so the next candidate lies behind all topics that share the
//! stem up to the last `+`. These begin with that prefix and `/`; the first string behind them has `0`, the byte after
//! `/`, in its place. One trap: `a` and `a/b` are not neighbours, `a!` and `a!/b` lie between them, because `!` comes before
//! `/`. To a literal level that makes no difference, but where the topic ends in a level that `+` took, the walk must not
//! jump over them.

use super::{HASH, PLUS, split_level, starts_with_wildcard};
use alloc::string::String;

/// What [`step`] says about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It matches.
    Match,
    /// It does not; all matches behind it are at or behind the target.
    Seek,
    /// It does not, and nothing behind it does.
    End,
}

/// The smallest string a match of `filter` can be.
pub(super) fn first_candidate(filter: &str, target: &mut String) {
    target.clear();
    push_literals(target, filter);
}

/// Judges `topic`; after [`Step::Seek`], `target` is larger than `topic`.
pub(super) fn step(filter: &str, topic: &str, target: &mut String) -> Step {
    if topic.starts_with('$') && starts_with_wildcard(filter) {
        target.clear();
        target.push('%'); // the byte after $: behind all topics hidden from wildcards [MQTT-4.7.2-1] [MQTT5-4.7.2-1]
        return Step::Seek;
    }
    let (mut start, mut rest, mut plus_end) = (0, filter, None);
    loop {
        let (wanted, after) = split_level(rest);
        if wanted == HASH && after.is_none() {
            return Step::Match;
        }
        let end = topic[start..].find('/').map_or(topic.len(), |at| start + at);
        if wanted == PLUS {
            plus_end = Some(end);
        } else if *wanted != topic[start..end] {
            return seek_under_stem(rest, topic, start, plus_end, target);
        }
        match (after, end == topic.len()) {
            (None, true) | (Some(HASH), true) => return Step::Match,
            (None, false) => return seek_behind(topic, plus_end, target),
            (Some(after), true) => {
                target.clear();
                target.push_str(topic);
                if plus_end == Some(end) {
                    target.push('\0'); // between `a` and `a/…` lies `a!/…`, which `+` takes as well
                } else {
                    target.push('/');
                    push_literals(target, after);
                }
                return Step::Seek;
            }
            (Some(after), false) => (rest, start) = (after, end + 1),
        }
    }
}

/// The level of `topic` at `start` is not the literal that `rest` begins with.
fn seek_under_stem(rest: &str, topic: &str, start: usize, plus_end: Option<usize>, target: &mut String) -> Step {
    target.clear();
    target.push_str(&topic[..start]);
    let parent_matches = push_literals(target, rest);
    if target.as_str() > topic {
        return Step::Seek;
    }
    if parent_matches {
        // `a/#` matches `a` and `a/…`, but `a!` lies between them.
        target.push('/');
        if target.as_str() > topic {
            return Step::Seek;
        }
    }
    seek_behind(topic, plus_end, target)
}

/// Nothing is left under the last level that `+` took.
fn seek_behind(topic: &str, plus_end: Option<usize>, target: &mut String) -> Step {
    let Some(end) = plus_end else { return Step::End };
    target.clear();
    target.push_str(&topic[..end]);
    target.push('0');
    Step::Seek
}

/// Appends the levels up to the first wildcard, with the separator before a `+`; true if it stopped at `/#`.
fn push_literals(target: &mut String, filter: &str) -> bool {
    let mut rest = filter;
    loop {
        let (level, after) = split_level(rest);
        if level == PLUS || (level == HASH && after.is_none()) {
            return false;
        }
        target.push_str(level);
        match after {
            None => return false,
            Some(HASH) => return true,
            Some(after) => {
                target.push('/');
                rest = after;
            }
        }
    }
}
