//! What is known of publishes that are under way.

use crate::broker::again::{Again, Retries};
use crate::broker::exactly_once::Exchange;
use bifro_core::ids::{NodeIdx, PublisherKey, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::inquiry::Holder;
use bifro_core::message::Message;
use bifro_core::ports::{GroupName, Origin, PortError};
use bifro_core::time::{Instant, earlier};
use bifro_mqtt::session::PublishToken;
use hashbrown::{Equivalent, HashMap};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Deadlines of publishes that are done are swept out once there are this many more of them than of others.
const SPENT_DEADLINES_MAX: usize = 1_024;

/// Who waits for a message to be taken over.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Waiter {
    /// A session.
    Session(Slot, PublishToken),
    /// A shard of another node, which calls the publish so.
    Node(NodeIdx, ShardId, u64),
}

/// Who hears when a message has been taken over.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) enum Publisher {
    /// Nobody: QoS 0, wills.
    Nobody,
    /// Somebody, and so far nobody else has to be waited for: most publishes are done before they are entered anywhere.
    Waits(Waiter),
    /// Somebody, by way of the publish table.
    Entered(ReqId),
}

/// Who is to get a message besides inboxes, which always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Parts {
    /// Connections that listen on this node.
    pub(in crate::broker) live: bool,
    pub(in crate::broker) groups: bool,
}

impl Parts {
    pub(in crate::broker) const ALL: Self = Self { live: true, groups: true };
    /// Only those who recognise a publish that they have, or are asked for it first.
    pub(in crate::broker) const NOTED: Self = Self { live: false, groups: true };
}

/// How far a message goes.
#[derive(Clone, Debug)]
pub(in crate::broker) enum Scope {
    /// To all who listen.
    Everywhere(Parts),
    /// It comes from another node, which sees to the other nodes: to those who listen here. That node sees to groups too, unless it does not know this one's: then
    /// it is also for groups that have all their members here.
    Here(Parts),
    /// To a member, here, of this group alone: filter without prefix, and name.
    Member(Rc<(Box<str>, GroupName)>),
}

/// A QoS 1 or 2 publish whose publisher waits.
#[derive(Debug)]
pub(in crate::broker) struct Waiting {
    pub(in crate::broker) waiter: Waiter,
    /// Completions still to come; the match counts as one.
    pub(in crate::broker) parts: u32,
    pub(super) matched: bool,
    pub(in crate::broker) failed: Option<PortError>,
    /// QoS 2 of a client with a durable inbox: what has to follow.
    pub(in crate::broker) exchange: Option<Box<Exchange>>,
    /// For another try.
    pub(in crate::broker) again: Option<Box<Again>>,
}

impl Waiting {
    /// Whether it is recognised by those who have it already.
    pub(in crate::broker) const fn is_exchange(&self) -> bool {
        self.exchange.is_some()
    }
}

/// A message whose topic's receivers are being asked for.
#[derive(Debug)]
pub(super) struct Unmatched {
    pub(super) message: Arc<Message>,
    pub(super) publisher: Publisher,
    pub(super) scope: Scope,
    /// What this node led when it came ([`Services::reigns_seen`](bifro_core::ports::Services::reigns_seen)).
    pub(super) reigns_seen: u64,
}

impl Unmatched {
    /// Whether it was published after that one, by the same client.
    pub(super) fn is_behind(&self, publish: ReqId, publisher: PublisherKey) -> bool {
        matches!(self.publisher, Publisher::Entered(of) if of > publish) && self.message.view().publisher == publisher
    }
}

/// A topic of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicKey(pub(super) TenantIdx, pub(super) Rc<str>);

/// A [`TopicKey`] to look for.
#[derive(Hash)]
pub(super) struct TopicKeyRef<'a>(pub(super) TenantIdx, pub(super) &'a str);

impl Equivalent<TopicKey> for TopicKeyRef<'_> {
    fn equivalent(&self, key: &TopicKey) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// Publishes that are under way on this shard.
#[derive(Debug, Default)]
pub(in crate::broker) struct PublishTable {
    pub(in crate::broker) waiting: HashMap<ReqId, Waiting>,
    /// Deadlines in order, since all publishes get the same time; some of publishes that are done.
    pub(super) deadlines: VecDeque<(Instant, ReqId)>,
    pub(super) unmatched: HashMap<TopicKey, VecDeque<Unmatched>>,
    pub(super) unmatched_bytes: u64,
    pub(in crate::broker) retries: Retries,
}

impl PublishTable {
    /// Bytes of messages that wait for their match, or for others to be tried again.
    pub(in crate::broker) const fn held_bytes(&self) -> u64 {
        self.unmatched_bytes + self.retries.bytes()
    }

    pub(in crate::broker) fn next_deadline(&self) -> Option<Instant> {
        earlier(self.deadlines.front().map(|deadline| deadline.0), self.retries.next_at())
    }

    #[cfg(test)]
    pub(in crate::broker) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unmatched.is_empty() && self.held_bytes() == 0
    }

    pub(in crate::broker) fn is_exchange(&self, publish: ReqId) -> bool {
        self.waiting.get(&publish).is_some_and(Waiting::is_exchange)
    }

    /// A publish waits for so many completions more.
    pub(in crate::broker) fn expect_parts(&mut self, publish: ReqId, parts: usize) {
        if let Some(waiting) = self.waiting.get_mut(&publish) {
            waiting.parts += u32::try_from(parts).expect("nodes, shards and ranges are counted in 16 bits");
        }
    }

    /// Whose a QoS 2 publish is that connections are given; none if it is not recognised.
    pub(super) fn note_live(&mut self, publisher: Publisher) -> Option<Box<Origin>> {
        let Publisher::Entered(publish) = publisher else { return None };
        let exchange = self.waiting.get_mut(&publish)?.exchange.as_mut()?;
        exchange.note(Holder::Live);
        Some(Box::new(exchange.origin))
    }

    /// Whether a QoS 2 publish has failed before anybody got it: then nobody does.
    pub(super) fn has_failed_as_exchange(&self, publisher: Publisher) -> bool {
        let Publisher::Entered(publish) = publisher else { return false };
        self.waiting.get(&publish).is_some_and(|waiting| waiting.is_exchange() && waiting.failed.is_some())
    }

    /// What came from another node's shard and was not routed yet is not routed any more, since the link it came by has ended: it will be sent again, if it is to be.
    pub(in crate::broker) fn forget_unmatched(&mut self, node: NodeIdx, shard: ShardId) {
        let Self { waiting, unmatched, unmatched_bytes, .. } = self;
        let is_its = |of: &Waiting| matches!(of.waiter, Waiter::Node(n, s, _) if (n, s) == (node, shard));
        // What is asked for its topic stays so: another one may wait for the answer.
        for queue in unmatched.values_mut() {
            queue.retain(|of| {
                let Publisher::Entered(publish) = of.publisher else { return true };
                let stays = !waiting.get(&publish).is_some_and(is_its);
                if !stays {
                    waiting.remove(&publish);
                    *unmatched_bytes -= of.message.footprint_bytes() as u64;
                }
                stays
            });
        }
    }

    pub(super) fn enter(&mut self, publish: ReqId, waiting: Waiting, deadline: Instant) {
        self.waiting.insert(publish, waiting);
        if self.deadlines.len() >= 2 * self.waiting.len() + SPENT_DEADLINES_MAX {
            self.deadlines.retain(|(_, publish)| self.waiting.contains_key(publish));
        }
        self.deadlines.push_back((deadline, publish));
    }
}
