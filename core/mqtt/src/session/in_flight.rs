//! QoS 1 and 2 messages on their way to the client, their packet identifiers, and what waits behind them.
//!
//! Invariants: no two messages share an identifier [MQTT-2.3.1-4] [MQTT5-2.2.1-4]; there are never more in flight than the
//! send window, but for PUBRELs that an earlier connection left behind.

use super::exchange::Delivery;
use super::queue::{Queue, Shared};
use crate::codec::{Fanout, PublishSpec, encode};
use crate::packet::{Ack, Packet, PacketId};
use crate::property::Properties;
use crate::reason::Reason;
use crate::wire::Wire;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::ids::InboxSeq;
use bifro_core::message::{Message, QoS};
use bifro_core::time::Instant;
use core::num::NonZeroU32;
use core::time::Duration;
use smallvec::SmallVec;

/// Packet identifiers there are: 1 to 65,535.
const IDS: u16 = u16::MAX;

/// See the module's page.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) queue: Queue,
    /// Identifiers given out begin here; those below belong to messages of a durable inbox.
    first_id: u16,
    /// The identifier to use next.
    next_id: u16,
    /// As many identifiers from `next_id` on are known to be free.
    free_ahead: u16,
    /// When to look for messages to resend.
    pub(super) resend_at: Option<Instant>,
    /// The shared subscription a message came through last, so that its name is not copied for each.
    last_shared: Option<Rc<Shared>>,
}

/// What the client is expected to send next about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// QoS 1: PUBACK.
    Acknowledgement,
    /// QoS 2: PUBREC.
    Receipt,
    /// QoS 2, PUBREC has come: nothing, until the inbox has noted it and PUBREL can be sent.
    Nothing,
    /// QoS 2, PUBREL sent: PUBCOMP.
    Completion,
}

/// A message in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) packet_id: PacketId,
    pub(super) awaits: Awaits,
    pub(super) seq: Option<InboxSeq>,
    pub(super) kept: Option<Box<Kept>>,
}

/// What is kept of a message in flight, where it may be needed again.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Arc<Message>,
    pub(super) shared: Option<Rc<Shared>>,
    pub(super) retain: bool,
    pub(super) subscription_ids: SmallVec<[NonZeroU32; 1]>,
    sent_at: Instant,
    resends: u32,
}

impl Kept {
    pub(super) fn new(
        message: Arc<Message>,
        delivery: &Delivery<'_>,
        shared: Option<Rc<Shared>>,
        now: Instant,
    ) -> Self {
        Self {
            message,
            shared,
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids.into(),
            sent_at: now,
            resends: 0,
        }
    }
}

/// How 3.x clients get messages again that they do not acknowledge.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResendRule {
    pub(super) after: Duration,
    pub(super) times_max: u32,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            in_flight: VecDeque::new(),
            queue: Queue::default(),
            first_id: 1,
            next_id: 1,
            free_ahead: IDS,
            resend_at: None,
            last_shared: None,
        }
    }
}

impl Outbound {
    /// Whether one more QoS 1 or 2 message may be sent.
    pub(super) fn has_room(&self, window: u16) -> bool {
        self.in_flight.len() < usize::from(window)
    }

    /// Nothing waits.
    pub(super) fn is_clear(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of messages that wait.
    pub(super) const fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Continues an earlier connection's messages: identifiers begin at `first`, so that one which only the client
    /// remembers is unlikely to be met.
    pub(super) const fn start_ids_at(&mut self, first: u16) {
        self.next_id = if first < self.first_id { self.first_id } else { first };
        self.free_ahead = 0;
    }

    /// Gives out only identifiers above [`InboxSeq::PACKET_IDS`].
    pub(super) const fn reserve_ids(&mut self) {
        self.first_id = InboxSeq::PACKET_IDS + 1;
        self.start_ids_at(self.first_id);
    }

    /// The next identifier without putting it to use. There must be room in a window, and nothing resumed in the queue.
    pub(super) fn peek_id(&mut self) -> PacketId {
        if self.free_ahead == 0 {
            self.survey();
        }
        PacketId::new(self.next_id).expect("identifiers count from 1")
    }

    /// The identifier that [`Outbound::peek_id`] gave is in use now.
    pub(super) const fn use_id(&mut self) {
        self.free_ahead -= 1;
        self.next_id = if self.next_id == IDS { self.first_id } else { self.next_id + 1 };
    }

    /// Finds the next gap between identifiers in flight.
    fn survey(&mut self) {
        let (first, next) = (self.first_id, self.next_id);
        let ids = IDS - first + 1;
        let ahead = |id: u16| if id >= next { id - next } else { ids - (next - id) };
        let in_flight = self.in_flight.iter().map(|message| message.packet_id.get());
        let mut taken: Vec<u16> = in_flight.filter(|&id| id >= first).map(ahead).collect();
        taken.sort_unstable();
        let mut free: u16 = 0;
        let mut beyond = ids;
        for distance in taken {
            if distance != free {
                beyond = distance;
                break;
            }
            free += 1;
        }
        assert!(free < beyond, "a window with room leaves an identifier free");
        let advanced = u32::from(next - first) + u32::from(free);
        self.next_id = u16::try_from(advanced % u32::from(ids)).expect("a remainder of at most IDS") + first;
        self.free_ahead = beyond - free;
    }

    /// The place of a message in flight. Acknowledgements come in order as a rule, so the search ends early.
    pub(super) fn find(&self, packet_id: PacketId) -> Option<usize> {
        self.in_flight.iter().position(|message| message.packet_id == packet_id)
    }

    /// One name for all messages that came through the same shared subscription.
    pub(super) fn shared_name(&mut self, delivery: &Delivery<'_>) -> Option<Rc<Shared>> {
        let (filter, group) = delivery.shared?;
        if let Some(last) = &self.last_shared
            && *last.filter == *filter
            && last.group == *group
        {
            return Some(last.clone());
        }
        let shared = Rc::new(Shared { filter: filter.into(), group: group.clone() });
        self.last_shared = Some(shared.clone());
        Some(shared)
    }

    /// Sends again what a 3.x client has not acknowledged in time; returns how many PUBLISHes. Only on a live connection of
    /// 3.x, where [MQTT-4.4.0-1] permits it.
    pub(super) fn resend(&mut self, now: Instant, rule: ResendRule, version: Version, wire: &mut Wire) -> u32 {
        let mut publishes = 0;
        let mut next: Option<Instant> = None;
        for message in &mut self.in_flight {
            let (packet_id, awaits) = (message.packet_id, message.awaits);
            if awaits == Awaits::Nothing {
                continue;
            }
            let Some(kept) = message.kept.as_deref_mut().filter(|kept| kept.resends < rule.times_max) else { continue };
            if kept.sent_at + rule.after <= now {
                kept.sent_at = now;
                kept.resends += 1;
                if awaits == Awaits::Completion {
                    encode(&pubrel(packet_id, Reason::SUCCESS), version, &mut wire.bytes);
                } else {
                    let mut fanout = Fanout::new(kept.message.view(), Some(kept.message.clone()), now);
                    let spec = spec_again(version, packet_id, awaits, kept.retain, &kept.subscription_ids);
                    publishes += u32::from(fanout.append(&spec, wire));
                }
            }
            if kept.resends < rule.times_max {
                let due = kept.sent_at + rule.after;
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        self.resend_at = next;
        publishes
    }

    /// PUBREC has arrived: PUBREL is what would have to be sent again now, if anything is, by this connection (`resends`) or
    /// by the next one of a session whose inbox does not have the message (`persistent`).
    pub(super) fn await_pubcomp(&mut self, at: usize, now: Instant, resends: bool, persistent: bool) {
        let Some(message) = self.in_flight.get_mut(at) else { return };
        message.awaits = Awaits::Completion;
        let is_needed = resends || (persistent && message.seq.is_none());
        match message.kept.as_deref_mut().filter(|_| is_needed) {
            Some(kept) => {
                kept.shared = None;
                kept.sent_at = now;
                kept.resends = 0;
            }
            None => message.kept = None,
        }
    }

    /// Bytes on the heap, queued messages apart.
    pub(super) fn memory_bytes(&self) -> usize {
        let kept = self.in_flight.iter().filter(|message| message.kept.is_some()).count() * size_of::<Kept>();
        size_of::<Self>() + self.in_flight.capacity() * size_of::<InFlight>() + kept + self.queue.memory_bytes()
    }

    /// # Panics
    /// If an invariant of the module's page does not hold.
    pub(super) fn validate(&self, window: u16) {
        let publishes = self.in_flight.iter().filter(|message| message.awaits != Awaits::Completion).count();
        assert!(publishes <= usize::from(window), "no more in flight than the client's Receive Maximum");
        let mut ids: Vec<u16> = self.in_flight.iter().map(|message| message.packet_id.get()).collect();
        ids.extend(self.queue.iter().filter_map(|queued| queued.resumes).map(PacketId::get));
        let before = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), before, "packet identifiers in use are distinct");
        self.queue.validate();
    }
}

/// PUBREL for a message.
pub(super) fn pubrel(packet_id: PacketId, reason: Reason) -> Packet<'static> {
    Packet::PubRel(Ack { packet_id, reason, properties: Properties::default() })
}

fn spec_again<'a>(
    version: Version,
    packet_id: PacketId,
    awaits: Awaits,
    retain: bool,
    subscription_ids: &'a [NonZeroU32],
) -> PublishSpec<'a> {
    let qos = if awaits == Awaits::Acknowledgement { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
    PublishSpec {
        version,
        dup: true, // [MQTT-3.3.1-1]
        qos,
        retain,
        packet_id: Some(packet_id),
        alias: None,
        subscription_ids,
        packet_bytes_max: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fly(outbound: &mut Outbound) -> u16 {
        let packet_id = outbound.peek_id();
        outbound.use_id();
        outbound.in_flight.push_back(InFlight { packet_id, awaits: Awaits::Acknowledgement, seq: None, kept: None });
        packet_id.get()
    }

    /// [MQTT-2.3.1-1] [MQTT-2.3.1-4] [MQTT5-2.2.1-4]
    #[test]
    fn identifiers_count_up_wrap_past_zero_and_skip_those_in_flight() {
        let mut outbound = Outbound::default();
        assert_eq!(fly(&mut outbound), 1);
        outbound.start_ids_at(IDS);
        assert_eq!(fly(&mut outbound), IDS);
        assert_eq!(fly(&mut outbound), 2, "0 is none and 1 is in flight");
        outbound.in_flight.clear();
        outbound.start_ids_at(0);
        assert_eq!(fly(&mut outbound), 1);
    }

    #[test]
    fn the_last_free_identifier_of_all_is_found() {
        let mut outbound = Outbound::default();
        for _ in 0..IDS {
            fly(&mut outbound);
        }
        outbound.in_flight.remove(40_000);
        assert!(outbound.has_room(IDS));
        assert_eq!(fly(&mut outbound), 40_001);
        outbound.validate(IDS);
    }
}
