//! Topic aliases, one table per direction. Both live and die with the network connection [MQTT5-3.3.2-7].
//! The client's are accepted up to the announced maximum [MQTT5-3.3.2-12], the server's stay within the client's
//! [MQTT5-3.3.2-11].
//!
//! Towards the client the server sets an alias for a topic it has sent recently, and gives the alias of the topic least
//! recently used to the next one. Its table is searched in order, so it is kept small.

use super::Session;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Aliases the server uses towards one client at most: beyond that the search costs more than the bytes saved.
const OUTBOUND_MAX: u16 = 32;

/// Topics remembered as seen once.
const CANDIDATES: usize = 8;

/// Shorter topics do not repay the three bytes of the property.
const TOPIC_BYTES_MIN: usize = 6;

/// Both tables of a connection that uses any.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    pub(super) inbound: InboundAliases,
    /// None if the client or the server wants none.
    pub(super) outbound: Option<OutboundAliases>,
}

impl Aliases {
    /// Bytes on the heap, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.inbound.memory_bytes()
            + self.outbound.as_ref().map_or(0, OutboundAliases::memory_bytes)
    }
}

/// Aliases the client has set.
#[derive(Debug, Default)]
pub(super) struct InboundAliases {
    topics: HashMap<u16, Rc<str>>,
}

impl InboundAliases {
    /// Lets `alias` stand for `topic` from now on.
    pub(super) fn set(&mut self, alias: u16, topic: &str) {
        match self.topics.get_mut(&alias) {
            Some(known) if **known == *topic => {}
            Some(known) => *known = topic.into(),
            None => drop(self.topics.insert(alias, topic.into())),
        }
    }

    /// What `alias` stands for.
    pub(super) fn find(&self, alias: u16) -> Option<Rc<str>> {
        self.topics.get(&alias).cloned()
    }

    /// Bytes on the heap, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        self.topics.capacity() * size_of::<(u16, Rc<str>)>() + self.topics.values().map(|t| t.len() + 16).sum::<usize>()
    }
}

/// Aliases the server sets. `limit` is at most the client's Topic Alias Maximum [MQTT5-3.1.2-26] [MQTT5-3.1.2-27].
#[derive(Debug)]
pub(super) struct OutboundAliases {
    limit: u16,
    clock: u32,
    candidates: [u32; CANDIDATES],
    next_candidate: u8,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    used: u32,
}

/// How to send one PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AliasUse {
    /// The alias; never zero.
    pub(super) alias: u16,
    /// The topic goes along, since the client does not know the alias yet, or knows it for another topic.
    pub(super) sets: bool,
}

impl OutboundAliases {
    /// A table for a client that accepts `client_max` aliases and a server that wants to use at most `server_max`; none if
    /// either is zero.
    pub(super) fn new(client_max: u16, server_max: u16) -> Option<Self> {
        let limit = client_max.min(server_max).min(OUTBOUND_MAX);
        (limit > 0).then(|| Self {
            limit,
            clock: 0,
            candidates: [0; CANDIDATES],
            next_candidate: 0,
            entries: Vec::new(),
        })
    }

    /// The alias to use for `topic`, if any. Changes nothing that the client could notice: if the packet goes out,
    /// [`OutboundAliases::confirm`] must follow.
    pub(super) fn choose(&mut self, topic: &str) -> Option<AliasUse> {
        if topic.len() < TOPIC_BYTES_MIN {
            return None;
        }
        if let Some(at) = self.entries.iter().position(|entry| *entry.topic == *topic) {
            return Some(AliasUse { alias: number(at), sets: false });
        }
        if !self.seen_before(topic) {
            return None;
        }
        if self.entries.len() < usize::from(self.limit) {
            return Some(AliasUse { alias: number(self.entries.len()), sets: true });
        }
        // Wrapping ages: a clock that turns over makes one poor choice, not a wrong one.
        let oldest = self.entries.iter().enumerate().max_by_key(|(_, entry)| self.clock.wrapping_sub(entry.used));
        oldest.map(|(at, _)| AliasUse { alias: number(at), sets: true })
    }

    /// The packet with this alias has been put on the wire.
    pub(super) fn confirm(&mut self, chosen: AliasUse, topic: &str) {
        self.clock = self.clock.wrapping_add(1);
        let at = usize::from(chosen.alias) - 1;
        let used = self.clock;
        match self.entries.get_mut(at) {
            Some(entry) if chosen.sets => *entry = Entry { topic: topic.into(), used },
            Some(entry) => entry.used = used,
            None => self.entries.push(Entry { topic: topic.into(), used }),
        }
    }

    /// Remembers `topic`; true if it was remembered already.
    fn seen_before(&mut self, topic: &str) -> bool {
        let hash = fnv1a(topic.as_bytes());
        if self.candidates.contains(&hash) {
            return true;
        }
        let at = usize::from(self.next_candidate) % CANDIDATES;
        self.candidates[at] = hash;
        self.next_candidate = self.next_candidate.wrapping_add(1);
        false
    }

    /// The highest alias the client can have seen.
    pub(super) const fn highest(&self) -> usize {
        self.entries.len()
    }

    /// The most aliases it may use.
    pub(super) const fn limit(&self) -> u16 {
        self.limit
    }

    /// Bytes on the heap, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.entries.iter().map(|entry| entry.topic.len()).sum::<usize>()
    }
}

impl Session {
    /// The server's aliases towards this client, if it uses any.
    pub(super) fn aliases_out(&mut self) -> Option<&mut OutboundAliases> {
        self.aliases.as_deref_mut()?.outbound.as_mut()
    }
}

/// The alias of a place in the table.
fn number(at: usize) -> u16 {
    u16::try_from(at + 1).expect("the table has at most OUTBOUND_MAX places")
}

/// Fowler, Noll, Vo 1a, 32 bits, never zero: tells recent topics apart, well enough for a guess.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5_u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(table: &mut OutboundAliases, topic: &str) -> Option<(u16, bool)> {
        let chosen = table.choose(topic);
        if let Some(chosen) = chosen {
            table.confirm(chosen, topic);
        }
        chosen.map(|chosen| (chosen.alias, chosen.sets))
    }

    #[test]
    fn a_topic_gets_an_alias_the_second_time_and_is_left_out_the_third() {
        let mut table = OutboundAliases::new(5, 5).expect("aliases are on");
        assert_eq!(send(&mut table, "plant/1/t"), None);
        assert_eq!(send(&mut table, "plant/1/t"), Some((1, true)));
        assert_eq!(send(&mut table, "plant/1/t"), Some((1, false)));
    }

    /// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27]
    #[test]
    fn no_alias_is_above_the_clients_maximum_and_none_is_used_if_that_is_zero() {
        assert!(OutboundAliases::new(0, 10).is_none());
        assert!(OutboundAliases::new(10, 0).is_none());
        let mut table = OutboundAliases::new(2, 10).expect("aliases are on");
        for topic in ["topic/a", "topic/b", "topic/c", "topic/a", "topic/b", "topic/c"] {
            assert!(send(&mut table, topic).is_none_or(|(alias, _)| alias <= 2));
        }
    }

    #[test]
    fn the_topic_least_recently_used_makes_room() {
        let mut table = OutboundAliases::new(2, 2).expect("aliases are on");
        for topic in ["topic/a", "topic/a", "topic/b", "topic/b", "topic/a", "topic/c"] {
            send(&mut table, topic);
        }
        assert_eq!(send(&mut table, "topic/c"), Some((2, true)), "b was the older one");
        assert_eq!(send(&mut table, "topic/a"), Some((1, false)));
    }

    #[test]
    fn an_alias_that_was_chosen_but_not_sent_is_not_taken_for_known() {
        let mut table = OutboundAliases::new(2, 2).expect("aliases are on");
        send(&mut table, "topic/a");
        assert_eq!(table.choose("topic/a"), Some(AliasUse { alias: 1, sets: true }));
        assert_eq!(table.choose("topic/a"), Some(AliasUse { alias: 1, sets: true }));
    }
}
