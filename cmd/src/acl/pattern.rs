//! How a rule's pattern relates to a topic or filter, for one client.
//!
//! `%c`, `%u` and `%t` stand for client id, user and tenant. Clients choose these names, so a name that would change what the
//! pattern means is never substituted: one that contains `+`, `#` or `/`, an empty one, and at the start of the pattern one that
//! starts with `$`. An allow with such a name matches nothing; a deny then covers everything below the level before the name.

use bifro_core::client::ClientInfo;
use bifro_core::plugin::{Effect, Rule};
use bifro_mqtt::topic::{filter_covers, filter_matches, filters_overlap};
use smallvec::SmallVec;

/// Longest substituted pattern that needs no allocation, in bytes.
const INLINE_BYTES: usize = 256;

type Buffer = SmallVec<[u8; INLINE_BYTES]>;

/// What a pattern has to do with a topic or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// Everything the filter matches, the pattern matches; for a topic name: the pattern matches it.
    Covers,
    /// They have topics in common.
    Overlaps,
    /// They have nothing in common.
    Apart,
}

/// How `rule`'s pattern relates to `topic` for `client`.
pub(super) fn relation(rule: &Rule, client: &ClientInfo, topic: &str) -> Relation {
    if !rule.pattern.contains('%') {
        return compare(&rule.pattern, rule.effect, topic);
    }
    let mut buffer = Buffer::new();
    match substitute(&rule.pattern, rule.effect, client, &mut buffer) {
        Some(pattern) => compare(pattern, rule.effect, topic),
        None => Relation::Apart,
    }
}

fn compare(pattern: &str, effect: Effect, topic: &str) -> Relation {
    // Read literally, a deny's leading wildcard reaches `$` topics too: what the first level is called does not matter then.
    let topic = match effect {
        Effect::Deny if pattern.starts_with(['+', '#']) => topic.trim_start_matches('$'),
        _ => topic,
    };
    let is_filter = topic.contains(['+', '#']);
    if !is_filter {
        return if filter_matches(pattern, topic) { Relation::Covers } else { Relation::Apart };
    }
    if filter_covers(pattern, topic) {
        Relation::Covers
    } else if effect == Effect::Deny && filters_overlap(pattern, topic) {
        Relation::Overlaps
    } else {
        Relation::Apart
    }
}

/// The pattern with the client's names in it; none if the rule cannot apply to this client.
fn substitute<'b>(pattern: &str, effect: Effect, client: &ClientInfo, buffer: &'b mut Buffer) -> Option<&'b str> {
    let mut parts = pattern.split('%');
    buffer.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let name: &str = match part.as_bytes().first() {
            Some(b'c') => &client.client_id,
            Some(b'u') => &client.user,
            Some(b't') => &client.tenant,
            _ => {
                // A percent sign that is one.
                buffer.push(b'%');
                buffer.extend_from_slice(part.as_bytes());
                continue;
            }
        };
        let opens_dollar_topics = buffer.is_empty() && name.starts_with('$');
        if name.is_empty() || name.contains(['+', '#', '/', '\0']) || opens_dollar_topics {
            if effect == Effect::Allow {
                return None;
            }
            let level_start = buffer.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            buffer.truncate(level_start);
            buffer.push(b'#');
            break;
        }
        buffer.extend_from_slice(name.as_bytes());
        buffer.extend_from_slice(&part.as_bytes()[1..]);
    }
    // Made of whole strings, cut at a slash: it is UTF-8.
    std::str::from_utf8(buffer).ok()
}
