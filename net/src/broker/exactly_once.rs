//! A QoS 2 publish of a client whose inbox is durable: taken over exactly once, even if the process ends in the middle.
//!
//! ```text
//! Taking ──all inboxes have it──► Noting ──the client's inbox has noted the identifier──► Forgetting ──all ranges have──► PUBREC
//!    └── failed, the client may use the identifier for something else ──────────────────────────┘ (PUBREC with an error)
//! ```
//! While *taking*, each range that stores the message notes whose publish it is. If the process ends then, the client repeats the publish
//! (it has no PUBREC), and ranges that have it already do not store it again. Once the client's own inbox has noted the identifier the
//! repetition is recognised there, and the ranges forget it, before PUBREC: the client cannot use the identifier for another message
//! while any of them remembers it [MQTT-4.3.3-2] [MQTT5-4.3.3-10]. If the client leaves before, whoever attaches to the session next has all ranges forget what was noted.
//!
//! # Over nodes
//! What is forwarded says whose it is too ([`Origin`]), and who takes it over there answers which ranges have noted it. When a link ends or a range changes its leader, nobody knows
//! whether it was stored. Then it is tried again as a publish of QoS 1 is ([`super::again`]), by the notes without a second copy; and since nobody has
//! named all the ranges that may have a note, every one is asked to forget it.
//! A publish that somebody may have has no deadline while its client is connected: should the client not hear that it failed, its repetition would come twice. If the client leaves, it is not tried
//! again, the notes stay, and the client's repetition on whatever node is recognised by them.
//!
//! Connections that listen on the other node have no notes: the shard there remembers what it has given to them ([`Delivered`]). That covers what is tried
//! again, and not what a client repeats since its node has died.

use super::Broker;
use super::completion::Awaited;
use super::publish::{Publisher, Waiter};
use bifro_core::client::Version;
use bifro_core::ids::{RangeIdx, ReqId, Slot};
use bifro_core::message::QoS;
use bifro_core::ports::{Origin, PortError, Services};
use bifro_mqtt::session::PublishToken;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Publishes of other nodes of which a shard remembers that its connections have them; beyond, the oldest is forgotten.
const DELIVERED_MAX: usize = if cfg!(test) { 4 } else { 65_536 };

/// How far a publish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Taking,
    Noting,
    Forgetting,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) origin: Origin,
    phase: Phase,
    /// The client repeats the publish even after a failure, since it has not been told of one [MQTT-4.4.0-1].
    repeats: bool,
    /// Ranges that an insertion went to.
    ranges: SmallVec<[RangeIdx; 4]>,
    /// Its client says that it may have sent it before (DUP).
    is_repeated: bool,
    is_handed_out: bool,
    /// Nobody knows who has it: a part of it was lost.
    is_in_doubt: bool,
}

impl Exchange {
    /// Of a publish of another node, which sees to all but the taking.
    pub(super) fn of_node(origin: Origin) -> Self {
        Self {
            origin,
            phase: Phase::Taking,
            repeats: true,
            ranges: SmallVec::new(),
            is_repeated: false,
            is_handed_out: false,
            is_in_doubt: false,
        }
    }

    pub(super) fn note_range(&mut self, range: RangeIdx) {
        if !self.ranges.contains(&range) {
            self.ranges.push(range);
        }
    }

    /// Ranges that have noted it, as far as is known.
    pub(super) fn ranges(&self) -> &[RangeIdx] {
        &self.ranges
    }

    /// Whether the publish is done whatever becomes of it now.
    pub(super) fn is_noted(&self) -> bool {
        self.phase == Phase::Forgetting
    }

    /// A part of it has failed.
    pub(super) fn doubt(&mut self, error: PortError) {
        self.is_in_doubt |= error == PortError::Unavailable && self.phase == Phase::Taking;
    }

    /// Receivers are being given it.
    pub(super) fn hand_out(&mut self) {
        self.is_handed_out = true;
    }

    /// Whether it cannot be said to have failed: somebody may have it, and the client, should it not hear of the failure, would repeat it.
    pub(super) fn is_undecidable(&self) -> bool {
        self.is_handed_out || self.is_repeated
    }
}

/// Publishes of other nodes that this shard's connections were given.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    known: HashSet<Known>,
    in_order: VecDeque<Known>,
}

/// The publisher's inbox, which of its connections, and the publish's number.
type Known = ((RangeIdx, Slot), u64, u64);

impl Delivered {
    /// True if they have not been given it before.
    fn insert(&mut self, origin: &Origin) -> bool {
        let publish = (origin.inbox, origin.epoch, origin.nth);
        if !self.known.insert(publish) {
            return false;
        }
        self.in_order.push_back(publish);
        if self.in_order.len() > DELIVERED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl<S: Services> Broker<S> {
    /// The exchange that a publish begins, if it is one.
    pub(super) fn exchange_of(&self, conn: Slot, token: PublishToken, publish: ReqId) -> Option<Box<Exchange>> {
        let session = &self.conns.get(conn)?.session;
        if !session.has_durable_inbox() {
            return None;
        }
        let (packet_id, is_repeated) = session.qos2_publish(token)?;
        let (inbox, epoch) = session.inbox()?;
        let origin = Origin { inbox, epoch, packet_id: packet_id.get(), nth: publish.0 };
        let repeats = session.version() != Version::V5;
        Some(Box::new(Exchange { repeats, is_repeated, ..Exchange::of_node(origin) }))
    }

    /// Whether this shard's connections are still to be given a publish.
    pub(super) fn is_undelivered(&mut self, publish: ReqId) -> bool {
        let Some(waiting) = self.publishes.waiting.get(&publish) else { return true };
        match (waiting.waiter, &waiting.exchange) {
            (Waiter::Node(..), Some(exchange)) => self.delivered.insert(&exchange.origin),
            _ => true,
        }
    }

    /// The receivers of a publish are known.
    pub(super) fn note_handing_out(&mut self, qos: QoS, publisher: Publisher) {
        if let (QoS::ExactlyOnce, Publisher::Entered(publish)) = (qos, publisher)
            && let Some(waiting) = self.publishes.waiting.get_mut(&publish)
            && let Some(exchange) = &mut waiting.exchange
        {
            exchange.hand_out();
        }
    }

    /// Whether the client of a publish has gone, so that it will repeat it.
    pub(super) fn has_left(&self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Session(conn, _) => self.conns.get(conn).is_none_or(|conn| !conn.session.is_connected()),
            Waiter::Node(..) => false,
        }
    }

    /// The parts of a publish are done, or have failed: begins the exchange's next phase and returns how many completions that takes.
    /// None: the publisher is to be told, unless it has left.
    pub(super) fn advance_exchange(
        &mut self,
        publish: ReqId,
        exchange: &mut Exchange,
        failed: bool,
        has_left: bool,
    ) -> Option<u32> {
        match exchange.phase {
            Phase::Taking if !failed => {
                exchange.phase = Phase::Noting;
                let req = self.next_req_id();
                self.requests.insert(req, Awaited::PublishPart(publish));
                self.services.ask().note_received(self.now, req, exchange.origin);
                Some(1)
            }
            Phase::Taking if exchange.repeats || has_left => None,
            // Another connection has the session: its client repeats the publish there, and the notes are for that.
            Phase::Noting if failed => None,
            Phase::Taking | Phase::Noting => {
                exchange.phase = Phase::Forgetting;
                let (ranges, in_doubt) = (self.noting(exchange), failed || exchange.is_in_doubt);
                for &range in &ranges {
                    let req = self.next_req_id();
                    self.requests.insert(req, Awaited::PublishPart(publish));
                    self.services.ask().forget(self.now, req, range, exchange.origin, in_doubt);
                }
                u32::try_from(ranges.len()).ok().filter(|&parts| parts > 0)
            }
            Phase::Forgetting => None,
        }
    }

    /// Ranges that may have noted a publish. One that is repeated may have gone to others the first time, which have no receiver of it any more.
    fn noting(&self, exchange: &Exchange) -> SmallVec<[RangeIdx; 4]> {
        if exchange.is_in_doubt || exchange.is_repeated {
            return (0..self.services.peek().inbox_ranges()).map(RangeIdx).collect();
        }
        exchange.ranges.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_were_given_is_remembered_until_there_is_too_much_of_it() {
        let mut delivered = Delivered::default();
        let inbox = (RangeIdx(1), Slot { index: 2, generation: 3 });
        let of = |epoch, nth| Origin { inbox, epoch, packet_id: 4, nth };
        assert!((1..=4).all(|nth| delivered.insert(&of(1, nth))));
        assert!(!delivered.insert(&of(1, 1)));
        assert!(delivered.insert(&of(2, 1)), "another connection's is another");
        assert!(delivered.insert(&of(1, 1)), "the oldest was forgotten");
        assert_eq!((delivered.known.len(), delivered.in_order.len()), (4, 4));
    }
}
