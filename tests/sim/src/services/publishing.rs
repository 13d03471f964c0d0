//! Publishes under way on a shard, as in bifro-net's `broker/publish.rs` and `broker/again.rs`: of QoS 1 and 2, to persistent sessions here and to other
//! nodes. What QoS 2 needs besides is in [`super::exactly_once`].
//!
//! Invariants as there: messages of one topic leave the shard in the order in which they came, also those that are tried again, and a publisher hears of
//! success when everybody has taken the message over.

use super::exactly_once::Exchange;
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{ConnId, Mark, Refusal, ToClient};
use bifro_core::client::Client;
use bifro_core::ids::{NodeIdx, PublisherKey, ReqId, ShardId};
use bifro_core::inquiry::{Groups, Holder};
use bifro_core::message::Message;
use bifro_core::ports::{Dist, GroupMatch, GroupName, Inbox, Matches, Origin, PortError, Retain, Services};
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
    /// A client, with QoS 1.
    Client(ConnId, Mark),
    /// A client, with QoS 2.
    Session { at: u32, mark: Mark, packet_id: u16 },
    /// A shard of another node, which calls the publish so.
    Node(NodeIdx, ShardId, u64),
}

/// How far a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// To all who listen.
    Everywhere,
    /// To those who listen here. What this node led when it came.
    Here { seen: u64 },
    /// To a member, here, of this group alone.
    Member(Rc<(Box<str>, GroupName)>),
}

/// Whose messages to which topic keep their order.
type Line = (PublisherKey, Arc<str>);

fn line(message: &Message) -> Line {
    (message.view().publisher, message.topic().into())
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    /// Completions still to come; the match counts as one.
    parts: u32,
    failed: Option<PortError>,
    /// QoS 2: what has to follow.
    exchange: Option<Exchange>,
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
    /// Publishes that have failed in part or as a whole, and those behind them; none: it still waits for its other parts.
    lines: BTreeMap<Line, BTreeMap<ReqId, Option<Arc<Message>>>>,
    /// When to look at each line.
    due: VecDeque<(Instant, Line)>,
}

impl Publishes {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let retry = self.due.front().map(|(at, _)| *at);
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

    /// A publish waits for so many completions more.
    pub(super) fn expect_parts(&mut self, publish: ReqId, parts: usize) {
        if let Some(waiting) = self.waiting.get_mut(&publish) {
            waiting.parts += parts as u32;
        }
    }

    /// Whose a QoS 2 publish is that connections are given; none if it is not recognised.
    pub(super) fn note_live(&mut self, publish: ReqId) -> Option<Origin> {
        let exchange = self.exchange_mut(publish)?;
        exchange.note(Holder::Live);
        Some(exchange.origin)
    }

    pub(super) fn exchange(&self, publish: ReqId) -> Option<&Exchange> {
        self.waiting.get(&publish)?.exchange.as_ref()
    }

    /// Whose a QoS 2 publish is; none if it is none.
    pub(super) fn exchange_waiter(&self, publish: ReqId) -> Option<Waiter> {
        self.waiting.get(&publish).filter(|waiting| waiting.exchange.is_some()).map(|waiting| waiting.waiter)
    }

    pub(super) fn exchange_mut(&mut self, publish: ReqId) -> Option<&mut Exchange> {
        self.waiting.get_mut(&publish)?.exchange.as_mut()
    }

    /// Somebody is given a publish, and may note it.
    pub(super) fn note(&mut self, publish: ReqId, holder: Holder) {
        if let Some(exchange) = self.exchange_mut(publish) {
            exchange.note(holder);
        }
    }

    /// Whoever waits is told otherwise: the publish is forgotten.
    pub(super) fn take(&mut self, publish: ReqId) -> Option<Waiter> {
        self.waiting.remove(&publish).map(|waiting| waiting.waiter)
    }

    /// Its receivers are known. False: they were before, and what is tried again goes to connections of this node only if it is of QoS 1.
    fn is_first_try(&self, publish: ReqId) -> bool {
        let exchange = self.waiting.get(&publish).and_then(|waiting| waiting.exchange.as_ref());
        !exchange.is_some_and(Exchange::is_handed_out)
    }

    /// Whether a QoS 2 publish has failed before anybody got it: then nobody does.
    fn has_failed_as_exchange(&self, publish: ReqId) -> bool {
        self.waiting.get(&publish).is_some_and(|waiting| waiting.exchange.is_some() && waiting.failed.is_some())
    }

    /// The receivers of a publish are known.
    fn hand_out(&mut self, publish: ReqId, to_groups: bool) {
        if let Some(exchange) = self.exchange_mut(publish) {
            exchange.hand_out(to_groups);
        }
    }

    /// Keeps what another try of a QoS 2 publish needs, before a part of it can fail.
    fn keep_exchange(&mut self, publish: ReqId, message: &Arc<Message>) {
        if let Some(waiting) = self.waiting.get_mut(&publish).filter(|waiting| waiting.exchange.is_some()) {
            waiting.again = Some(message.clone());
        }
    }

    /// All parts of a publish are done. The message, if they were questions of which groups have it: now it is routed.
    fn end_inquiry(&mut self, publish: ReqId) -> Option<Arc<Message>> {
        let waiting = self.waiting.get_mut(&publish).filter(|waiting| waiting.failed.is_none());
        let Waiting { exchange: Some(exchange), again, parts, .. } = waiting? else { return None };
        let message = again.take_if(|_| exchange.groups.settle())?;
        *parts = 1;
        Some(message)
    }

    /// What came from another node's shard and was not routed yet is not routed any more, since the link it came by has ended.
    pub(super) fn forget_unmatched(&mut self, node: NodeIdx, shard: ShardId) {
        let Self { waiting, unmatched, .. } = self;
        let is_its = |of: &Waiting| matches!(of.waiter, Waiter::Node(n, s, _) if (n, s) == (node, shard));
        for queue in unmatched.values_mut() {
            queue.retain(|of| {
                let stays = !waiting.get(&of.publish).is_some_and(is_its);
                if !stays {
                    waiting.remove(&of.publish);
                }
                stays
            });
        }
    }

    /// A publish waits for another try, or behind one that does.
    fn stand_in_line(&mut self, now: Instant, line: Line, publish: ReqId, message: Option<Arc<Message>>) {
        if !self.lines.contains_key(&line) {
            self.due.push_back((now + PAUSE, line.clone()));
        }
        self.lines.entry(line).or_default().insert(publish, message);
    }

    /// The first of a line, if it can be routed; those that nobody waits for are left out.
    fn next_of(&mut self, line: &Line) -> Option<(ReqId, Arc<Message>)> {
        let publishes = self.lines.get_mut(line)?;
        publishes.retain(|publish, _| self.waiting.contains_key(publish));
        let message = publishes.first_key_value().and_then(|(_, message)| message.clone());
        let next = message.and_then(|message| Some((publishes.pop_first()?.0, message)));
        if publishes.is_empty() {
            self.lines.remove(line);
        }
        next
    }
}

impl Shard {
    /// A client publishes with QoS 1, which is to be known by `publisher` where its message is retained.
    pub(super) fn publish(&mut self, conn: ConnId, mark: Mark, publisher: &Client) {
        let publish = self.next_req();
        self.enter_as(publish, Waiter::Client(conn, mark), None);
        self.retain_and_route(mark, publish, publisher);
    }

    pub(super) fn retain_and_route(&mut self, mark: Mark, publish: ReqId, publisher: &Client) {
        let message = mark.message();
        if mark.is_retained() {
            self.open_part(publish);
            let (req, tenant) =
                (self.await_completion(Awaited::Part { publish, is_retained: true }), self.tenant.clone());
            self.services.set(self.now, req, &tenant, publisher, &message);
        }
        self.route(message, publish, Scope::Everywhere);
    }

    /// Enters a publish, whose match is its first part.
    pub(super) fn enter_as(&mut self, publish: ReqId, waiter: Waiter, exchange: Option<Exchange>) {
        self.publishes.waiting.insert(publish, Waiting { waiter, parts: 1, failed: None, exchange, again: None });
        self.publishes.deadlines.push_back((self.now + PUBLISH_DEADLINE, publish));
    }

    /// Another completion the publish waits for; none if nobody waits for the publish any more.
    pub(super) fn open_part(&mut self, publish: ReqId) -> Option<ReqId> {
        self.publishes.waiting.get_mut(&publish)?.parts += 1;
        Some(publish)
    }

    pub(super) fn route(&mut self, message: Arc<Message>, publish: ReqId, scope: Scope) {
        let line = line(&message);
        if scope == Scope::Everywhere && self.publishes.lines.contains_key(&line) {
            return self.publishes.stand_in_line(self.now, line, publish, Some(message));
        }
        self.route_in_order(message, publish, scope);
    }

    fn route_in_order(&mut self, message: Arc<Message>, publish: ReqId, scope: Scope) {
        if scope == Scope::Everywhere && self.awaits_owner(publish) {
            return self.publishes.stand_in_line(self.now, line(&message), publish, Some(message));
        }
        let topic: Arc<str> = message.topic().into();
        let waits_behind = self.publishes.unmatched.contains_key(&topic);
        let is_known = scope != Scope::Everywhere || self.services.are_receivers_known();
        if is_known
            && !waits_behind
            && let Some(matches) = self.services.matches(TENANT, &topic)
        {
            self.deliver_matched(&message, &matches, publish, &scope);
            return self.publish_part_done(publish, Ok(()));
        }
        let queue = self.publishes.unmatched.entry(topic.clone()).or_default();
        // One that is tried again comes before those that were published after it.
        let publisher = message.view().publisher;
        let later = |of: &Unmatched| of.publish > publish && of.message.view().publisher == publisher;
        let at = queue.iter().position(later).unwrap_or(queue.len());
        queue.insert(at, Unmatched { message, publish, scope });
        if queue.len() == 1 {
            self.ask_for_matches(&topic);
        }
    }

    /// The receivers of a topic are known: everything that waited for them goes out in order.
    pub(super) fn handle_matched(&mut self, topic: Arc<str>, matches: &Rc<Matches>) {
        if !self.services.are_receivers_known() {
            // Since this was asked a range has lost its leader, whose sessions the answer may lack, or a node is there that has not been heard.
            return self.ask_for_matches(&topic);
        }
        for Unmatched { message, publish, scope } in self.publishes.unmatched.remove(&topic).unwrap_or_default() {
            if self.is_routed_no_more(publish) {
                continue;
            }
            let line = line(&message);
            let waits = self.awaits_owner(publish) || self.publishes.lines.contains_key(&line);
            if scope == Scope::Everywhere && waits {
                self.publishes.stand_in_line(self.now, line, publish, Some(message));
                continue;
            }
            self.deliver_matched(&message, matches, publish, &scope);
            self.publish_part_done(publish, Ok(()));
        }
    }

    fn deliver_matched(&mut self, message: &Arc<Message>, matches: &Rc<Matches>, publish: ReqId, scope: &Scope) {
        if let Scope::Member(group) = scope {
            let group = matches.groups.iter().find(|of| of.filter == group.0 && of.group == group.1);
            return self.deliver_to_member(message, group, publish);
        }
        let is_first = self.publishes.is_first_try(publish);
        if self.publishes.has_failed_as_exchange(publish) {
            return;
        }
        if *scope == Scope::Everywhere && !matches.is_empty() {
            self.publishes.keep_exchange(publish, message);
            if self.inquires(message, matches, publish) {
                return;
            }
        }
        let seen_now = self.services.reigns_seen();
        if !matches.inboxes.is_empty() && matches!(scope, Scope::Here { seen, .. } if *seen != seen_now) {
            // It may have been sent after one that fails.
            self.open_part(publish);
            return self.publish_part_done(publish, Err(PortError::Unavailable));
        }
        if is_first || *scope != Scope::Everywhere {
            self.deliver_to_connections(message, matches, publish);
        }
        for (range, places) in &matches.inboxes {
            let (mut req, mut origin) = (None, None);
            if let Some(publish) = self.open_part(publish) {
                req = Some(self.await_completion(Awaited::Part { publish, is_retained: false }));
                self.publishes.note(publish, Holder::Range(*range));
                origin = self.publishes.exchange(publish).map(|exchange| exchange.origin);
            }
            let req = req.unwrap_or_else(|| self.next_req());
            self.services.insert(self.now, req, TENANT, (*range, places), message, origin);
        }
        let is_found = |group: &GroupMatch| {
            self.publishes.exchange(publish).is_some_and(|exchange| exchange.groups.include(group))
        };
        let groups = matches.groups.iter().filter(|group| *scope == Scope::Everywhere && !is_found(group));
        for group in groups.cloned().collect::<Vec<_>>() {
            self.deliver_shared(message, &group, publish);
        }
        if *scope == Scope::Everywhere {
            self.publishes.hand_out(publish, !matches.groups.is_empty());
            self.forward_to_nodes(message, matches, publish);
            self.publishes.keep(publish, message);
        }
    }

    /// One completion of a publish has come; after the last one its publisher is told.
    pub(super) fn publish_part_done(&mut self, publish: ReqId, result: Result<(), PortError>) {
        let Some(waiting) = self.publishes.waiting.get_mut(&publish) else { return };
        waiting.parts -= 1;
        let failed_before = waiting.failed.is_some();
        waiting.failed = waiting.failed.or(result.err());
        if let (Some(exchange), Err(error)) = (&mut waiting.exchange, result) {
            exchange.doubt(error);
        }
        if waiting.parts == 0
            && let Some(message) = self.publishes.end_inquiry(publish)
        {
            return self.publishes.stand_in_line(self.now, line(&message), publish, Some(message));
        }
        let Some(waiting) = self.publishes.waiting.get_mut(&publish) else { return };
        let is_tried_again = waiting.failed == Some(PortError::Unavailable);
        let (parts, again) = (waiting.parts, waiting.again.clone().filter(|_| is_tried_again));
        if let Some(message) = again.filter(|_| !failed_before) {
            self.publishes.stand_in_line(self.now, line(&message), publish, None);
        }
        if parts > 0 {
            return;
        }
        let Some(waiting) = self.publishes.waiting.get_mut(&publish) else { return };
        if is_tried_again && let Some(message) = waiting.again.take() {
            (waiting.failed, waiting.parts) = (None, 1);
            return self.publishes.stand_in_line(self.now, line(&message), publish, Some(message));
        }
        if self.goes_on_as_exchange(publish) {
            return;
        }
        if let Some(waiting) = self.publishes.waiting.remove(&publish) {
            let result = waiting.failed.map_or(Ok(()), Err);
            self.publish_decided(&waiting, result);
        }
    }

    /// All parts of a publish are done, or have failed. True if it is an exchange that has more to do.
    fn goes_on_as_exchange(&mut self, publish: ReqId) -> bool {
        let Some(waiting) = self.publishes.waiting.get_mut(&publish) else { return false };
        let (waiter, failed) = (waiting.waiter, waiting.failed.is_some());
        if matches!(waiter, Waiter::Node(..)) {
            return false;
        }
        let Some(mut exchange) = waiting.exchange.take() else { return false };
        waiting.again = None;
        let has_left = self.has_left(waiter);
        let parts = self.advance_exchange(publish, &mut exchange, failed, has_left);
        let (Some(parts), Some(waiting)) = (parts, self.publishes.waiting.get_mut(&publish)) else { return false };
        (waiting.parts, waiting.exchange) = (parts, Some(exchange));
        true
    }

    fn publish_decided(&mut self, waiting: &Waiting, result: Result<(), PortError>) {
        match waiting.waiter {
            Waiter::Client(conn, mark) => {
                self.give_up(mark, result);
                self.outputs.clients.push((conn, ToClient::Published(mark, result.is_ok())));
            }
            Waiter::Session { at, mark, packet_id } => {
                if result == Err(PortError::NotOwner) {
                    // Another connection has the session, and the client repeats the publish there.
                    self.close(at);
                }
                if !self.has_left(waiting.waiter) {
                    self.give_up(mark, result);
                }
                self.once_decided(at, packet_id, result.is_ok());
            }
            Waiter::Node(node, shard, publish) => {
                if let Some(Groups::Asking(found)) = waiting.exchange.as_ref().map(|exchange| &exchange.groups) {
                    return self.answer_inquiry((node, shard), publish, found.clone());
                }
                let noted = waiting.exchange.as_ref().map(|exchange| (exchange.is_live(), exchange.ranges()));
                let result = result.map(|()| noted.unwrap_or_default());
                self.answer(node, shard, publish, result.map_err(Refusal::Port));
            }
        }
    }

    fn give_up(&mut self, mark: Mark, result: Result<(), PortError>) {
        if result.is_err() {
            self.outputs.given_up.push(mark);
        }
    }

    /// Publishes that nobody took over in time fail; the publisher may retry. Not those of which nobody can say whether they have.
    pub(super) fn expire_publishes(&mut self) {
        while let Some(&(deadline, publish)) = self.publishes.deadlines.front() {
            let waiting = self.publishes.waiting.get(&publish);
            if deadline > self.now && waiting.is_some() {
                break;
            }
            self.publishes.deadlines.pop_front();
            let Some(waiting) = waiting else { continue };
            let (waiter, has_left) = (waiting.waiter, self.has_left(waiting.waiter));
            let is_undecidable = waiting.exchange.as_ref().is_some_and(Exchange::is_undecidable);
            if is_undecidable && !has_left && matches!(waiter, Waiter::Session { .. }) {
                self.publishes.deadlines.push_back((self.now + PUBLISH_DEADLINE, publish));
                continue;
            }
            let Some(waiting) = self.publishes.waiting.remove(&publish) else { continue };
            let is_noted = waiting.exchange.as_ref().is_some_and(Exchange::is_noted);
            let result = if waiting.failed.is_none() && is_noted { Ok(()) } else { Err(PortError::Unavailable) };
            self.publish_decided(&waiting, result);
        }
    }

    /// Routes those once more whose time has come, and those behind them, if their publishers still wait.
    pub(super) fn try_again(&mut self) {
        let now = self.now;
        while let Some((_, line)) = self.publishes.due.pop_front_if(|(at, _)| *at <= now) {
            while let Some((publish, message)) = self.publishes.next_of(&line) {
                if self.is_routed_no_more(publish) {
                    continue;
                }
                self.route_in_order(message, publish, Scope::Everywhere);
                if self.publishes.lines.get(&line).is_some_and(|publishes| publishes.contains_key(&publish)) {
                    // It has failed at once, and would do so again.
                    break;
                }
            }
            let Publishes { lines, due, .. } = &mut self.publishes;
            if lines.contains_key(&line) && !due.iter().any(|(_, of)| *of == line) {
                due.push_back((now + PAUSE, line));
            }
            self.settle();
        }
    }

    /// A publish is routed once more, when it is known which groups have it, and others wait for it meanwhile.
    pub(super) fn wait_to_inquire(&mut self, message: &Arc<Message>, publish: ReqId) {
        self.publishes.stand_in_line(self.now, line(message), publish, None);
    }

    /// Whether a publish was said to have failed while it waited, or fails now since its client has left, which repeats it.
    fn is_routed_no_more(&mut self, publish: ReqId) -> bool {
        let Some(waiting) = self.publishes.waiting.get(&publish) else { return true };
        let is_left = waiting.exchange.is_some() && self.has_left(waiting.waiter);
        if is_left {
            self.publish_part_done(publish, Err(PortError::Unavailable));
        }
        is_left
    }

    /// Nobody knows whether inboxes here will have what is on its way to them.
    pub(super) fn insertions_lost(&mut self) {
        let waiting = &self.publishes.waiting;
        let is_retried = |of: &ReqId| waiting.get(of).is_some_and(|waiting| waiting.again.is_some());
        let is_insertion = |_: &ReqId, awaited: &mut Awaited| matches!(awaited, Awaited::Part { publish, is_retained: false } if is_retried(publish));
        let lost: Vec<_> = self.requests.extract_if(.., is_insertion).collect();
        for (_, awaited) in lost {
            if let Awaited::Part { publish, .. } = awaited {
                self.publish_part_done(publish, Err(PortError::Unavailable));
            }
        }
    }
}
