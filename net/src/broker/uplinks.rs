//! The links of a shard: one to each other node, made and made again as long as the node lives, and those that shards of other nodes have
//! to it. Shard i has its link with shard i of the other node, modulo their number there. A node that lives and cannot be reached is reached by
//! way of a third ([`relaying`]).

mod envelope;
mod relaying;

use super::Broker;
use crate::links::{Hello, Lane, LinkEvent, LinkId, Links};
use bifro_core::ids::NodeIdx;
use bifro_core::nodes::{Node, Nodes};
use bifro_core::ports::{Services, Via};
use bifro_core::time::{Instant, earlier};
use bytes::{Buf, Bytes};
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// From a link that ended to the next attempt: at first, and at most.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Bytes of messages that wait for their turn here; what more arrives waits with QUIC, and holds its senders back.
const ARRIVED_BYTES: usize = 1 << 20;

/// Calls in a row that were not answered, after which an operator is told.
const FAILURES_TOLD: u32 = 2;

/// What carries a way to or from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Link(LinkId),
    /// The node at the end of this link passes it on.
    Relay {
        over: LinkId,
        session: u32,
    },
}

/// The link this shard is to have to a node.
#[derive(Debug)]
struct Dial {
    /// The one there is, up or not yet.
    link: Option<LinkId>,
    /// When to try again if there is none.
    at: Instant,
    delay: Duration,
    /// The relay that was asked for last and has not been answered: over which link, and which session.
    relay: Option<(LinkId, u32)>,
    /// If there is no way then, one is sought by way of another node.
    relay_at: Instant,
    /// Calls that were not answered since there was a link.
    failures: u32,
}

/// See the module's page.
pub(super) struct Uplinks {
    links: Links,
    me: Hello,
    nodes: Arc<Nodes>,
    dials: BTreeMap<NodeIdx, Dial>,
    /// Links that are up, and which ways they are.
    ways: HashMap<LinkId, Via>,
    by_way: HashMap<Via, Carrier>,
    /// Relays this shard has asked for.
    sessions: u32,
    /// Ways between other nodes that lead over this shard.
    passing: Vec<relaying::Passing>,
    events: Vec<LinkEvent>,
    /// Events that wait for their turn, in order. Of the first, if it is a message, the beginning may have been taken already.
    arrived: VecDeque<LinkEvent>,
    /// Bytes of the messages among them.
    arrived_bytes: usize,
    is_readable: bool,
}

impl Uplinks {
    pub(super) fn new(links: Links, me: Hello) -> Self {
        Self {
            links,
            me,
            nodes: Arc::new(Nodes::alone(me.node)),
            dials: BTreeMap::new(),
            ways: HashMap::new(),
            by_way: HashMap::new(),
            sessions: 0,
            passing: Vec::new(),
            events: Vec::new(),
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            is_readable: true,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.links.as_fd()
    }

    /// Something has come.
    pub(super) const fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// When to turn again even if nothing comes.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().filter(|dial| dial.link.is_none()).map(|dial| dial.at).min();
        earlier(earlier(dials, self.next_relay()), self.links.next_timeout())
    }

    /// Whether there is something to do at once.
    pub(super) fn has_more(&self) -> bool {
        self.is_readable || !self.arrived.is_empty() || self.links.has_more()
    }

    /// Other nodes have come or gone; the broker knows already.
    pub(super) fn set_nodes<S: Services>(&mut self, nodes: &Arc<Nodes>, broker: &mut Broker<S>) {
        self.nodes = nodes.clone();
        let gone = self.by_way.keys().copied().filter(|via| nodes.get(node_of(*via)).is_none());
        for via in gone.collect::<Vec<_>>() {
            self.end(via, "this node takes the other for dead", broker);
        }
        let (links, now) = (&mut self.links, broker.now);
        self.dials.retain(|&node, dial| {
            let lives = nodes.get(node).is_some();
            if let (false, Some(link)) = (lives, dial.link) {
                links.close(now, link, "this node takes the other for dead");
            }
            lives
        });
        for node in &nodes.others {
            self.dials.entry(node.idx).or_insert(Dial {
                link: None,
                at: now,
                delay: DIAL_AGAIN.0,
                relay: None,
                relay_at: now + relaying::AFTER,
                failures: 0,
            });
        }
    }

    /// Takes in what has come, as much as may cost `most` in the measure of a turn's work, and makes the links that are missing. True if there
    /// was anything.
    pub(super) fn turn<S: Services>(&mut self, broker: &mut Broker<S>, most: usize) -> bool {
        let is_due = self.next_timeout().is_some_and(|at| at <= broker.now);
        if !is_due && !self.has_more() {
            return false;
        }
        self.is_readable = false;
        self.links.hold(self.arrived_bytes > ARRIVED_BYTES);
        self.links.read(broker.now, &mut self.events);
        for event in self.events.drain(..) {
            if let LinkEvent::Messages { run, .. } = &event {
                self.arrived_bytes += run.len();
            }
            self.arrived.push_back(event);
        }
        let most = broker.work + most;
        while broker.work < most
            && let Some(event) = self.arrived.pop_front()
        {
            self.handle(event, broker, most);
        }
        self.dial(broker.now);
        self.seek_relays(broker.now);
        true
    }

    /// Hands what this turn has for other nodes to the links.
    pub(super) fn flush<S: Services>(&mut self, broker: &mut Broker<S>) {
        let now = broker.now;
        broker.remotes.flush(|via, bytes| self.send(via, bytes));
        self.links.transmit(now);
        let counters = self.links.counters();
        broker.metrics.link_sent_bytes.set(counters.bytes_sent);
        broker.metrics.link_received_bytes.set(counters.bytes_received);
    }

    fn handle<S: Services>(&mut self, event: LinkEvent, broker: &mut Broker<S>, most: usize) {
        match event {
            LinkEvent::Up { link, peer, dialled: true } => self.dialled(link, &peer, broker),
            LinkEvent::Up { link, peer, dialled: false } => match self.nodes.find(peer.node, peer.nonce) {
                Some(node) => self.open(link, Via::From(node.idx, peer.shard), broker),
                // It will try again; by then the underlay has told.
                None => self.links.close(broker.now, link, "this node does not know the other yet"),
            },
            LinkEvent::Messages { link, lane, mut run } => {
                self.arrived_bytes -= run.len();
                let Some(&via) = self.ways.get(&link) else { return };
                if lane == Lane::Bulk {
                    return self.handle_envelope(link, via, run, broker, most);
                }
                let Some(taken) = broker.receive_batch(via, &run, most) else {
                    tracing::error!(
                        ?via,
                        "another node sent what this one cannot read; closing the link: do their versions differ?"
                    );
                    return self.close(link, "what was sent cannot be read", broker);
                };
                run.advance(taken);
                if !run.is_empty() {
                    self.put_back(link, lane, run);
                }
            }
            LinkEvent::Down { link, reason, was_up } => {
                let node = self.ways.get(&link).map(|&via| node_of(via));
                tracing::debug!(?node, %reason, "a link has ended");
                if !was_up {
                    self.tell_failure(link, &reason);
                }
                self.forget(link, broker);
            }
        }
    }

    /// A call was not answered. Once is nothing; but a node that lives and cannot be called is something that an operator has to mend.
    fn tell_failure(&mut self, link: LinkId, reason: &str) {
        let Some((&idx, dial)) = self.dials.iter_mut().find(|(_, dial)| dial.link == Some(link)) else { return };
        dial.failures += 1;
        let node = self.nodes.get(idx).filter(|node| dial.failures == FAILURES_TOLD && node.shards > 0);
        if let Some(node) = node
            && let Some(endpoint) = node.endpoint(self.me.shard.0 % node.shards)
        {
            tracing::warn!(
                node = %node.id,
                %endpoint,
                %reason,
                "a node lives, and its shard cannot be reached: are the UDP ports behind that of cluster.bind open, as many as it has shards? \
                 Publishers wait for it unless a third node passes their messages on"
            );
        }
    }

    /// A link this shard asked for is there, if it ends where it should.
    fn dialled<S: Services>(&mut self, link: LinkId, peer: &Hello, broker: &mut Broker<S>) {
        let dial = self.dials.iter_mut().find(|(_, dial)| dial.link == Some(link));
        let Some((&idx, dial)) = dial else {
            return self.links.close(broker.now, link, "nobody wants this link any more");
        };
        let expected = self.nodes.get(idx).is_some_and(|node| (node.id, node.nonce) == (peer.node, peer.nonce));
        if expected {
            (dial.delay, dial.failures) = (DIAL_AGAIN.0, 0);
            self.open(link, Via::To(idx), broker);
        } else {
            self.close(link, "another process listens here than the one that was called", broker);
        }
    }

    /// What the turn had no work left for comes first in the next.
    fn put_back(&mut self, link: LinkId, lane: Lane, run: Bytes) {
        self.arrived_bytes += run.len();
        self.arrived.push_front(LinkEvent::Messages { link, lane, run });
    }

    fn open<S: Services>(&mut self, link: LinkId, via: Via, broker: &mut Broker<S>) {
        self.ways.insert(link, via);
        self.carry(via, Carrier::Link(link), broker);
    }

    /// There is a way, or another carrier for it: what it had is over.
    fn carry<S: Services>(&mut self, via: Via, carrier: Carrier, broker: &mut Broker<S>) {
        self.end(via, "there is a newer link", broker);
        self.by_way.insert(via, carrier);
        if let Via::To(node) = via
            && let Some(dial) = self.dials.get_mut(&node)
        {
            dial.relay = None;
        }
        broker.link_up(via);
    }

    /// Ends a way, if there is one.
    fn end<S: Services>(&mut self, via: Via, reason: &str, broker: &mut Broker<S>) {
        match self.by_way.get(&via) {
            None => {}
            Some(&Carrier::Link(link)) => self.close(link, reason, broker),
            Some(&Carrier::Relay { .. }) => {
                self.send_close(via);
                self.drop_way(via, broker);
            }
        }
    }

    fn close<S: Services>(&mut self, link: LinkId, reason: &str, broker: &mut Broker<S>) {
        self.links.close(broker.now, link, reason);
        self.forget(link, broker);
    }

    /// There is no such way any more.
    fn drop_way<S: Services>(&mut self, via: Via, broker: &mut Broker<S>) {
        if self.by_way.remove(&via).is_none() {
            return;
        }
        broker.link_down(via);
        if let Via::To(node) = via
            && let Some(dial) = self.dials.get_mut(&node)
        {
            dial.relay_at = broker.now + relaying::AFTER;
        }
    }

    /// A link has ended, with every way that leads over it; one that this shard wants is made again.
    fn forget<S: Services>(&mut self, link: LinkId, broker: &mut Broker<S>) {
        let leads_over = |carrier: &Carrier| match carrier {
            Carrier::Link(of) => *of == link,
            Carrier::Relay { over, .. } => *over == link,
        };
        let ended = self.by_way.iter().filter(|(_, carrier)| leads_over(carrier)).map(|(&via, _)| via);
        for via in ended.collect::<Vec<_>>() {
            self.drop_way(via, broker);
        }
        if let Some(via) = self.ways.remove(&link) {
            self.stop_passing(via);
        }
        if let Some(dial) = self.dials.values_mut().find(|dial| dial.link == Some(link)) {
            dial.link = None;
            dial.at = broker.now + dial.delay;
            dial.delay = (dial.delay * 2).min(DIAL_AGAIN.1);
        }
    }

    fn dial(&mut self, now: Instant) {
        for (&idx, dial) in &mut self.dials {
            if dial.link.is_some() || dial.at > now {
                continue;
            }
            let node = self.nodes.get(idx).filter(|node| node.shards > 0);
            let endpoint = node.and_then(|node: &Node| node.endpoint(self.me.shard.0 % node.shards));
            match endpoint {
                Some(endpoint) => dial.link = Some(self.links.dial(now, endpoint)),
                None => dial.at = now + DIAL_AGAIN.1,
            }
        }
    }
}

const fn node_of(via: Via) -> NodeIdx {
    match via {
        Via::To(node) | Via::From(node, _) => node,
    }
}
