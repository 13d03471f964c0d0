//! Routes from topic filters to receivers, and the match caches that must never contradict them.
//!
//! # How a publish after SUBACK always matches
//! Three kinds of party talk, each pair over a channel that keeps order (the mesh, or the range's change feed):
//! a *partition* P that owns the routes of a topic, a *cache* C on each shard that publishes, and whoever adds a route.
//!
//! 1. P handles one request at a time. It answers *match* with what it holds at that moment, and notes C as interested.
//! 2. P handles *add* by storing the route, telling every interested C to *forget* the topics that the filter matches, and
//!    answering only when all of them have acknowledged. A filter whose first level is a wildcard is added to every
//!    partition, and is added when all have answered.
//! 3. C removes those topics and acknowledges, in one step.
//!
//! Let a publisher on C publish to a matching topic after the SUBACK, hence after C's acknowledgement if C was told.
//! - *C remembers an answer.* If P gave it after the route was stored, it has the route. If P gave it before, then P had
//!   noted C as interested, so C was told to forget; the answer was sent before that and channels keep order, so C had it
//!   when it forgot. So it is not remembered any more.
//! - *C is waiting for an answer* (asked for an earlier publish; later ones join in). If P gave it before the route was
//!   stored, then as above it reached C before C's acknowledgement, so C is not waiting for it now. So P gives it, or has
//!   given it, after the route was stored.
//! - *C asks now.* P has stored the route already.
//!
//! Interest ends only by an acknowledgement that says so, and C says so only if it neither remembers nor waits for any topic of
//! the tenant in P. A request sent after that acknowledgement reaches P after it and renews the interest; one sent before it
//! is still being waited for, so C would not have said so. Hence P never takes the word of a C that it has answered since.
//! No versions are needed: the order of the channels is the version.
//!
//! Removed routes are forgotten in the same way, but nobody waits for it.

mod cache;
mod partition;
mod routes;
#[cfg(test)]
mod tests;

pub use cache::{MatchCache, WaitingRequests};
pub use partition::{DistEffect, RoutePartition};

use alloc::boxed::Box;
use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::ports::GroupName;
use bifro_mqtt::topic::{ParsedFilter, TopicLimits};

/// What a route listens to: a filter without prefix, alone or as a member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteFilter {
    /// Filter without share prefix.
    pub filter: Box<str>,
    /// Group, if shared.
    pub group: Option<GroupName>,
}

impl RouteFilter {
    /// From a filter as the client wrote it, which the session has checked. What is malformed as a shared filter is taken
    /// for a plain one.
    pub fn parse(full: &str) -> Self {
        let limits =
            TopicLimits { bytes_max: usize::MAX, levels_max: TOPIC_LEVELS_HARD_MAX, level_bytes_max: usize::MAX };
        match ParsedFilter::parse(full, &limits) {
            Ok(ParsedFilter { group: Some((name, ordered)), filter, .. }) => {
                Self { filter: filter.into(), group: Some(GroupName { name: name.into(), ordered }) }
            }
            _ => Self { filter: full.into(), group: None },
        }
    }

    /// From a filter and group already taken apart.
    pub fn new(filter: &str, group: Option<&GroupName>) -> Self {
        Self { filter: filter.into(), group: group.cloned() }
    }
}

/// What decides about the partition of a topic, and of a filter unless it [spans](spans_partitions) all of them.
pub fn first_level(topic_or_filter: &str) -> &str {
    topic_or_filter.split_once('/').map_or(topic_or_filter, |(first, _)| first)
}

/// Whether topics with different first levels match the filter, so that every partition needs it.
pub fn spans_partitions(filter: &str) -> bool {
    filter == "#" || first_level(filter) == "+"
}
