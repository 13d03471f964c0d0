//! A QoS 2 publish of a client whose inbox is durable: taken over exactly once, even if the process ends in the middle.
//!
//! ```text
//! Taking ──all inboxes have it──► Noting ──the client's inbox has noted the identifier──► Forgetting ──all ranges have──► PUBREC
//!    └── failed, the client may use the identifier for something else ──────────────────────────┘ (PUBREC with an error)
//! At the publish's deadline a client of MQTT 5 gets PUBREC with an error too, and the notes are forgotten behind its back.
//! ```
//! While *taking*, each range that stores the message notes whose publish it is. If the process ends then, the client repeats the publish
//! (it has no PUBREC), and ranges that have it already do not store it again. Once the client's own inbox has noted the identifier the
//! repetition is recognised there, and the ranges forget it, before PUBREC: the client cannot use the identifier for another message
//! while any of them remembers it [MQTT-4.3.3-2] [MQTT5-4.3.3-10].

use super::Broker;
use super::completion::Awaited;
use bifro_core::client::Version;
use bifro_core::ids::{RangeIdx, ReqId, Slot};
use bifro_core::ports::{Origin, Services};
use bifro_mqtt::session::PublishToken;
use smallvec::SmallVec;

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
}

impl Exchange {
    pub(super) fn note_range(&mut self, range: RangeIdx) {
        if !self.ranges.contains(&range) {
            self.ranges.push(range);
        }
    }

    /// Whether the publish is done whatever becomes of it now.
    pub(super) fn is_noted(&self) -> bool {
        self.phase == Phase::Forgetting
    }
}

impl<S: Services> Broker<S> {
    /// The exchange that a publish begins, if it is one.
    pub(super) fn exchange_of(&self, conn: Slot, token: PublishToken) -> Option<Box<Exchange>> {
        let session = &self.conns.get(conn)?.session;
        if !session.has_durable_inbox() {
            return None;
        }
        let packet_id = session.qos2_packet_id(token)?.get();
        let (inbox, epoch) = session.inbox()?;
        let origin = Origin { inbox, epoch, packet_id };
        let repeats = session.version() != Version::V5;
        Some(Box::new(Exchange { origin, phase: Phase::Taking, repeats, ranges: SmallVec::new() }))
    }

    /// The parts of a publish are done, or have failed: begins the exchange's next phase and returns how many completions that takes.
    /// None: the publisher is to be told.
    pub(super) fn advance_exchange(&mut self, publish: ReqId, exchange: &mut Exchange, failed: bool) -> Option<u32> {
        match exchange.phase {
            Phase::Taking if !failed => {
                exchange.phase = Phase::Noting;
                let req = self.next_req_id();
                self.requests.insert(req, Awaited::PublishPart(publish));
                self.services.ask().note_received(self.now, req, exchange.origin);
                Some(1)
            }
            Phase::Taking if exchange.repeats => None,
            Phase::Taking | Phase::Noting => {
                exchange.phase = Phase::Forgetting;
                let ranges = std::mem::take(&mut exchange.ranges);
                for &range in &ranges {
                    let req = self.next_req_id();
                    self.requests.insert(req, Awaited::PublishPart(publish));
                    self.services.ask().forget(self.now, req, range, exchange.origin);
                }
                u32::try_from(ranges.len()).ok().filter(|&parts| parts > 0)
            }
            Phase::Forgetting => None,
        }
    }

    /// The publish's deadline has passed. A client that is told so may use the identifier for another message at once: whoever was asked
    /// to note it is asked to forget it, behind that. A client that is not told repeats the publish, and the notes are for that.
    pub(super) fn abandon_exchange(&mut self, exchange: &Exchange) {
        if exchange.repeats || exchange.is_noted() {
            return;
        }
        // Nobody waits for these.
        for &range in &exchange.ranges {
            let req = self.next_req_id();
            self.services.ask().forget(self.now, req, range, exchange.origin);
        }
        if exchange.phase == Phase::Noting {
            let req = self.next_req_id();
            self.services.ask().release(self.now, req, exchange.origin);
        }
    }
}
