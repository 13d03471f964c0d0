//! Permissions that come with credentials, as tokens and the HTTP service write them.

use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::plugin::{Action, Effect, Rule};
use bifro_mqtt::topic::{TopicLimits, check_filter};

/// Most permissions one client brings along: each is asked for each topic its cache does not know.
pub(super) const PERMISSIONS_MAX: usize = 1_000;

/// Longest pattern, in bytes: that of a topic filter [MQTT5-4.7.3-3].
const PATTERN_BYTES_MAX: usize = 65_535;

/// What the matchers can take; a tenant's own limits apply to the topics that are asked about.
pub(crate) const PATTERN_LIMITS: TopicLimits =
    TopicLimits { bytes_max: PATTERN_BYTES_MAX, levels_max: TOPIC_LEVELS_HARD_MAX, level_bytes_max: PATTERN_BYTES_MAX };

/// Adds a permission.
///
/// # Errors
/// If the list is full or the pattern is not a topic filter; the whole list is void then.
pub(super) fn push_rule(
    rules: &mut Vec<Rule>,
    effect: Effect,
    action: Option<Action>,
    pattern: &str,
) -> Result<(), &'static str> {
    if rules.len() >= PERMISSIONS_MAX {
        return Err("lists more permissions than a client may have");
    }
    if check_filter(pattern, &PATTERN_LIMITS).is_err() {
        return Err("a permission's topic is not a valid topic filter");
    }
    rules.push(Rule { effect, action, pattern: pattern.into() });
    Ok(())
}

/// Ends a list: what it does not permit is denied, and the ACL file is not asked. An empty list denies everything.
pub(super) fn close_rules(rules: &mut Vec<Rule>) {
    rules.push(Rule { effect: Effect::Deny, action: None, pattern: "#".into() });
}
