//! QoS 2 publishes that a shard's connections without inboxes were given, so that none is given one twice.
//!
//! A note stands as a range's does ([`crate::origins`]) until the publish is over. It is in memory alone, as those connections are: a node that was taken for dead
//! when its notes were to be forgotten keeps them. So the identifier does not suffice: what comes over another connection of the publisher is its
//! repetition only if topic and payload are what they were, and what comes over the same connection under another number is another message.

use crate::ids::keyed_hash;
use crate::inquiry::Inquiry;
use crate::limits::DELIVERED_MAX;
use crate::origins::{Note, OriginKey, Origins, Seen, note_of, origin_key};
use crate::ports::{Attached, Origin};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Those that were forgotten are swept out of the order once there are so many more of them than of others.
const SPENT_MAX: usize = if cfg!(test) { 4 } else { 1_024 };

/// QoS 2 publishes of one of a publisher's connections that need not be recognised any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose they are; of several, the first.
    pub origin: Origin,
    /// Packet identifiers of the others.
    pub others: Vec<u16>,
    /// They may still be on their way, and are not taken any more.
    pub in_doubt: bool,
}

impl Over {
    /// What the inbox of a session that was just attached has noted: it recognises the repetitions itself. None if that is nothing.
    #[must_use]
    pub fn noted(attached: &Attached) -> Option<Self> {
        let (&packet_id, others) = attached.received_qos2.split_first()?;
        let origin = Origin::new(attached.inbox?, attached.epoch, packet_id, 0);
        Some(Self { origin, others: others.into(), in_doubt: false })
    }
}

/// What tells publishes under one identifier apart.
#[must_use]
pub fn content_of(topic: &str, payload: &[u8]) -> u64 {
    keyed_hash(0, &[topic.as_bytes(), payload])
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Delivered {
    /// With a hash of topic and payload.
    origins: Origins<u64>,
    in_order: VecDeque<(OriginKey, Note)>,
    dropped: u64,
}

impl Delivered {
    /// True if the connections have not been given this publish before; now they have.
    pub fn take(&mut self, origin: &Origin, topic: &str, payload: &[u8]) -> bool {
        let content = content_of(topic, payload);
        let (key, note) = (origin_key(origin), note_of(origin));
        let is_same = |before: Note, was: &u64| before >= note || (before.epoch < note.epoch && *was == content);
        if self.origins.seen(origin, is_same) != Seen::Never {
            return false;
        }
        self.origins.put(key, note, content);
        self.in_order.push_back((key, note));
        if self.in_order.len() > 2 * self.origins.len() + SPENT_MAX {
            let Self { origins, in_order, .. } = self;
            in_order.retain(|(key, note)| origins.note(*key) == Some(*note));
        }
        while self.origins.len() > DELIVERED_MAX
            && let Some((key, note)) = self.in_order.pop_front()
        {
            self.dropped += u64::from(self.origins.remove(key, note));
        }
        true
    }

    /// How many notes were dropped at the limit since this was asked last.
    pub const fn take_dropped(&mut self) -> u64 {
        core::mem::replace(&mut self.dropped, 0)
    }

    /// As [`Origins::inquire`].
    pub fn inquire(&mut self, now: Instant, inquiry: &Inquiry) -> Vec<u64> {
        self.origins.inquire(now, &inquiry.origin, |content| *content == inquiry.content)
    }

    /// As [`Origins::forget`].
    pub fn forget(&mut self, now: Instant, over: &Over) {
        let Over { origin, others, in_doubt } = over;
        self.origins.forget(now, origin, *in_doubt);
        for &packet_id in others {
            self.origins.forget(now, &Origin { packet_id, ..*origin }, *in_doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RangeIdx, Slot};

    const NOW: Instant = Instant::from_micros(1);

    fn of(epoch: u64, nth: u64, packet_id: u16) -> Origin {
        Origin { inbox: (RangeIdx(1), Slot { index: 2, generation: 3 }), epoch, packet_id, nth, group: 0, attempt: nth }
    }

    fn over(origin: Origin) -> Over {
        Over { origin, others: Vec::new(), in_doubt: false }
    }

    #[test]
    fn what_is_tried_again_repeated_or_late_was_given_before_and_another_message_was_not() {
        let mut delivered = Delivered::default();
        assert!(delivered.take(&of(7, 10, 1), "t", b"5"));
        assert!(!delivered.take(&of(7, 10, 1), "t", b"5"), "tried again");
        assert!(!delivered.take(&of(8, 1, 1), "t", b"5"), "repeated over the next connection");
        assert!(delivered.take(&of(8, 1, 1), "t", b"6"), "another message under the identifier");
        assert!(!delivered.take(&of(7, 10, 1), "t", b"5"), "the first one, late");
        assert!(delivered.take(&of(8, 2, 1), "t", b"6"), "nobody repeats over one connection");
        assert!(!delivered.take(&of(8, 1, 1), "t", b"6"), "late");
        delivered.forget(NOW, &Over { others: [1, 2].into(), ..over(of(9, 0, 3)) });
        assert!(!delivered.take(&of(8, 2, 1), "t", b"6"), "its client is past it");
        assert!(delivered.take(&of(9, 1, 1), "t", b"6"), "the next message says the same");
    }

    #[test]
    fn a_group_has_a_publish_that_says_the_same_until_that_is_forgotten() {
        let mut delivered = Delivered::default();
        let inquiry = |origin, payload| Inquiry { origin, content: content_of("t", payload) };
        assert!(delivered.take(&Origin { group: 9, ..of(7, 10, 1) }, "t", b"5"));
        assert!(delivered.inquire(NOW, &inquiry(of(8, 1, 1), b"6")).is_empty(), "what is left of another message");
        assert_eq!(delivered.inquire(NOW, &inquiry(of(8, 1, 1), b"5")), [9]);
        let tried = |attempt| Origin { group: 8, attempt, ..of(8, 1, 1) };
        assert!(!delivered.take(&tried(1), "t", b"5"), "a try before");
        assert!(delivered.take(&tried(2), "t", b"5"));
        assert!(!delivered.take(&tried(3), "t", b"5"), "by one who could not ask");
        delivered.forget(NOW, &over(of(8, 1, 1)));
        assert!(delivered.inquire(NOW, &inquiry(of(8, 3, 1), b"5")).is_empty());
    }

    #[test]
    fn the_oldest_notes_are_forgotten_beyond_the_limit_and_those_that_are_over_leave_nothing() {
        let mut delivered = Delivered::default();
        assert!((1..=4).all(|id| delivered.take(&of(1, 1, id), "t", b"0")));
        assert!(!delivered.take(&of(1, 1, 1), "t", b"0"));
        assert!(delivered.take(&of(1, 1, 5), "t", b"0"));
        assert!(delivered.take(&of(1, 1, 1), "t", b"0"), "the oldest was forgotten");
        assert_eq!((delivered.take_dropped(), delivered.take_dropped()), (2, 0));
        for nth in 2..40 {
            assert!(delivered.take(&of(1, nth, 6), "t", b"0"));
            delivered.forget(NOW, &over(of(1, nth, 6)));
        }
        assert!(delivered.origins.len() <= DELIVERED_MAX, "{delivered:?}");
        assert!(delivered.in_order.len() <= 2 * delivered.origins.len() + SPENT_MAX, "{delivered:?}");
    }
}
