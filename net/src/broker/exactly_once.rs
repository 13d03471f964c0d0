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
//! Connections without an inbox have no range to note for them: the shard they are on does ([`super::delivered`]), and is asked to forget as ranges are.
//!
//! Of a shared group any member may be chosen. So before a publish that may have been tried is offered to groups, whoever may have noted it is asked which of them have it ([`super::inquiry`]).

use super::Broker;
use super::completion::Awaited;
use super::publish::{Publisher, Waiter};
use bifro_core::client::Version;
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, Slot};
use bifro_core::inquiry::{Groups, Holder};
use bifro_core::message::QoS;
use bifro_core::ports::{Origin, PortError, Services};
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
    /// Other nodes with connections that were given it.
    nodes: SmallVec<[NodeIdx; 2]>,
    /// Connections of this node were given it.
    is_live: bool,
    /// Its client may have sent it before: it says so (DUP), or it is among the first of a session that goes on.
    is_repeated: bool,
    is_handed_out: bool,
    /// Nobody knows who has it: a part of it was lost.
    is_in_doubt: bool,
    /// What is known of the groups that have it.
    pub(super) groups: Groups,
}

impl Exchange {
    /// Of a publish of another node, which sees to all but the taking.
    pub(super) fn of_node(origin: Origin) -> Self {
        Self {
            origin,
            groups: Groups::NONE,
            phase: Phase::Taking,
            repeats: true,
            ranges: SmallVec::new(),
            nodes: SmallVec::new(),
            is_live: false,
            is_repeated: false,
            is_handed_out: false,
            is_in_doubt: false,
        }
    }

    pub(super) fn note(&mut self, holder: Holder) {
        match holder {
            Holder::Live => self.is_live = true,
            Holder::Range(range) if !self.ranges.contains(&range) => self.ranges.push(range),
            Holder::Node(node) if !self.nodes.contains(&node) => self.nodes.push(node),
            Holder::Range(_) | Holder::Node(_) => {}
        }
    }

    /// Whether connections here have noted it.
    pub(super) const fn is_live(&self) -> bool {
        self.is_live
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

    /// Receivers are being given it, `to_groups` among them.
    pub(super) fn hand_out(&mut self, to_groups: bool) {
        self.is_handed_out = true;
        if to_groups {
            self.groups = Groups::Unknown;
        }
    }

    /// Whether others may have noted it than those that are known to.
    const fn is_anyones(&self) -> bool {
        self.is_in_doubt || self.is_repeated
    }

    /// Whether it cannot be said to have failed: somebody may have it, and the client, should it not hear of the failure, would repeat it.
    pub(super) const fn is_undecidable(&self) -> bool {
        self.is_handed_out || self.is_repeated
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
        let origin = Origin::new(inbox, epoch, packet_id.get(), publish.0);
        let repeats = session.version() != Version::V5;
        let groups = Groups::of(is_repeated);
        Some(Box::new(Exchange { repeats, is_repeated, groups, ..Exchange::of_node(origin) }))
    }

    /// The receivers of a publish are known.
    pub(super) fn note_handing_out(&mut self, qos: QoS, publisher: Publisher, to_groups: bool) {
        if let (QoS::ExactlyOnce, Publisher::Entered(publish)) = (qos, publisher)
            && let Some(waiting) = self.publishes.waiting.get_mut(&publish)
            && let Some(exchange) = &mut waiting.exchange
        {
            exchange.hand_out(to_groups);
        }
    }

    /// Whether the client of a publish has gone, so that it will repeat it.
    pub(super) fn has_left(&self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Session(conn, _) => self.conns.get(conn).is_none_or(|conn| !conn.session.is_connected()),
            Waiter::Node(..) => false,
        }
    }

    /// Whether a publish waits until its connection is known to own its inbox. Should its client have gone on on another node, it has repeated the publish
    /// there, and may be past it.
    pub(super) fn awaits_owner(&self, publisher: Publisher) -> bool {
        let Publisher::Entered(publish) = publisher else { return false };
        let waiting = self.publishes.waiting.get(&publish).filter(|waiting| waiting.is_exchange());
        match waiting.map(|waiting| waiting.waiter) {
            Some(Waiter::Session(conn, _)) => !self.services.peek().owns_inbox(conn),
            Some(Waiter::Node(..)) | None => false,
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
                let parts = self.have_forgotten(publish, exchange, failed || exchange.is_in_doubt);
                u32::try_from(parts).ok().filter(|&parts| parts > 0)
            }
            Phase::Forgetting => None,
        }
    }

    /// Asks whoever may have noted a publish to forget it. Returns how many completions that takes.
    fn have_forgotten(&mut self, publish: ReqId, exchange: &Exchange, in_doubt: bool) -> usize {
        let (ranges, origin) = (self.noting(exchange), exchange.origin);
        for &range in &ranges {
            let req = self.next_req_id();
            self.requests.insert(req, Awaited::PublishPart(publish));
            self.services.ask().forget(self.now, req, range, origin, in_doubt);
        }
        let nodes = if exchange.is_anyones() { self.remotes.nodes() } else { exchange.nodes.clone() };
        let (over, mut parts) = (Over { origin, others: Vec::new(), in_doubt }, ranges.len());
        for node in nodes {
            parts += usize::from(self.have_node_forget(node, publish, &over));
        }
        if exchange.is_anyones() || exchange.is_live {
            parts += self.forget_delivered(&over, Some(publish));
        }
        parts
    }

    /// Ranges that may have noted a publish. One that is repeated may have gone to others the first time, which have no receiver of it any more.
    fn noting(&self, exchange: &Exchange) -> SmallVec<[RangeIdx; 4]> {
        if exchange.is_anyones() {
            return (0..self.services.peek().inbox_ranges()).map(RangeIdx).collect();
        }
        exchange.ranges.clone()
    }
}
