//! Topic filters: syntax, and the shared forms `$share/{name}/{filter}` (any member gets a message) and
//! `$oshare/{name}/{filter}` (the same publisher's messages go to the same member, BifroMQ's ordered sharing).

use super::name::{Shape, TopicError, TopicLimits};

/// Prefix of a shared filter [MQTT5-4.8.2-1].
const SHARE_PREFIX: &str = "$share/";
/// Prefix of an ordered shared filter.
const ORDERED_SHARE_PREFIX: &str = "$oshare/";

/// A filter as a client wrote it, taken apart and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedFilter<'a> {
    /// Share name, and whether the group is ordered (`$oshare`); none if the filter is not shared.
    pub group: Option<(&'a str, bool)>,
    /// The filter without any share prefix.
    pub filter: &'a str,
    /// Whether `filter` has a wildcard, so that it may match more than one topic.
    pub has_wildcard: bool,
}

impl<'a> ParsedFilter<'a> {
    /// Takes `full` apart and checks it. The limits hold for the filter without prefix, and a share name is as long as a
    /// level at most. `$share` without a separator is an ordinary filter, as the standard has it.
    ///
    /// # Errors
    /// The first rule broken, or the first limit exceeded if no rule is.
    pub fn parse(full: &'a str, limits: &TopicLimits) -> Result<Self, TopicError> {
        let (shared, ordered) = match full.strip_prefix(SHARE_PREFIX) {
            Some(rest) => (Some(rest), false),
            None => (full.strip_prefix(ORDERED_SHARE_PREFIX), true),
        };
        let Some(shared) = shared else {
            return Ok(Self { group: None, filter: full, has_wildcard: inspect(full, limits)? });
        };
        let (name, filter) = split_share(shared)?;
        let has_wildcard = inspect(filter, limits)?;
        if name.len() > limits.level_bytes_max {
            return Err(TopicError::LevelTooLong { bytes: name.len(), max: limits.level_bytes_max });
        }
        Ok(Self { group: Some((name, ordered)), filter, has_wildcard })
    }
}

/// Share name and filter of what follows the prefix.
fn split_share(shared: &str) -> Result<(&str, &str), TopicError> {
    // [MQTT5-4.8.2-2]: the name ends at a separator, and a filter follows it.
    let (name, filter) = shared.split_once('/').map_or((shared, None), |(name, filter)| (name, Some(filter)));
    if name.is_empty() {
        return Err(TopicError::ShareNameEmpty); // [MQTT5-4.8.2-1]
    }
    if name.contains(['+', '#']) {
        return Err(TopicError::ShareNameWildcard); // [MQTT5-4.8.2-2]
    }
    if name.contains('\0') {
        return Err(TopicError::Nul); // [MQTT5-4.7.3-2]
    }
    match filter {
        Some(filter) if !filter.is_empty() => Ok((name, filter)),
        _ => Err(TopicError::ShareFilterMissing), // [MQTT5-4.8.2-2]
    }
}

/// Checks a filter without share prefix.
///
/// # Errors
/// The first rule broken, or the first limit exceeded if no rule is.
pub fn check_filter(filter: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    inspect(filter, limits).map(|_has_wildcard| ())
}

/// Checks a filter and says whether it has a wildcard.
fn inspect(filter: &str, limits: &TopicLimits) -> Result<bool, TopicError> {
    if filter.is_empty() {
        return Err(TopicError::Empty); // [MQTT-4.7.3-1] [MQTT5-4.7.3-1]
    }
    let (mut shape, mut has_wildcard, mut closed) = (Shape::default(), false, false);
    for level in filter.split('/') {
        if closed {
            return Err(TopicError::HashNotLast); // [MQTT-4.7.1-2] [MQTT5-4.7.1-1]
        }
        for byte in level.bytes() {
            match byte {
                0 => return Err(TopicError::Nul), // [MQTT-4.7.3-2] [MQTT5-4.7.3-2]
                // `+` at any level, alone [MQTT-4.7.1-3] [MQTT5-4.7.1-2]; `#` alone [MQTT-4.7.1-2] [MQTT5-4.7.1-1].
                b'+' | b'#' if level.len() > 1 => return Err(TopicError::WildcardNotAlone),
                b'+' => has_wildcard = true,
                b'#' => (has_wildcard, closed) = (true, true),
                _ => {}
            }
        }
        shape.add(level.len());
    }
    limits.admit(filter.len(), shape)?;
    Ok(has_wildcard)
}
