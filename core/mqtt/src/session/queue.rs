//! Messages that wait for their turn: because the send window is full, the connection congested, or others wait already.
//!
//! A transient session's queue obeys the limits of an inbox. What an inbox has pushed and what a retained lookup has found
//! is exempt, since it is bounded where it comes from.

use super::exchange::Delivery;
use crate::packet::PacketId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use bifro_core::ids::InboxSeq;
use bifro_core::message::{Message, QoS};
use bifro_core::ports::{GroupName, InboxMessage};
use bifro_core::settings::TenantSettings;
use core::num::NonZeroU32;
use smallvec::SmallVec;

/// A queue that has run empty gives its allocation back beyond this many places.
const CAPACITY_KEPT: usize = 64;

/// The shared subscription through which a message came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// Filter without prefix.
    pub(super) filter: Box<str>,
    /// Group.
    pub(super) group: GroupName,
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) message: Arc<Message>,
    pub(super) subscription_ids: SmallVec<[NonZeroU32; 1]>,
    pub(super) seq: Option<InboxSeq>,
    pub(super) shared: Option<Rc<Shared>>,
    /// Sent before on an earlier connection, with this identifier.
    pub(super) resumes: Option<PacketId>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) check: bool,
    /// Not counted against the queue's limits.
    pub(super) exempt: bool,
}

impl Queued {
    /// As an inbox stores it.
    pub(super) fn into_inbox_message(self) -> InboxMessage {
        let Self { message, subscription_ids, seq, qos, retain, check, .. } = self;
        InboxMessage { seq, message, qos, retain, subscription_ids, check_delivery: check }
    }

    /// How it is to be delivered.
    pub(super) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            qos: self.qos,
            retain: self.retain,
            subscription_ids: &self.subscription_ids,
            check: self.check,
            seq: self.seq,
            shared: self.shared.as_deref().map(|shared| (&*shared.filter, &shared.group)),
        }
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Queued>,
    /// Of all messages.
    bytes: usize,
    /// Messages that are not exempt.
    counted: usize,
    counted_bytes: usize,
    /// Messages of QoS 0 that are not exempt.
    counted_qos0: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Everything, in order.
    pub(super) fn into_items(self) -> impl Iterator<Item = Queued> {
        self.items.into_iter()
    }

    pub(super) fn front(&self) -> Option<&Queued> {
        self.items.front()
    }

    /// Bytes of all messages.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.items.iter()
    }

    /// Whether one more message of so many bytes is within the tenant's limits.
    pub(super) fn has_room(&self, settings: &TenantSettings, bytes: usize) -> bool {
        self.counted < settings.inbox_messages_max as usize
            && (self.counted_bytes.saturating_add(bytes)) as u64 <= settings.inbox_bytes_max
    }

    /// Puts a message last.
    pub(super) fn push(&mut self, queued: Queued) {
        let bytes = queued.message.footprint_bytes();
        self.bytes += bytes;
        if !queued.exempt {
            self.counted += 1;
            self.counted_bytes += bytes;
            self.counted_qos0 += usize::from(queued.qos == QoS::AtMostOnce);
        }
        self.items.push_back(queued);
    }

    /// Takes the first message.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.items.pop_front()?;
        self.uncount(&queued);
        if self.items.is_empty() && self.items.capacity() > CAPACITY_KEPT {
            self.items = VecDeque::new();
        }
        Some(queued)
    }

    /// Takes the oldest QoS 0 message that counts, to make room.
    pub(super) fn take_oldest_qos0(&mut self) -> Option<Queued> {
        if self.counted_qos0 == 0 {
            return None;
        }
        let at = self.items.iter().position(|queued| queued.qos == QoS::AtMostOnce && !queued.exempt)?;
        let queued = self.items.remove(at)?;
        self.uncount(&queued);
        Some(queued)
    }

    fn uncount(&mut self, queued: &Queued) {
        let bytes = queued.message.footprint_bytes();
        self.bytes -= bytes;
        if !queued.exempt {
            self.counted -= 1;
            self.counted_bytes -= bytes;
            self.counted_qos0 -= usize::from(queued.qos == QoS::AtMostOnce);
        }
    }

    /// Bytes of the queue itself, messages apart.
    pub(super) fn memory_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Queued>()
    }

    /// # Panics
    /// If the counts are wrong.
    pub(super) fn validate(&self) {
        let counted = || self.items.iter().filter(|queued| !queued.exempt);
        let bytes = |queued: &Queued| queued.message.footprint_bytes();
        assert_eq!(self.bytes, self.items.iter().map(bytes).sum::<usize>());
        assert_eq!(self.counted, counted().count());
        assert_eq!(self.counted_bytes, counted().map(bytes).sum::<usize>());
        assert_eq!(self.counted_qos0, counted().filter(|queued| queued.qos == QoS::AtMostOnce).count());
    }
}
