//! Which QoS 2 publishes somebody has already, a range's inboxes or a shard's connections, so that none of them is taken a second time: neither when its client repeats it
//! over another connection [MQTT-4.3.3-2] [MQTT5-4.3.3-10], nor when a node tries it again since it does not know whether it arrived.
//!
//! A note stands from when the message is taken until it is forgotten. Then its packet identifier may name another message, while what was on its
//! way of the first one over a link that has ended may still arrive, for as long as [`ORIGINS_FENCED_FOR`]. It is refused: as coming of an earlier
//! connection of the publisher than the one that had it forgotten, or, if its own connection had, as what was said to be in doubt.
//!
//! Whether a client repeats a message is not told by DUP, which not all set (rumqttc 0.25 does not): it is by the identifier alone.
//!
//! # Groups
//! Of a shared group any member may get a publish the next time, so whoever has it must be asked for before it is offered a second time: who notes
//! publishes says for which groups ([`Origins::inquire`]). What is still on its way of the tries before is late from then on.

use crate::ids::{Slot, keyed_hash};
use crate::limits::ORIGINS_FENCED_FOR;
use crate::ports::{GroupName, Origin};
use crate::time::Instant;
use alloc::vec::Vec;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use smallvec::SmallVec;

/// The publish an origin names, whichever of the client's connections it came by: its inbox's range and place, the packet identifier, and the group.
pub type OriginKey = (u16, Slot, u16, u64);

/// Stands for all groups.
const GROUPS: u64 = u64::MAX;

/// The key of an origin.
#[must_use]
pub const fn origin_key(origin: &Origin) -> OriginKey {
    (origin.inbox.0.0, origin.inbox.1, origin.packet_id, origin.group)
}

const fn with_group((range, slot, packet_id, _): OriginKey, group: u64) -> OriginKey {
    (range, slot, packet_id, group)
}

/// How [`Origin::group`] names a group of a tenant. `filter` is without prefix.
#[must_use]
pub fn group_id(filter: &str, group: &GroupName) -> u64 {
    let parts: [&[u8]; 3] = [filter.as_bytes(), group.name.as_bytes(), &[group.ordered.into()]];
    keyed_hash(0, &parts).clamp(1, GROUPS - 1)
}

/// What was taken under an identifier: by which of the publisher's connections, and which of its publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// [`Origin::epoch`].
    pub epoch: u64,
    /// [`Origin::nth`].
    pub nth: u64,
}

/// The note of an origin.
#[must_use]
pub const fn note_of(origin: &Origin) -> Note {
    Note { epoch: origin.epoch, nth: origin.nth }
}

const fn attempt_of(origin: &Origin) -> Note {
    Note { epoch: origin.epoch, nth: origin.attempt }
}

/// What is to be done with a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is taken.
    Never,
    /// It was.
    Before,
    /// It comes so late that its client is past it.
    Late,
}

/// See the module's page. `T`: what whoever notes a publish needs to know it again.
#[derive(Debug)]
pub struct Origins<T = ()> {
    notes: HashMap<OriginKey, (Note, T)>,
    /// Of publishes, with no group in their keys: groups that there are notes of.
    groups: HashMap<OriginKey, Vec<u64>>,
    /// By publisher: the last of its connections that had something forgotten or asked for, and when.
    fences: HashMap<(u16, Slot), (u64, Instant)>,
    /// What was forgotten in doubt, or, for [`GROUPS`], asked for, and when.
    doubtful: HashMap<OriginKey, (Note, Instant)>,
    sweep_at: Instant,
}

impl<T> Default for Origins<T> {
    fn default() -> Self {
        let (fences, doubtful, sweep_at) = Default::default();
        Self { notes: HashMap::new(), groups: HashMap::new(), fences, doubtful, sweep_at }
    }
}

impl<T> Origins<T> {
    /// Whether a publish was taken before: whatever has its identifier was, if it `is_same`.
    pub fn seen(&self, origin: &Origin, is_same: impl FnOnce(Note, &T) -> bool) -> Seen {
        let (key, note) = (origin_key(origin), note_of(origin));
        let fence = self.fences.get(&(key.0, key.1));
        let is_past =
            |group, note: Note| self.doubtful.get(&with_group(key, group)).is_some_and(|&(last, _)| note <= last);
        let is_fenced = fence.is_some_and(|&(epoch, _)| note.epoch < epoch);
        if is_fenced || is_past(0, note) || origin.group != 0 && is_past(GROUPS, attempt_of(origin)) {
            return Seen::Late;
        }
        match self.notes.get(&key) {
            Some((before, kept)) if is_same(*before, kept) => Seen::Before,
            _ => Seen::Never,
        }
    }

    /// Notes a publish.
    pub fn put(&mut self, key: OriginKey, note: Note, kept: T) {
        if self.notes.insert(key, (note, kept)).is_none() && key.3 != 0 {
            self.groups.entry(with_group(key, 0)).or_default().push(key.3);
        }
    }

    /// What is noted under an identifier.
    #[must_use]
    pub fn note(&self, key: OriginKey) -> Option<Note> {
        self.notes.get(&key).map(|(note, _)| *note)
    }

    /// How many notes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// All notes, in the order of their keys.
    #[must_use]
    pub fn noted(&self) -> Vec<(OriginKey, Note)> {
        let mut noted: Vec<_> = self.notes.iter().map(|(key, (note, _))| (*key, *note)).collect();
        noted.sort_unstable_by_key(|(key, _)| *key);
        noted
    }

    /// Removes a note, and nothing that was put after it.
    pub fn remove(&mut self, key: OriginKey, note: Note) -> bool {
        let is_removed = self.note(key).is_some_and(|noted| noted <= note) && self.notes.remove(&key).is_some();
        if is_removed
            && key.3 != 0
            && let Entry::Occupied(mut groups) = self.groups.entry(with_group(key, 0))
        {
            groups.get_mut().retain(|group| *group != key.3);
            if groups.get().is_empty() {
                groups.remove();
            }
        }
        is_removed
    }

    /// A publish need not be recognised any more, whoever got it. `in_doubt`: it may still be on its way, and is not taken any more. Returns the notes that are gone.
    pub fn forget(&mut self, now: Instant, origin: &Origin, in_doubt: bool) -> SmallVec<[OriginKey; 1]> {
        let (key, note) = (origin_key(origin), note_of(origin));
        self.fence(now, with_group(key, 0), note, in_doubt);
        let groups = self.groups.get(&key).into_iter().flatten();
        let mut keys: SmallVec<[OriginKey; 1]> = groups.map(|&group| with_group(key, group)).collect();
        keys.push(key);
        keys.retain(|key| self.remove(*key, note));
        keys
    }

    /// Groups that a publish was taken for, if it `is_same`, in ascending order; whatever is on its way to groups of tries up to this one, or of the publisher's earlier connections, is not
    /// taken any more.
    pub fn inquire(&mut self, now: Instant, origin: &Origin, is_same: impl Fn(&T) -> bool) -> Vec<u64> {
        let key = origin_key(origin);
        self.fence(now, with_group(key, GROUPS), attempt_of(origin), true);
        let mut groups = self.groups.get(&with_group(key, 0)).cloned().unwrap_or_default();
        groups.retain(|&group| self.notes.get(&with_group(key, group)).is_some_and(|(_, kept)| is_same(kept)));
        groups.sort_unstable();
        groups
    }

    /// What comes of the publisher's earlier connections is late; in doubt, so is what has this key up to this note.
    fn fence(&mut self, now: Instant, key: OriginKey, note: Note, in_doubt: bool) {
        let fence = self.fences.entry((key.0, key.1)).or_default();
        *fence = (fence.0.max(note.epoch), now);
        if in_doubt {
            let last = self.doubtful.entry(key).or_insert((note, now));
            *last = (last.0.max(note), now);
        }
        if self.sweep_at <= now {
            self.sweep_at = now + ORIGINS_FENCED_FOR;
            self.fences.retain(|_, (_, at)| *at + ORIGINS_FENCED_FOR > now);
            self.doubtful.retain(|_, (_, at)| *at + ORIGINS_FENCED_FOR > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RangeIdx;

    const NOW: Instant = Instant::from_micros(1);

    fn origin(epoch: u64, nth: u64) -> Origin {
        Origin {
            inbox: (RangeIdx(3), Slot { index: 4, generation: 5 }),
            epoch,
            packet_id: 6,
            nth,
            group: 0,
            attempt: nth,
        }
    }

    fn noted(of: &Origin) -> Origins {
        let mut origins = Origins::default();
        origins.put(origin_key(of), note_of(of), ());
        origins
    }

    fn seen(origins: &Origins, origin: &Origin) -> Seen {
        origins.seen(origin, |_, ()| true)
    }

    #[test]
    fn whatever_has_the_identifier_was_seen_until_it_is_forgotten() {
        let mut origins = noted(&origin(7, 10));
        assert_eq!(seen(&origins, &origin(7, 10)), Seen::Before, "tried again");
        assert_eq!(seen(&origins, &origin(7, 11)), Seen::Before, "repeated, since it was not answered");
        assert_eq!(seen(&origins, &origin(8, 1)), Seen::Before, "repeated over the next connection");
        assert_eq!(seen(&origins, &Origin { packet_id: 7, ..origin(7, 10) }), Seen::Never);
        assert!(origins.forget(NOW, &origin(7, 9), false).is_empty(), "a newer message has the identifier");
        assert_eq!(*origins.forget(NOW, &origin(8, 1), false), [origin_key(&origin(7, 10))]);
        assert_eq!(seen(&origins, &origin(8, 2)), Seen::Never);
    }

    #[test]
    fn what_comes_of_an_earlier_connection_or_was_given_up_is_late_for_a_while() {
        let mut origins = noted(&origin(7, 10));
        assert_eq!(origins.forget(NOW, &origin(8, 1), false).len(), 1);
        assert_eq!(seen(&origins, &origin(7, 10)), Seen::Late);
        assert!(origins.forget(NOW, &origin(8, 2), true).is_empty(), "it has not come yet");
        assert_eq!(seen(&origins, &origin(8, 2)), Seen::Late);
        assert_eq!(seen(&origins, &origin(8, 3)), Seen::Never, "the next message under the identifier");
        let later = NOW + ORIGINS_FENCED_FOR;
        let other = Origin { inbox: (RangeIdx(1), Slot { index: 0, generation: 0 }), ..origin(1, 1) };
        assert!(origins.forget(later, &other, false).is_empty());
        assert_eq!((seen(&origins, &origin(7, 10)), seen(&origins, &origin(8, 2))), (Seen::Never, Seen::Never));
        assert_eq!((origins.fences.len(), origins.doubtful.len()), (1, 0));
    }

    #[test]
    fn whoever_has_a_publish_says_for_which_groups_and_takes_nothing_of_the_tries_before() {
        let of = |group, attempt| Origin { group, attempt, ..origin(7, 10) };
        let mut origins = noted(&origin(7, 10));
        for group in [5, 3] {
            origins.put(origin_key(&of(group, 10)), note_of(&of(group, 10)), ());
        }
        assert_eq!(origins.inquire(NOW, &of(0, 12), |()| true), [3, 5]);
        assert_eq!(seen(&origins, &of(4, 11)), Seen::Late, "a try before");
        assert_eq!((seen(&origins, &of(4, 13)), seen(&origins, &of(3, 13))), (Seen::Never, Seen::Before));
        assert_eq!(seen(&origins, &Origin { packet_id: 7, ..of(4, 11) }), Seen::Never);
        assert_eq!(seen(&origins, &origin(7, 10)), Seen::Before, "of everybody else it is the same publish");
        assert!(origins.inquire(NOW, &Origin { packet_id: 7, ..origin(8, 1) }, |()| true).is_empty());
        assert_eq!(seen(&origins, &of(4, 13)), Seen::Late, "of an earlier connection");
        let mut gone = origins.forget(NOW, &origin(8, 0), false);
        gone.sort_unstable();
        assert_eq!(gone.iter().map(|key| key.3).collect::<Vec<_>>(), [0, 3, 5]);
        assert!(origins.is_empty() && origins.groups.is_empty());
        assert!(origins.inquire(NOW, &origin(8, 1), |()| true).is_empty());
    }
}
