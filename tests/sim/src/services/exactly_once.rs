//! QoS 2 publishes of clients with sessions, as in bifro-net's `broker/exactly_once.rs` and `broker/departure.rs`, and as much of bifro-mqtt's session machine as
//! they need. See the page of the first: what is taken over, noted and forgotten, and by whom.
//!
//! Acknowledgements leave when they are known, and not in the order of the publishes, which no client here minds.

use super::publishing::Waiter;
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{Mark, ToClient};
use bifro_core::client::Version;
use bifro_core::delivered::Over;
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, Slot};
use bifro_core::inquiry::{Groups, Holder};
use bifro_core::ports::{DetachState, Inbox, InboxOwner, Origin, PortError, Services};
use std::collections::BTreeSet;

/// A client has no more packet identifiers.
const RECEIVE_MAXIMUM: usize = 4;

/// How far a publish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Taking,
    Noting,
    Forgetting,
}

/// A publish that is to be taken over once.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) origin: Origin,
    phase: Phase,
    /// The client repeats the publish even after a failure, since it has not been told of one.
    repeats: bool,
    /// Ranges that an insertion went to.
    ranges: BTreeSet<RangeIdx>,
    /// Other nodes with connections that were given it.
    nodes: BTreeSet<NodeIdx>,
    /// Connections of this node were given it.
    is_live: bool,
    /// Its client may have sent it before.
    is_repeated: bool,
    is_handed_out: bool,
    /// Nobody knows who has it: a part of it was lost.
    is_in_doubt: bool,
    /// What is known of the groups that have it.
    pub(super) groups: Groups,
}

impl Exchange {
    /// Of a publish of another node, which sees to all but the taking.
    pub(super) const fn of_node(origin: Origin) -> Self {
        Self {
            origin,
            groups: Groups::NONE,
            phase: Phase::Taking,
            repeats: true,
            ranges: BTreeSet::new(),
            nodes: BTreeSet::new(),
            is_live: false,
            is_repeated: false,
            is_handed_out: false,
            is_in_doubt: false,
        }
    }

    pub(super) fn note(&mut self, holder: Holder) {
        match holder {
            Holder::Live => self.is_live = true,
            Holder::Range(range) => _ = self.ranges.insert(range),
            Holder::Node(node) => _ = self.nodes.insert(node),
        }
    }

    /// Whether connections here have noted it.
    pub(super) const fn is_live(&self) -> bool {
        self.is_live
    }

    pub(super) const fn is_handed_out(&self) -> bool {
        self.is_handed_out
    }

    /// Ranges that have noted it, as far as is known.
    pub(super) fn ranges(&self) -> Vec<RangeIdx> {
        self.ranges.iter().copied().collect()
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
    pub(super) fn is_undecidable(&self) -> bool {
        self.is_handed_out || self.is_repeated
    }
}

/// Packet identifiers that a client's QoS 2 publishes have on a connection.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Not acknowledged yet.
    pending: BTreeSet<u16>,
    /// Acknowledged on this connection, and not released.
    open: BTreeSet<u16>,
    /// Received by an earlier connection, and not released.
    resumed: BTreeSet<u16>,
    /// The session goes on.
    present: bool,
    begun: usize,
    /// Of the last two: PUBREL has come.
    releasing: BTreeSet<u16>,
}

impl Inbound {
    pub(super) fn resume(&mut self, present: bool, packet_ids: Vec<u16>) {
        self.present = present;
        self.resumed = packet_ids.into_iter().collect();
    }

    /// An end: what was received, and what is not decided yet.
    pub(super) fn leave(&mut self) -> (Vec<u16>, BTreeSet<u16>) {
        let Self { pending, open, resumed, .. } = std::mem::take(self);
        (resumed.into_iter().chain(open).collect(), pending)
    }
}

/// A session on its way out.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) inbox: (RangeIdx, Slot),
    pub(super) epoch: u64,
    pub(super) state: DetachState,
    pub(super) undecided: BTreeSet<u16>,
}

impl Shard {
    /// A client publishes with QoS 2.
    pub(super) fn receive_once(&mut self, at: u32, mark: Mark, packet_id: u16, is_repeated: bool) {
        let Some((inbox, epoch)) = self.inbox_of(at) else { return };
        let Some(conn) = self.conns.find_mut(at) else { return };
        let (client, inbound) = (conn.client.clone(), &mut conn.inbound);
        if inbound.resumed.remove(&packet_id) {
            inbound.open.insert(packet_id);
        }
        if inbound.open.contains(&packet_id) {
            return self.say(at, ToClient::Received { packet_id, taken: true });
        }
        assert!(inbound.pending.insert(packet_id), "nobody repeats a publish over one connection");
        let is_repeated = is_repeated || (inbound.present && inbound.begun < RECEIVE_MAXIMUM);
        inbound.begun += 1;
        let (waiter, repeats) = (Waiter::Session { at, mark, packet_id }, client.version != Version::V5);
        let nth = self.next_req();
        let origin = Origin::new(inbox, epoch, packet_id, nth.0);
        let groups = Groups::of(is_repeated);
        let exchange = Exchange { repeats, is_repeated, groups, ..Exchange::of_node(origin) };
        self.enter_as(nth, waiter, Some(exchange));
        self.retain_and_route(mark, nth, &client);
    }

    /// PUBREL.
    pub(super) fn begin_release(&mut self, at: u32, packet_id: u16) {
        let Some((inbox, epoch)) = self.inbox_of(at) else { return };
        let Some(inbound) = self.conns.find_mut(at).map(|conn| &mut conn.inbound) else { return };
        if !inbound.open.contains(&packet_id) && !inbound.resumed.contains(&packet_id) {
            return self.say(at, ToClient::Completed { packet_id });
        }
        if inbound.releasing.insert(packet_id) {
            let req = self.await_completion(Awaited::Released(at, packet_id));
            let origin = Origin::new(inbox, epoch, packet_id, 0);
            self.services.release(self.now, req, origin);
        }
    }

    /// The inbox has forgotten an identifier.
    pub(super) fn finish_release(&mut self, at: u32, packet_id: u16) {
        if let Some(inbound) = self.conns.find_mut(at).map(|conn| &mut conn.inbound) {
            for table in [&mut inbound.releasing, &mut inbound.open, &mut inbound.resumed] {
                table.remove(&packet_id);
            }
        }
        self.say(at, ToClient::Completed { packet_id });
    }

    /// Whether the client of a publish has gone, so that it will repeat it.
    pub(super) fn has_left(&self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Session { at, .. } => self.inbox_of(at).is_none(),
            Waiter::Client(..) | Waiter::Node(..) => false,
        }
    }

    /// Whether a publish waits until its connection is known to own its inbox.
    pub(super) fn awaits_owner(&self, publish: ReqId) -> bool {
        match self.publishes.exchange_waiter(publish) {
            Some(Waiter::Session { at, .. }) => !self.services.owns_inbox(self.conn_ref(at).slot),
            Some(Waiter::Client(..) | Waiter::Node(..)) | None => false,
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
                let req = self.await_completion(Awaited::Part { publish, is_retained: false });
                self.services.note_received(self.now, req, exchange.origin);
                Some(1)
            }
            Phase::Taking if exchange.repeats || has_left => None,
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
            let req = self.await_completion(Awaited::Part { publish, is_retained: false });
            self.services.forget(self.now, req, range, origin, in_doubt);
        }
        let nodes = if exchange.is_anyones() { self.remotes.nodes() } else { exchange.nodes.iter().copied().collect() };
        let (over, mut parts) = (Over { origin, others: Vec::new(), in_doubt }, ranges.len());
        for node in nodes {
            parts += usize::from(self.have_node_forget(node, publish, &over));
        }
        if exchange.is_anyones() || exchange.is_live {
            parts += self.forget_delivered(&over, Some(publish));
        }
        parts
    }

    /// Ranges that may have noted a publish.
    fn noting(&self, exchange: &Exchange) -> Vec<RangeIdx> {
        if exchange.is_anyones() {
            return (0..self.services.inbox_ranges()).map(RangeIdx).collect();
        }
        exchange.ranges()
    }

    /// A QoS 2 publish has been taken over or has failed: its client hears it, or a session that waited for it may leave now.
    pub(super) fn once_decided(&mut self, at: u32, packet_id: u16, taken: bool) {
        let Some(conn) = self.conns.find_mut(at) else { return };
        if let Some(departure) = &mut conn.departure {
            if departure.undecided.remove(&packet_id) && taken {
                departure.state.received_qos2.push(packet_id);
            }
            return self.depart(at);
        }
        if !conn.inbound.pending.remove(&packet_id) {
            return;
        }
        if taken {
            conn.inbound.open.insert(packet_id);
        }
        if taken || conn.client.version == Version::V5 {
            self.say(at, ToClient::Received { packet_id, taken });
        }
    }

    /// A session leaves its inbox if its publishes are decided.
    pub(super) fn depart(&mut self, at: u32) {
        let Some(conn) = self.conns.find_mut(at) else { return };
        let Some(departure) = conn.departure.take_if(|departure| departure.undecided.is_empty()) else { return };
        let (client, Departure { inbox, epoch, state, .. }) = (conn.client.clone(), *departure);
        let req = self.await_completion(Awaited::Leave(at));
        let owner = InboxOwner { conn: self.conn_ref(at), client: &client, tenant: TENANT, inbox, epoch };
        self.services.detach(self.now, req, owner, state);
    }
}
