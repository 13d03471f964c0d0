//! Which QoS 2 publishes somebody has already, a range's inboxes or a shard's connections, so that none of them is taken a second time: neither when its client repeats it
//! over another connection [MQTT-4.3.3-2] [MQTT5-4.3.3-10], nor when a node tries it again since it does not know whether it arrived.
//!
//! A note stands from when the message is taken until it is forgotten. Then its packet identifier may name another message, while what was on its
//! way of the first one over a link that has ended may still arrive, for as long as [`ORIGINS_FENCED_FOR`]. It is refused: as coming of an earlier
//! connection of the publisher than the one that had it forgotten, or, if its own connection had, as what was said to be in doubt.
//!
//! Whether a client repeats a message is not told by DUP, which not all set (rumqttc 0.25 does not): it is by the identifier alone.

use crate::ids::Slot;
use crate::limits::ORIGINS_FENCED_FOR;
use crate::ports::Origin;
use crate::time::Instant;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// The publish an origin names, whichever of the client's connections it came by: its inbox's range and place, and the packet identifier.
pub type OriginKey = (u16, Slot, u16);

/// The key of an origin.
#[must_use]
pub const fn origin_key(origin: &Origin) -> OriginKey {
    (origin.inbox.0.0, origin.inbox.1, origin.packet_id)
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
    /// By publisher: the last of its connections that had something forgotten, and when.
    fences: HashMap<(u16, Slot), (u64, Instant)>,
    /// What was forgotten in doubt, and when.
    doubtful: HashMap<OriginKey, (Note, Instant)>,
    sweep_at: Instant,
}

impl<T> Default for Origins<T> {
    fn default() -> Self {
        Self { notes: HashMap::new(), fences: HashMap::new(), doubtful: HashMap::new(), sweep_at: Instant::default() }
    }
}

impl<T> Origins<T> {
    /// Whether a publish was taken before: whatever has its identifier was, if it `is_same`.
    pub fn seen(&self, origin: &Origin, is_same: impl FnOnce(Note, &T) -> bool) -> Seen {
        let (key, note) = (origin_key(origin), note_of(origin));
        let fence = self.fences.get(&(key.0, key.1));
        let doubtful = self.doubtful.get(&key);
        if fence.is_some_and(|&(epoch, _)| note.epoch < epoch) || doubtful.is_some_and(|&(last, _)| note <= last) {
            return Seen::Late;
        }
        match self.notes.get(&key) {
            Some((before, kept)) if is_same(*before, kept) => Seen::Before,
            _ => Seen::Never,
        }
    }

    /// Notes a publish.
    pub fn put(&mut self, key: OriginKey, note: Note, kept: T) {
        self.notes.insert(key, (note, kept));
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
        self.note(key).is_some_and(|noted| noted <= note) && self.notes.remove(&key).is_some()
    }

    /// A publish need not be recognised any more. `in_doubt`: it may still be on its way, and is not taken any more. True if there was a note.
    pub fn forget(&mut self, now: Instant, origin: &Origin, in_doubt: bool) -> bool {
        let (key, note) = (origin_key(origin), note_of(origin));
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
        self.remove(key, note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RangeIdx;

    const NOW: Instant = Instant::from_micros(1);

    fn origin(epoch: u64, nth: u64) -> Origin {
        Origin { inbox: (RangeIdx(3), Slot { index: 4, generation: 5 }), epoch, packet_id: 6, nth }
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
        assert!(!origins.forget(NOW, &origin(7, 9), false), "a newer message has the identifier");
        assert!(origins.forget(NOW, &origin(8, 1), false));
        assert_eq!(seen(&origins, &origin(8, 2)), Seen::Never);
    }

    #[test]
    fn what_comes_of_an_earlier_connection_or_was_given_up_is_late_for_a_while() {
        let mut origins = noted(&origin(7, 10));
        assert!(origins.forget(NOW, &origin(8, 1), false));
        assert_eq!(seen(&origins, &origin(7, 10)), Seen::Late);
        assert!(!origins.forget(NOW, &origin(8, 2), true), "it has not come yet");
        assert_eq!(seen(&origins, &origin(8, 2)), Seen::Late);
        assert_eq!(seen(&origins, &origin(8, 3)), Seen::Never, "the next message under the identifier");
        let later = NOW + ORIGINS_FENCED_FOR;
        let other = Origin { inbox: (RangeIdx(1), Slot { index: 0, generation: 0 }), ..origin(1, 1) };
        assert!(!origins.forget(later, &other, false));
        assert_eq!((seen(&origins, &origin(7, 10)), seen(&origins, &origin(8, 2))), (Seen::Never, Seen::Never));
        assert_eq!((origins.fences.len(), origins.doubtful.len()), (1, 0));
    }
}
