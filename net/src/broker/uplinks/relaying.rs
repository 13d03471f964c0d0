//! Two nodes that live and cannot reach each other: what they have for each other goes by way of a third, which has links to both.
//!
//! The shard that misses its link asks one of those it has links to, then the next. Each passes envelopes on as long as it has both links, and says so
//! when it has not. To everything above, the way is one like any other: it begins with everything being told, and when either link ends so does it.
//! As soon as the two nodes reach each other again the link takes the way over.

use super::envelope::{Envelope, Hop, Kind};
use super::{Carrier, Uplinks, node_of};
use crate::broker::Broker;
use crate::links::{Blocks, Lane, LinkId, next_message};
use bifro_core::ids::{NodeId, NodeIdx, ShardId};
use bifro_core::ports::{Services, Via};
use bifro_core::time::Instant;
use bytes::{Buf, Bytes};
use std::time::Duration;

/// How long a way is missed before another node is asked for one, and from one such question to the next. A node that has died is declared
/// dead at about that time.
pub(super) const AFTER: Duration = Duration::from_secs(1);

/// A way between two other nodes that leads over this shard. When either of its links ends, whoever is at the other must hear of it: else it would rely on
/// what it was told for longer than the links' idle time.
#[derive(Debug)]
pub(super) struct Passing {
    /// The way to the shard that has asked, which shard that is, and whose.
    asker: (Via, (NodeId, u64)),
    shard: ShardId,
    /// The node it wants to reach, and who that is.
    peer: (NodeIdx, (NodeId, u64)),
    session: u32,
}

impl Uplinks {
    /// When another node is to be asked next.
    pub(super) fn next_relay(&self) -> Option<Instant> {
        let missed = self.dials.iter().filter(|(node, _)| !self.by_way.contains_key(&Via::To(**node)));
        missed.map(|(_, dial)| dial.relay_at).min()
    }

    /// Asks for ways to nodes that have been out of reach for long.
    pub(super) fn seek_relays(&mut self, now: Instant) {
        let missed = self
            .dials
            .iter()
            .filter(|(node, dial)| dial.relay_at <= now && !self.by_way.contains_key(&Via::To(**node)));
        for node in missed.map(|(&node, _)| node).collect::<Vec<_>>() {
            let carriers = self.by_way.iter().filter_map(|(via, carrier)| match (via, carrier) {
                (Via::To(other), &Carrier::Link(link)) if *other != node => Some((*other, link)),
                _ => None,
            });
            let mut links: Vec<_> = carriers.collect();
            links.sort_unstable();
            self.sessions = self.sessions.wrapping_add(1);
            let session = self.sessions;
            let asked = links.get(session as usize % links.len().max(1)).map(|&(_, link)| (link, session));
            if let Some(dial) = self.dials.get_mut(&node) {
                (dial.relay, dial.relay_at) = (asked, now + AFTER);
            }
            if let Some((link, _)) = asked {
                self.post(link, Via::To(node), Kind::Open, session, &[]);
            }
        }
    }

    /// Sends a batch. False if it is to be kept for now.
    pub(super) fn send(&mut self, via: Via, batch: &Bytes) -> bool {
        match self.by_way.get(&via) {
            None => false,
            Some(&Carrier::Link(link)) => self.links.send_run(link, Lane::Control, batch).is_ok(),
            Some(&Carrier::Relay { over, session }) => self.post(over, via, Kind::Data, session, batch),
        }
    }

    /// Tells the peer of a relayed way that it is over.
    pub(super) fn send_close(&mut self, via: Via) {
        if let Some(&Carrier::Relay { over, session }) = self.by_way.get(&via) {
            self.post(over, via, Kind::Close, session, &[]);
        }
    }

    /// Gives the node at the end of a link an envelope for the peer of a way.
    fn post(&mut self, over: LinkId, via: Via, kind: Kind, session: u32, batch: &[u8]) -> bool {
        let shard = match via {
            Via::To(_) => self.me.shard,
            Via::From(_, shard) => shard,
        };
        let Some(peer) = self.nodes.get(node_of(via)).map(|node| (node.id, node.nonce)) else { return false };
        let envelope = Envelope { hop: Hop::First, kind, shard, session, peer };
        self.links.send(over, Lane::Bulk, &envelope.seal(batch)).is_ok()
    }

    /// Takes the first of some envelopes; the others come next.
    pub(super) fn handle_envelope<S: Services>(
        &mut self,
        link: LinkId,
        via: Via,
        mut run: Bytes,
        broker: &mut Broker<S>,
        most: usize,
    ) {
        let Some(bytes) = next_message(&mut run) else { return };
        if !run.is_empty() {
            self.put_back(link, Lane::Bulk, run);
        }
        let Some((envelope, header)) = Envelope::open(&bytes) else {
            tracing::error!(
                ?via,
                "another node sent an envelope that this one cannot read; closing the link: do their versions differ?"
            );
            return self.close(link, "what was sent cannot be read", broker);
        };
        let batch = bytes.slice(header..);
        match envelope.hop {
            Hop::First => self.pass_on(link, via, envelope, &batch),
            Hop::Second => self.take(link, via, envelope, batch, broker, most),
        }
    }

    /// An envelope for a third node. If there is no link to it, or its queue is full, the sender hears that the way is over.
    fn pass_on(&mut self, link: LinkId, via: Via, envelope: Envelope, batch: &[u8]) {
        let sender = self.nodes.get(node_of(via)).map(|node| (node.id, node.nonce));
        let peer = self.nodes.find(envelope.peer.0, envelope.peer.1).map(|node| node.idx);
        let way = peer.map(|peer| match via {
            Via::From(..) => Via::To(peer),
            Via::To(_) => Via::From(peer, envelope.shard),
        });
        let over = way.and_then(|way| match self.by_way.get(&way) {
            Some(&Carrier::Link(over)) => Some(over),
            _ => None,
        });
        if let (Some(over), Some(sender)) = (over, sender) {
            let passed = Envelope { hop: Hop::Second, peer: sender, ..envelope }.seal(batch);
            if self.links.send(over, Lane::Bulk, &passed).is_ok() {
                return self.note_passing(via, sender, envelope);
            }
        }
        if envelope.kind != Kind::Close {
            let over = Envelope { hop: Hop::Second, kind: Kind::Close, ..envelope };
            // If even that cannot be sent the link is about to end.
            let _ = self.links.send(link, Lane::Bulk, &over.seal(&[]));
        }
    }

    /// An envelope was passed on: a way may have begun with it, or ended.
    fn note_passing(&mut self, via: Via, sender: (NodeId, u64), envelope: Envelope) {
        let session = envelope.session;
        match (envelope.kind, via, self.nodes.find(envelope.peer.0, envelope.peer.1)) {
            (Kind::Open, Via::From(..), Some(peer)) => {
                let peer = (peer.idx, envelope.peer);
                self.passing.push(Passing { asker: (via, sender), shard: envelope.shard, peer, session });
            }
            (Kind::Close, ..) => self.passing.retain(|passing| {
                let ends = [passing.asker.1, passing.peer.1];
                let is_same = ends == [sender, envelope.peer] || ends == [envelope.peer, sender];
                !(is_same && passing.session == session && passing.shard == envelope.shard)
            }),
            _ => {}
        }
    }

    /// A link has ended: whoever is at the other end of ways that led over it and this shard hears of it.
    pub(super) fn stop_passing(&mut self, ended: Via) {
        let is_ended = |passing: &mut Passing| passing.asker.0 == ended || Via::To(passing.peer.0) == ended;
        for passing in self.passing.extract_if(.., is_ended).collect::<Vec<_>>() {
            let (to, from) = if passing.asker.0 == ended {
                (Via::To(passing.peer.0), passing.asker.1)
            } else {
                (passing.asker.0, passing.peer.1)
            };
            let Some(&Carrier::Link(link)) = self.by_way.get(&to) else { continue };
            let (shard, session) = (passing.shard, passing.session);
            let close = Envelope { hop: Hop::Second, kind: Kind::Close, shard, session, peer: from };
            // A queue that is full ends the way as well, if later.
            let _ = self.links.send(link, Lane::Bulk, &close.seal(&[]));
        }
    }

    /// An envelope from a node that cannot be reached otherwise.
    fn take<S: Services>(
        &mut self,
        link: LinkId,
        via: Via,
        envelope: Envelope,
        mut batch: Bytes,
        broker: &mut Broker<S>,
        most: usize,
    ) {
        let Some(peer) = self.nodes.find(envelope.peer.0, envelope.peer.1).map(|node| node.idx) else { return };
        let Envelope { kind, shard, session, .. } = envelope;
        let way = match via {
            Via::From(..) => Via::From(peer, shard),
            Via::To(_) => Via::To(peer),
        };
        let carrier = Carrier::Relay { over: link, session };
        match kind {
            Kind::Open if matches!(way, Via::From(..)) => {
                self.carry(way, carrier, broker);
                self.post(link, way, Kind::Opened, session, &[]);
            }
            Kind::Opened if self.has_asked(way, shard, (link, session)) => {
                tracing::info!(node = %envelope.peer.0, "a node that cannot be reached is reached by way of another");
                self.carry(way, carrier, broker);
            }
            Kind::Close if self.has_asked(way, shard, (link, session)) => self.seek_at_once(way, broker.now),
            Kind::Close if self.by_way.get(&way) == Some(&carrier) => self.drop_way(way, broker),
            Kind::Data if self.by_way.get(&way) == Some(&carrier) => {
                match broker.receive_batch(way, &batch, most) {
                    Some(taken) => batch.advance(taken),
                    None => return self.end(way, "what was sent cannot be read", broker),
                }
                if !batch.is_empty() {
                    let mut rest = Blocks::default();
                    rest.push(&envelope.seal(&batch));
                    rest.hand_over(|run| {
                        self.put_back(link, Lane::Bulk, run.clone());
                        true
                    });
                }
            }
            // Of a way that is over.
            Kind::Open | Kind::Opened | Kind::Close | Kind::Data => {}
        }
    }

    /// Whether this shard waits for the answer to that very question.
    fn has_asked(&self, way: Via, shard: ShardId, question: (LinkId, u32)) -> bool {
        let Via::To(node) = way else { return false };
        let dial = self.dials.get(&node);
        shard == self.me.shard
            && dial.is_some_and(|dial| dial.relay == Some(question))
            && !self.by_way.contains_key(&way)
    }

    /// The node that was asked has no way: the next one is asked.
    fn seek_at_once(&mut self, way: Via, now: Instant) {
        if let Some(dial) = self.dials.get_mut(&node_of(way)) {
            dial.relay = None;
            // Soon, but not as fast as answers come: it may be that nobody has one.
            dial.relay_at = now + AFTER / 10;
        }
    }
}
