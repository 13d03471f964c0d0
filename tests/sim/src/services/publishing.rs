//! Publishes under way on a shard, as in bifro-net's `broker/publish.rs` and `broker/again.rs`: of QoS 1, to persistent sessions here and to other nodes.
//! Invariants as there: messages of one topic leave the shard in the order in which they came, and a publisher hears of success when everybody
//! has taken the message over.

use super::shard::{Awaited, Shard, TENANT};
use super::talk::{ConnId, Mark, ToClient};
use bifro_core::client::Client;
use bifro_core::ids::{NodeIdx, ReqId, ShardId};
use bifro_core::message::Message;
use bifro_core::ports::{Dist, Inbox, Matches, PortError, Retain, Services};
use bifro_core::time::{Instant, earlier};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long a publish may take.
pub(crate) const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);
/// Until a publish is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Who waits for a message to be taken over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// A client.
    Client(ConnId, Mark),
    /// A shard of another node, which calls the publish so.
    Node(NodeIdx, ShardId, u64),
}

/// How far a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To all who listen.
    Everywhere,
    /// To those who listen here.
    Here,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    /// Completions still to come; the match counts as one.
    parts: u32,
    failed: Option<PortError>,
    /// For another try.
    again: Option<Arc<Message>>,
}

/// A message whose topic's receivers are being asked for.
#[derive(Debug)]
struct Unmatched {
    message: Arc<Message>,
    publish: ReqId,
    scope: Scope,
}

/// Publishes that are under way on this shard.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    waiting: BTreeMap<ReqId, Waiting>,
    deadlines: VecDeque<(Instant, ReqId)>,
    unmatched: BTreeMap<Arc<str>, VecDeque<Unmatched>>,
    retries: VecDeque<(Instant, ReqId, Arc<Message>)>,
}

impl Publishes {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(at, ..)| *at);
        earlier(self.deadlines.front().map(|(at, _)| *at), retry)
    }

    /// Another try would not do what has failed.
    pub(super) fn give_up_tries(&mut self, publish: ReqId) {
        if let Some(waiting) = self.waiting.get_mut(&publish) {
            waiting.again = None;
        }
    }

    fn keep(&mut self, publish: ReqId, message: &Arc<Message>) {
        let waiting = self.waiting.get_mut(&publish);
        if let Some(waiting) = waiting.filter(|waiting| waiting.parts > 1 && waiting.failed.is_none()) {
            waiting.again = Some(message.clone());
        }
    }
}

impl Shard {
    /// A client publishes, which is to be known by `publisher` where its message is retained.
    pub(super) fn publish(&mut self, conn: ConnId, mark: Mark, publisher: &Client) {
        let (message, publish) = (mark.message(), self.enter_publish(Waiter::Client(conn, mark)));
        if mark.is_retained() {
            self.open_part(publish);
            let (req, tenant) =
                (self.await_completion(Awaited::Part { publish, is_retained: true }), self.tenant.clone());
            self.services.set(self.now, req, &tenant, publisher, &message);
        }
        self.route(message, publish, Scope::Everywhere);
    }

    /// Enters a publish, whose match is its first part.
    pub(super) fn enter_publish(&mut self, waiter: Waiter) -> ReqId {
        let publish = self.next_req();
        self.publishes.waiting.insert(publish, Waiting { waiter, parts: 1, failed: None, again: None });
        self.publishes.deadlines.push_back((self.now + PUBLISH_DEADLINE, publish));
        publish
    }

    /// Another completion the publish waits for; none if nobody waits for the publish any more.
    pub(super) fn open_part(&mut self, publish: ReqId) -> Option<ReqId> {
        self.publishes.waiting.get_mut(&publish)?.parts += 1;
        Some(publish)
    }

    pub(super) fn route(&mut self, message: Arc<Message>, publish: ReqId, scope: Scope) {
        let topic: Arc<str> = message.topic().into();
        let waits_behind = self.publishes.unmatched.contains_key(&topic);
        let is_known = scope == Scope::Here || self.services.is_complete();
        if is_known
            && !waits_behind
            && let Some(matches) = self.services.matches(TENANT, &topic)
        {
            self.deliver_matched(&message, &matches, publish, scope);
            return self.publish_part_done(publish, Ok(()));
        }
        let queue = self.publishes.unmatched.entry(topic.clone()).or_default();
        queue.push_back(Unmatched { message, publish, scope });
        if queue.len() == 1 {
            self.ask_for_matches(&topic);
        }
    }

    /// The receivers of a topic are known: everything that waited for them goes out in order.
    pub(super) fn handle_matched(&mut self, topic: Arc<str>, matches: &Rc<Matches>) {
        if !self.services.is_complete() {
            // Since this was asked a range has lost its leader, whose sessions the answer may lack.
            return self.ask_for_matches(&topic);
        }
        for Unmatched { message, publish, scope } in self.publishes.unmatched.remove(&topic).unwrap_or_default() {
            self.deliver_matched(&message, matches, publish, scope);
            self.publish_part_done(publish, Ok(()));
        }
    }

    fn deliver_matched(&mut self, message: &Arc<Message>, matches: &Rc<Matches>, publish: ReqId, scope: Scope) {
        assert!(matches.live.is_empty() && matches.groups.is_empty(), "there are persistent sessions only");
        for (range, places) in &matches.inboxes {
            let req = match self.open_part(publish) {
                Some(publish) => self.await_completion(Awaited::Part { publish, is_retained: false }),
                None => self.next_req(),
            };
            self.services.insert(self.now, req, TENANT, (*range, places), message, None);
        }
        if scope == Scope::Everywhere {
            self.forward_to_nodes(message, matches, publish);
            if !matches.is_empty() {
                self.publishes.keep(publish, message);
            }
        }
    }

    /// One completion of a publish has come; after the last one its publisher is told.
    pub(super) fn publish_part_done(&mut self, publish: ReqId, result: Result<(), PortError>) {
        let Some(waiting) = self.publishes.waiting.get_mut(&publish) else { return };
        waiting.parts -= 1;
        waiting.failed = waiting.failed.or(result.err());
        if waiting.parts > 0 {
            return;
        }
        if waiting.failed == Some(PortError::Unavailable)
            && let Some(message) = waiting.again.take()
        {
            (waiting.failed, waiting.parts) = (None, 1);
            return self.publishes.retries.push_back((self.now + PAUSE, publish, message));
        }
        if let Some(Waiting { waiter, failed, .. }) = self.publishes.waiting.remove(&publish) {
            self.publish_decided(waiter, failed.map_or(Ok(()), Err));
        }
    }

    fn publish_decided(&mut self, waiter: Waiter, result: Result<(), PortError>) {
        match waiter {
            Waiter::Client(conn, mark) => self.outputs.clients.push((conn, ToClient::Published(mark, result.is_ok()))),
            Waiter::Node(node, shard, publish) => self.answer(node, shard, publish, result),
        }
    }

    /// Publishes that nobody took over in time fail; the publisher may retry.
    pub(super) fn expire_publishes(&mut self) {
        while let Some(&(deadline, publish)) = self.publishes.deadlines.front() {
            if deadline > self.now && self.publishes.waiting.contains_key(&publish) {
                break;
            }
            self.publishes.deadlines.pop_front();
            if let Some(waiting) = self.publishes.waiting.remove(&publish) {
                self.publish_decided(waiting.waiter, Err(PortError::Unavailable));
            }
        }
    }

    /// Routes those once more whose time has come, if their publishers still wait.
    pub(super) fn try_again(&mut self) {
        let now = self.now;
        while let Some((_, publish, message)) = self.publishes.retries.pop_front_if(|(at, ..)| *at <= now) {
            if self.publishes.waiting.contains_key(&publish) {
                self.route(message, publish, Scope::Everywhere);
                self.settle();
            }
        }
    }
}
