//! Topic names, topic filters and the two indexes that join them. Pure: no I/O, no clock, no recursion over levels.
//!
//! - [`name`]: what a well-formed topic name is, and the tenant's limits on it.
//! - [`filter`]: what a well-formed filter is, and the `$share` and `$oshare` prefixes.
//! - [`relation`]: does a filter match a name, cover or overlap another filter. The definition the indexes are tested against.
//! - [`filter_index`]: filters → values, asked with a topic name. For routes and subscriptions.
//! - [`topic_tree`]: topic names → values, asked with a filter. For retained messages and match caches.
//!
//! **What is a level.** Both kinds of string are split at every `/`; empty levels are levels, comparison is byte by byte,
//! nothing is normalised [MQTT-4.7.3-4] [MQTT5-4.7.3-4]. `+` is a wildcard only as a whole level, `#` only as the whole last
//! level; anywhere else they are ordinary characters to [`relation`] and to the indexes, which are therefore total
//! functions and agree on every input, well-formed or not. Refusing the malformed is [`name`]'s and [`filter`]'s task.

mod arena;
pub mod filter;
pub mod filter_index;
mod filter_trie;
pub mod name;
pub mod relation;
mod seek;
mod symbols;
#[cfg(test)]
mod tests;
pub mod topic_tree;

pub use filter::{ParsedFilter, check_filter};
pub use filter_index::{BudgetSpent, FilterIndex};
pub use name::{TopicError, TopicLimits, check_name};
pub use relation::{filter_covers, filter_matches, filters_overlap};
pub use topic_tree::TopicTree;

/// The level wildcard, as a whole level.
const PLUS: &str = "+";
/// The multi-level wildcard, as the whole last level.
const HASH: &str = "#";

/// Takes the first level off `rest`: the level, and what follows its separator, or none if it was the last level.
fn split_level(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    }
}

/// Whether the filter's first level is a wildcard, which `$` topics are hidden from [MQTT-4.7.2-1] [MQTT5-4.7.2-1].
fn starts_with_wildcard(filter: &str) -> bool {
    filter == HASH || split_level(filter).0 == PLUS
}
