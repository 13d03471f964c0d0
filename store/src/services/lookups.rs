//! Retained messages for the clients of a node that has no copies of them: it asks one that has.
//!
//! Each shard asks over its own link. Which node it asks is its own choice, the same as long as that node lives, so that many such nodes spread
//! over those with copies. If the link ends before the answer, the next one is asked: a search begins anew, and a message is set again,
//! as a publisher who had no answer would. What was found comes in pieces, each asked for when the one before has come.

use super::RangeServices;
use super::cluster::Unanswered;
use super::message::{Message, Retain as RetainMessage};
use super::wire::{Remote, is_filter};
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{NodeIdx, ReqId, ShardId, TenantIdx, keyed_hash};
use bifro_core::message::Message as Published;
use bifro_core::nodes::Node;
use bifro_core::ports::{Completion, PortError, RetainedMessage, Via};
use bifro_core::roles::Roles;
use bifro_core::time::Instant;
use bifro_range::retain::{Replica, Version};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long there may be no node to ask. Publishers give up about then, and subscribers have waited long enough.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a piece of what was found, about.
const PIECE_BYTES: usize = if cfg!(test) { 64 } else { 512 << 10 };
/// Requests of other nodes have numbers from here on, those of the driver below.
const GUESTS: u64 = 1 << 63;

/// What a client of this shard wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// A message to be set, or cleared.
    Set { publisher: Client, message: Arc<Published> },
    /// Those whose topics match.
    Find { filter: Arc<str> },
}

#[derive(Debug)]
struct Lookup {
    tenant: TenantIdx,
    wish: Wish,
    /// Who is asked; nobody while there is nobody to ask.
    asked: Option<NodeIdx>,
    /// When it is given up if there is nobody to ask.
    until: Instant,
    found: Vec<RetainedMessage>,
}

/// A request of another node's shard.
#[derive(Debug)]
struct Guest {
    node: NodeIdx,
    shard: ShardId,
    tenant: TenantIdx,
    req: u64,
    /// What was found and not sent yet.
    found: std::vec::IntoIter<RetainedMessage>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    open: BTreeMap<ReqId, Lookup>,
    guests: BTreeMap<u64, Guest>,
    last_guest: u64,
}

impl Lookups {
    /// When the first is given up.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.open.values().filter(|lookup| lookup.asked.is_none()).map(|lookup| lookup.until).min()
    }
}

#[cfg(test)]
impl Lookups {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.guests.is_empty()
    }
}

impl RangeServices {
    /// Whether this node has a copy of every retained message.
    pub(super) fn keeps_retained(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.nodes.my_duties().roles.has(Roles::RETAIN))
    }

    /// Whether another node has.
    pub(super) fn is_keeper(&self, node: NodeIdx) -> bool {
        let node = self.cluster.as_ref().and_then(|cluster| cluster.nodes.get(node));
        node.is_some_and(|node| node.duties.roles.has(Roles::RETAIN))
    }

    /// Those among the [other nodes](Self::other_nodes) that have copies of retained messages.
    pub(super) fn keepers(&self) -> (Unanswered, Unanswered) {
        let (mut relying, mut linked) = self.other_nodes();
        relying.retain(|node| self.is_keeper(*node));
        linked.retain(|node| self.is_keeper(*node));
        (relying, linked)
    }

    /// The node to ask, if one is reached; rather one that does not go.
    fn keeper(&self) -> Option<NodeIdx> {
        let cluster = self.cluster.as_ref()?;
        let me = cluster.nodes.me.0;
        let weight =
            |node: &&Node| (node.duties.takes_on(Roles::RETAIN), keyed_hash(me, &[&node.id.0.to_le_bytes()]), node.idx);
        let reached = |node: &&Node| node.duties.roles.has(Roles::RETAIN) && cluster.is_up(node.idx);
        cluster.nodes.others.iter().filter(reached).max_by_key(weight).map(|node| node.idx)
    }

    /// Asks a node that has copies, now or as soon as one is reached.
    pub(super) fn look_up(&mut self, now: Instant, req: ReqId, tenant: TenantIdx, wish: Wish) {
        let lookup = Lookup { tenant, wish, asked: None, until: now + PATIENCE, found: Vec::new() };
        self.lookups.open.insert(req, lookup);
        self.ask_keepers(now);
    }

    /// Asks what nobody is asked at present.
    pub(super) fn ask_keepers(&mut self, now: Instant) {
        let Some(node) = self.keeper() else { return };
        let mut messages = Vec::new();
        for (req, lookup) in self.lookups.open.iter_mut().filter(|(_, lookup)| lookup.asked.is_none()) {
            lookup.asked = Some(node);
            let message = match &lookup.wish {
                Wish::Set { publisher, message } => {
                    let retained = RetainedMessage { message: message.clone(), publisher: publisher.clone() };
                    let replica = Replica { retained, version: Version::OLDEST }.encode(now);
                    Remote::SetRetained { req: req.0, replica }
                }
                Wish::Find { filter } => Remote::FindRetained { req: req.0, filter: filter.to_string() },
            };
            messages.push((lookup.tenant, message));
        }
        for (tenant, message) in messages {
            self.send_remote(Via::To(node), Some(tenant), &message);
        }
    }

    /// The link to a node has ended: what it was asked, another one is.
    pub(super) fn lose_keeper(&mut self, now: Instant, node: NodeIdx) {
        for lookup in self.lookups.open.values_mut().filter(|lookup| lookup.asked == Some(node)) {
            (lookup.asked, lookup.until) = (None, now + PATIENCE);
            lookup.found.clear();
        }
        self.ask_keepers(now);
    }

    /// The link of another node's shard has ended: nothing can be answered over it.
    pub(super) fn lose_guests(&mut self, node: NodeIdx, shard: ShardId) {
        self.lookups.guests.retain(|_, guest| (guest.node, guest.shard) != (node, shard));
    }

    /// Gives up what nobody could be asked for long.
    pub(super) fn give_up_lookups(&mut self, now: Instant) {
        let is_late = |_: &ReqId, lookup: &mut Lookup| lookup.asked.is_none() && lookup.until <= now;
        let late: Vec<_> = self.lookups.open.extract_if(.., is_late).collect();
        for (req, lookup) in late {
            match lookup.wish {
                Wish::Set { .. } => {
                    self.complete(Completion::RetainSet { req, result: Err(PortError::Unavailable) });
                }
                Wish::Find { filter } => {
                    let detail =
                        "retained messages were not delivered: no node that has them (roles.retain) is reached";
                    self.complete(Completion::Event(Event::of(EventKind::MatchRetainError, None, detail).on(&filter)));
                    self.complete(Completion::Retained { req, messages: Vec::new() });
                }
            }
        }
    }

    /// A node that has copies answers. False if nobody says such a thing.
    pub(super) fn hear_keeper(&mut self, now: Instant, node: NodeIdx, answer: Remote) -> bool {
        match answer {
            Remote::RetainedSet { req, is_refused } => {
                if self.take_lookup(ReqId(req), node).is_some() {
                    let result = if is_refused { Err(PortError::QuotaExceeded) } else { Ok(()) };
                    self.complete(Completion::RetainSet { req: ReqId(req), result });
                }
            }
            Remote::FoundRetained { req, more, replicas } => {
                let lookup = self.lookups.open.get_mut(&ReqId(req)).filter(|lookup| lookup.asked == Some(node));
                let Some(lookup) = lookup else { return true };
                for replica in &replicas {
                    let Ok(replica) = Replica::decode(replica, now) else { return false };
                    lookup.found.push(replica.retained);
                }
                if let Some(guest) = more {
                    self.send_remote(Via::To(node), None, &Remote::FindOn { guest });
                } else if let Some(lookup) = self.take_lookup(ReqId(req), node) {
                    self.complete(Completion::Retained { req: ReqId(req), messages: lookup.found });
                }
            }
            _ => return false,
        }
        true
    }

    fn take_lookup(&mut self, req: ReqId, node: NodeIdx) -> Option<Lookup> {
        let is_asked = self.lookups.open.get(&req).is_some_and(|lookup| lookup.asked == Some(node));
        if is_asked { self.lookups.open.remove(&req) } else { None }
    }

    /// A node without copies asks. False if the request cannot be read.
    pub(super) fn hear_guest(
        &mut self,
        now: Instant,
        (node, shard): (NodeIdx, ShardId),
        tenant: TenantIdx,
        request: Remote,
    ) -> bool {
        let Some(ctx) = self.tenants.get(tenant).cloned() else { return true };
        match request {
            Remote::SetRetained { req, replica } => {
                let Ok(replica) = Replica::decode(&replica, now) else { return false };
                let RetainedMessage { message, publisher } = replica.retained;
                let (range, req) = (self.range_of(&ctx, message.topic()), self.welcome((node, shard), tenant, req));
                let set = RetainMessage::Set { req, range, tenant, publisher, message };
                self.send(self.home(range), Message::Retain(set));
            }
            Remote::FindRetained { req, filter } => {
                if !is_filter(&filter) {
                    return false;
                }
                let req = self.welcome((node, shard), tenant, req);
                self.search(req, &ctx, &filter);
            }
            _ => return false,
        }
        true
    }

    fn welcome(&mut self, (node, shard): (NodeIdx, ShardId), tenant: TenantIdx, req: u64) -> ReqId {
        self.lookups.last_guest += 1;
        let guest = Guest { node, shard, tenant, req, found: Vec::new().into_iter() };
        self.lookups.guests.insert(self.lookups.last_guest, guest);
        ReqId(GUESTS | self.lookups.last_guest)
    }

    /// A message was set, or was refused, for whoever asked.
    pub(super) fn answer_set(&mut self, req: ReqId, result: Result<(), PortError>) {
        if req.0 < GUESTS {
            return self.complete(Completion::RetainSet { req, result });
        }
        if let Some(guest) = self.lookups.guests.remove(&(req.0 - GUESTS)) {
            let answer = Remote::RetainedSet { req: guest.req, is_refused: result.is_err() };
            self.send_remote(Via::From(guest.node, guest.shard), None, &answer);
        }
    }

    /// A search is done, for whoever asked.
    pub(super) fn answer_search(&mut self, now: Instant, req: ReqId, messages: Vec<RetainedMessage>) {
        if req.0 < GUESTS {
            return self.complete(Completion::Retained { req, messages });
        }
        if let Some(guest) = self.lookups.guests.get_mut(&(req.0 - GUESTS)) {
            guest.found = messages.into_iter();
        }
        self.send_piece(now, req.0 - GUESTS);
    }

    /// A node without copies has taken in a piece of what was found for it.
    pub(super) fn find_on(&mut self, now: Instant, from: (NodeIdx, ShardId), guest: u64) {
        if self.lookups.guests.get(&guest).is_some_and(|guest| (guest.node, guest.shard) == from) {
            self.send_piece(now, guest);
        }
    }

    fn send_piece(&mut self, now: Instant, id: u64) {
        let Some(guest) = self.lookups.guests.get_mut(&id) else { return };
        let (mut replicas, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES
            && let Some(retained) = guest.found.next()
        {
            let replica = Replica { retained, version: Version::OLDEST }.encode(now);
            bytes += replica.len();
            replicas.push(replica);
        }
        let more = (guest.found.len() > 0).then_some(id);
        let (via, tenant) = (Via::From(guest.node, guest.shard), guest.tenant);
        let piece = Remote::FoundRetained { req: guest.req, more, replicas };
        if more.is_none() {
            self.lookups.guests.remove(&id);
        }
        self.send_remote(via, Some(tenant), &piece);
    }
}
