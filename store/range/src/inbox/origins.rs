//! Which QoS 2 publishes a range's inboxes have already, so that none of them is stored a second time: neither when its client repeats it over another
//! connection [MQTT-4.3.3-2] [MQTT5-4.3.3-10], nor when a node tries it again since it does not know whether it arrived.
//!
//! A note stands from when the message is stored until it is forgotten. Then its packet identifier may name another message, while what was on its
//! way of the first one over a link that has ended may still arrive, for as long as [`ORIGINS_FENCED_FOR`]: it comes of an earlier
//! connection of the publisher than the one that had it forgotten, and is refused.

use crate::limits::ORIGINS_FENCED_FOR;
use bifro_core::ids::Slot;
use bifro_core::ports::Origin;
use bifro_core::time::Instant;
use hashbrown::HashMap;

/// The publish an origin names, whichever of the client's connections it came by.
pub(super) type OriginKey = (u16, Slot, u16);

pub(super) fn origin_key(origin: &Origin) -> OriginKey {
    (origin.inbox.0.0, origin.inbox.1, origin.packet_id)
}

/// What was stored under an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) epoch: u64,
    pub(super) nth: u64,
}

/// What is to be done with a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is stored.
    Never,
    /// It was.
    Before,
    /// It comes so late that its client is past it.
    Late,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Origins {
    notes: HashMap<OriginKey, Note>,
    /// By publisher: the last of its connections that had something forgotten, and when.
    fences: HashMap<(u16, Slot), (u64, Instant)>,
    sweep_at: Instant,
}

impl Origins {
    pub(super) fn seen(&self, origin: &Origin) -> Seen {
        let fence = self.fences.get(&(origin.inbox.0.0, origin.inbox.1));
        if fence.is_some_and(|&(epoch, _)| origin.epoch < epoch) {
            return Seen::Late;
        }
        match self.notes.get(&origin_key(origin)) {
            // A client marks what it repeats [MQTT-3.3.1-1] [MQTT5-3.3.1-1]; without the mark it is another message.
            Some(note) if (note.epoch, note.nth) < (origin.epoch, origin.nth) && !origin.is_repeated => Seen::Never,
            Some(_) => Seen::Before,
            None => Seen::Never,
        }
    }

    pub(super) fn put(&mut self, key: OriginKey, note: Note) {
        self.notes.insert(key, note);
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> alloc::vec::Vec<(OriginKey, Note)> {
        let mut noted: alloc::vec::Vec<_> = self.notes.iter().map(|(key, note)| (*key, *note)).collect();
        noted.sort_unstable_by_key(|(key, _)| *key);
        noted
    }

    /// True if there was a note.
    pub(super) fn forget(&mut self, now: Instant, origin: &Origin) -> bool {
        let fence = self.fences.entry((origin.inbox.0.0, origin.inbox.1)).or_default();
        *fence = (fence.0.max(origin.epoch), now);
        if self.sweep_at <= now {
            self.sweep_at = now + ORIGINS_FENCED_FOR;
            self.fences.retain(|_, (_, at)| *at + ORIGINS_FENCED_FOR > now);
        }
        let key = origin_key(origin);
        let is_older = |note: &Note| (note.epoch, note.nth) <= (origin.epoch, origin.nth);
        self.notes.get(&key).is_some_and(is_older) && self.notes.remove(&key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_core::ids::RangeIdx;

    fn origin(epoch: u64, nth: u64, is_repeated: bool) -> Origin {
        Origin { inbox: (RangeIdx(3), Slot { index: 4, generation: 5 }), epoch, packet_id: 6, nth, is_repeated }
    }

    fn noted(epoch: u64, nth: u64) -> Origins {
        let mut origins = Origins::default();
        origins.put(origin_key(&origin(epoch, nth, false)), Note { epoch, nth });
        origins
    }

    #[test]
    fn what_is_tried_again_or_repeated_was_seen_and_what_only_has_the_same_identifier_was_not() {
        let origins = noted(7, 10);
        assert_eq!(origins.seen(&origin(7, 10, false)), Seen::Before, "tried again");
        assert_eq!(origins.seen(&origin(8, 1, true)), Seen::Before, "repeated over the next connection");
        assert_eq!(origins.seen(&origin(7, 11, false)), Seen::Never, "the identifier was used again");
        assert_eq!(origins.seen(&origin(8, 1, false)), Seen::Never, "by the next connection");
        assert_eq!(origins.seen(&origin(7, 9, false)), Seen::Before, "late");
        assert_eq!(origins.seen(&origin(6, 99, true)), Seen::Before, "later still");
    }

    #[test]
    fn only_what_has_been_is_forgotten_and_what_comes_of_an_earlier_connection_is_late_for_a_while() {
        let (mut origins, now) = (noted(7, 10), Instant::from_micros(1));
        assert!(!origins.forget(now, &origin(7, 9, false)), "a newer message has the identifier");
        assert!(origins.forget(now, &origin(8, 1, true)));
        assert_eq!(origins.seen(&origin(7, 10, false)), Seen::Late);
        assert_eq!(origins.seen(&origin(8, 1, true)), Seen::Never);
        let later = now + ORIGINS_FENCED_FOR;
        let other = Origin { inbox: (RangeIdx(1), Slot { index: 0, generation: 0 }), ..origin(1, 1, false) };
        assert!(!origins.forget(later, &other));
        assert_eq!(origins.seen(&origin(7, 10, false)), Seen::Never);
        assert_eq!(origins.fences.len(), 1);
    }
}
