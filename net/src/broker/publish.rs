//! Routing a publish: match, deliver here, hand over to other shards and inboxes, retain, and tell the publisher once
//! everybody has taken the message over.
//!
//! # Invariants
//! - Messages of one topic leave this shard in the order in which they were published: while a match is being asked for,
//!   later messages of the topic queue behind the first.
//! - A publish in the table has at least one open part; it leaves with its last part or at its deadline, whichever is first.

use super::Broker;
use super::again::{Again, Retries};
use super::completion::Awaited;
use super::exactly_once::Exchange;
use super::shared::is_all_here;
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{NodeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{GroupName, LivePlaces, Matches, PortError, Services};
use bifro_core::settings::Resource;
use bifro_core::time::{Instant, earlier};
use bifro_mqtt::codec::Fanout;
use bifro_mqtt::session::{Cx, Delivery, Outbox, PublishToken, Published};
use hashbrown::{Equivalent, HashMap};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Deadlines of publishes that are done are swept out once there are this many more of them than of others.
const SPENT_DEADLINES_MAX: usize = 1_024;

/// Who waits for a message to be taken over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// A session.
    Session(Slot, PublishToken),
    /// A shard of another node, which calls the publish so.
    Node(NodeIdx, ShardId, u64),
}

/// Who hears when a message has been taken over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Publisher {
    /// Nobody: QoS 0, wills.
    Nobody,
    /// Somebody, and so far nobody else has to be waited for: most publishes are done before they are entered anywhere.
    Waits(Waiter),
    /// Somebody, by way of the publish table.
    Entered(ReqId),
}

/// How far a message goes.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// To all who listen.
    Everywhere,
    /// It comes from another node, which sees to the other nodes and to groups: to those who listen here.
    Here,
    /// As [`Scope::Here`], but that node does not know this one's groups: also to groups that have all their members here.
    HereAndOwnGroups,
    /// To a member, here, of this group alone: filter without prefix, and name.
    Member(Rc<(Box<str>, GroupName)>),
}

/// A QoS 1 or 2 publish whose publisher waits.
#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    /// Completions still to come; the match counts as one.
    parts: u32,
    matched: bool,
    failed: Option<PortError>,
    /// QoS 2 of a client with a durable inbox: what has to follow.
    exchange: Option<Box<Exchange>>,
    /// For another try.
    again: Option<Box<Again>>,
}

/// A message whose topic's receivers are being asked for.
#[derive(Debug)]
struct Unmatched {
    message: Arc<Message>,
    publisher: Publisher,
    scope: Scope,
}

/// A topic of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TopicKey(TenantIdx, Rc<str>);

/// A [`TopicKey`] to look for.
#[derive(Hash)]
struct TopicKeyRef<'a>(TenantIdx, &'a str);

impl Equivalent<TopicKey> for TopicKeyRef<'_> {
    fn equivalent(&self, key: &TopicKey) -> bool {
        self.0 == key.0 && *self.1 == *key.1
    }
}

/// Publishes that are under way on this shard.
#[derive(Debug, Default)]
pub(super) struct PublishTable {
    waiting: HashMap<ReqId, Waiting>,
    /// Deadlines in order, since all publishes get the same time; some of publishes that are done.
    deadlines: VecDeque<(Instant, ReqId)>,
    unmatched: HashMap<TopicKey, VecDeque<Unmatched>>,
    unmatched_bytes: u64,
    pub(super) retries: Retries,
}

impl PublishTable {
    /// Bytes of messages that wait for their match.
    pub(super) const fn unmatched_bytes(&self) -> u64 {
        self.unmatched_bytes
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        earlier(self.deadlines.front().map(|deadline| deadline.0), self.retries.next_at())
    }

    pub(super) fn is_waiting(&self, publish: ReqId) -> bool {
        self.waiting.contains_key(&publish)
    }

    /// Keeps what another try needs, if the publish has parts besides its match.
    pub(super) fn keep(&mut self, publish: ReqId, again: impl FnOnce() -> Again) {
        let waiting = self.waiting.get_mut(&publish);
        if let Some(waiting) = waiting.filter(|waiting| waiting.parts > 1 && waiting.failed.is_none()) {
            waiting.again = Some(Box::new(again()));
        }
    }

    /// Another try would not do what has failed.
    pub(super) fn give_up_tries(&mut self, publish: ReqId) {
        if let Some(waiting) = self.waiting.get_mut(&publish) {
            waiting.again = None;
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.unmatched.is_empty() && self.unmatched_bytes == 0
    }

    fn enter(&mut self, publish: ReqId, waiting: Waiting, deadline: Instant) {
        self.waiting.insert(publish, waiting);
        if self.deadlines.len() >= 2 * self.waiting.len() + SPENT_DEADLINES_MAX {
            self.deadlines.retain(|(_, publish)| self.waiting.contains_key(publish));
        }
        self.deadlines.push_back((deadline, publish));
    }
}

impl<S: Services> Broker<S> {
    /// Routes a message, and retains it for `retain_for`. The publisher, if it waits, hears in this call or later, once.
    pub(super) fn route(
        &mut self,
        tenant: TenantIdx,
        view: MessageView<'_>,
        retain_for: Option<Client>,
        waiting: Option<(Slot, PublishToken)>,
    ) {
        let mut publisher =
            waiting.map_or(Publisher::Nobody, |(conn, token)| Publisher::Waits(Waiter::Session(conn, token)));
        if let (QoS::ExactlyOnce, Some((conn, _))) = (view.qos, waiting)
            && self.conns.get(conn).is_some_and(|conn| conn.session.has_durable_inbox())
        {
            self.enter_publish(&mut publisher);
        }
        self.route_to(tenant, view, retain_for, publisher, Scope::Everywhere);
    }

    /// As [`Broker::route`], but no farther than `scope`.
    pub(super) fn route_to(
        &mut self,
        tenant: TenantIdx,
        view: MessageView<'_>,
        retain_for: Option<Client>,
        mut publisher: Publisher,
        scope: Scope,
    ) {
        let owned = retain_for.map(|client| {
            let message = view.to_message();
            self.retain(tenant, client, &message, &mut publisher);
            message
        });
        let waits_behind = !self.publishes.unmatched.is_empty()
            && self.publishes.unmatched.contains_key(&TopicKeyRef(tenant, view.topic));
        let is_known = !matches!(scope, Scope::Everywhere) || self.services.peek().is_complete();
        if is_known
            && !waits_behind
            && let Some(matches) = self.services.cached().matches(tenant, view.topic)
        {
            self.deliver_matched(tenant, view, owned, &matches, &mut publisher, &scope);
            self.publish_matched(publisher, !matches.is_empty());
            return;
        }
        self.enter_publish(&mut publisher);
        let message = owned.unwrap_or_else(|| view.to_message());
        self.publishes.unmatched_bytes += message.footprint_bytes() as u64;
        let key = TopicKey(tenant, view.topic.into());
        let queue = self.publishes.unmatched.entry(key.clone()).or_default();
        queue.push_back(Unmatched { message, publisher, scope });
        if queue.len() == 1 {
            self.ask_for_matches(tenant, key.1);
        }
    }

    fn ask_for_matches(&mut self, tenant: TenantIdx, topic: Rc<str>) {
        let req = self.next_req_id();
        self.requests.insert(req, Awaited::Match { tenant, topic: topic.clone() });
        self.services.ask().request_matches(self.now, req, tenant, &topic);
    }

    /// The receivers of a topic are known: everything that waited for them goes out in order.
    pub(super) fn handle_matched(&mut self, tenant: TenantIdx, topic: Rc<str>, matches: &Rc<Matches>) {
        if !self.services.peek().is_complete() {
            // Since this was asked a range has lost its leader, whose sessions the answer may lack.
            return self.ask_for_matches(tenant, topic);
        }
        let Some(queue) = self.publishes.unmatched.remove(&TopicKey(tenant, topic)) else { return };
        for Unmatched { message, mut publisher, scope } in queue {
            self.publishes.unmatched_bytes -= message.footprint_bytes() as u64;
            let owned = Some(message.clone());
            self.deliver_matched(tenant, message.view(), owned, matches, &mut publisher, &scope);
            self.publish_matched(publisher, !matches.is_empty());
        }
    }

    fn deliver_matched(
        &mut self,
        tenant: TenantIdx,
        view: MessageView<'_>,
        mut owned: Option<Arc<Message>>,
        matches: &Rc<Matches>,
        publisher: &mut Publisher,
        scope: &Scope,
    ) {
        if let Scope::Member(group) = scope {
            let message = owned.unwrap_or_else(|| view.to_message());
            self.deliver_to_member(tenant, &message, group, matches, publisher);
            return;
        }
        for (shard, places) in &matches.live {
            if *shard == self.shard {
                self.deliver_live(tenant, &view, owned.as_ref(), places);
                continue;
            }
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            let publish = self.open_part(publisher).map(|req| req.0);
            let deliver = super::ShardMessage::Deliver { tenant, message, places: places.clone(), publish };
            self.to_peers.push((*shard, deliver));
        }
        if !matches.inboxes.is_empty() {
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            self.insert_into_inboxes(tenant, &message, matches, publisher);
        }
        if !matches.groups.is_empty() && !matches!(scope, Scope::Here) {
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            self.deliver_to_groups(tenant, &message, matches, publisher, scope);
        }
        if matches!(scope, Scope::Everywhere) {
            self.forward_to_nodes(tenant, &view, matches, publisher);
            if matches.is_empty() {
                self.metrics.publishes_unmatched.add(1);
            } else {
                self.keep_for_another_try(tenant, &view, owned, *publisher);
            }
        }
    }

    fn deliver_to_groups(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        matches: &Matches,
        publisher: &mut Publisher,
        scope: &Scope,
    ) {
        let most = match self.tenants.ctx(tenant).settings.group_fanout_max as usize {
            0 => usize::MAX,
            most => most,
        };
        if matches.groups.len() > most {
            let detail = format!("more than {most} groups");
            self.report(Event::of(EventKind::GroupFanoutThrottled, None, detail).on(message.topic()));
        }
        for group in matches.groups.iter().take(most) {
            if matches!(scope, Scope::Everywhere) || is_all_here(group) {
                self.deliver_shared(tenant, message, group, publisher);
            }
        }
    }

    fn insert_into_inboxes(
        &mut self,
        tenant: TenantIdx,
        message: &Arc<Message>,
        matches: &Matches,
        publisher: &mut Publisher,
    ) {
        let inboxes = matches.inboxes.iter().map(|(_, places)| places.len() as u64).sum::<u64>();
        if let Some((kind, detail)) = self.persistent_fanout_refused(tenant, message, inboxes) {
            self.report(Event::of(kind, None, detail).on(message.topic()));
            if let Some(part) = self.open_part(publisher) {
                self.publish_part_done(part, Err(PortError::QuotaExceeded));
            }
            return;
        }
        for (range, places) in &matches.inboxes {
            let req = self.next_req_id();
            let mut origin = None;
            if let Some(publish) = self.open_part(publisher) {
                self.requests.insert(req, Awaited::PublishPart(publish));
                let waiting = self.publishes.waiting.get_mut(&publish);
                if let Some(exchange) = waiting.and_then(|waiting| waiting.exchange.as_deref_mut()) {
                    exchange.note_range(*range);
                    origin = Some(exchange.origin);
                }
            }
            self.services.ask().insert(self.now, req, tenant, (*range, places), message, origin);
        }
    }

    fn persistent_fanout_refused(
        &self,
        tenant: TenantIdx,
        message: &Message,
        inboxes: u64,
    ) -> Option<(EventKind, String)> {
        let ctx = self.tenants.ctx(tenant);
        let bytes = inboxes.saturating_mul(message.footprint_bytes() as u64);
        if self.budget.is_exhausted() {
            return Some((EventKind::ServerBusy, "memory budget exhausted".into()));
        }
        let (most, most_bytes) = (ctx.settings.persistent_fanout_max, ctx.settings.persistent_fanout_bytes_max);
        if most != 0 && inboxes > u64::from(most) {
            return Some((
                EventKind::PersistentFanoutThrottled,
                format!("{inboxes} sessions, persistent_fanout_max {most}"),
            ));
        }
        if most_bytes != 0 && bytes > most_bytes {
            let detail = format!("{bytes} bytes, persistent_fanout_bytes_max {most_bytes}");
            return Some((EventKind::PersistentFanoutBytesThrottled, detail));
        }
        if !ctx.quota.spend(Resource::TotalPersistentFanOutBytesPerSeconds, bytes, self.now) {
            let detail = Resource::TotalPersistentFanOutBytesPerSeconds.key().into();
            return Some((EventKind::OutOfTenantResource, detail));
        }
        None
    }

    fn retain(&mut self, tenant: TenantIdx, client: Client, message: &Arc<Message>, publisher: &mut Publisher) {
        let req = self.next_req_id();
        let publish = self.open_part(publisher);
        let tenant = self.tenants.ctx(tenant).clone();
        let cleared = message.payload().is_empty();
        if self.budget.is_exhausted() && !cleared {
            self.requests.insert(req, Awaited::Retain { publish, message: message.clone(), client });
            self.handle_retain_set(req, Err(PortError::QuotaExceeded));
            return;
        }
        self.requests.insert(req, Awaited::Retain { publish, message: message.clone(), client: client.clone() });
        self.services.ask().set(self.now, req, &tenant, &client, message);
    }

    /// Fans a message out to this shard's subscribers.
    pub(super) fn deliver_live(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        owned: Option<&Arc<Message>>,
        places: &LivePlaces,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut fanout = Fanout::with_scratch(*view, owned.cloned(), self.now, &mut scratch);
        let bytes = (view.topic.len() + view.payload.len()) as u64;
        match **places {
            [place] => self.deliver_to_entry(tenant, &mut fanout, place, bytes),
            _ => {
                let mut merged = std::mem::take(&mut self.merged);
                self.fanout.merge(places, view.publisher, &mut merged);
                if self.may_fan_out(tenant, bytes * merged.len() as u64) {
                    for one in &merged {
                        self.deliver_one(tenant, &mut fanout, one.conn, one.options, &one.ids, None);
                    }
                }
                self.merged = merged;
            }
        }
        drop(fanout);
        self.scratch = scratch;
    }

    fn deliver_to_entry(&mut self, tenant: TenantIdx, fanout: &mut Fanout<'_>, place: Slot, bytes: u64) {
        // The table cannot change meanwhile: deliveries only write to wires and queues. Its subscribers are taken out for the
        // loop so that the rest of the shard stays reachable.
        let Some(entry) = self.fanout.entry_mut(place) else { return };
        let subscribers = std::mem::take(&mut entry.subscribers);
        if self.may_fan_out(tenant, bytes * subscribers.len() as u64) {
            for subscriber in &subscribers {
                if subscriber.options.no_local && subscriber.key == fanout.view.publisher {
                    continue;
                }
                let id = subscriber.options.subscription_id;
                self.deliver_one(tenant, fanout, subscriber.conn, subscriber.options, id.as_slice(), None);
            }
        }
        if let Some(entry) = self.fanout.entry_mut(place) {
            entry.subscribers = subscribers;
        }
    }

    fn may_fan_out(&self, tenant: TenantIdx, bytes: u64) -> bool {
        let quota = &self.tenants.ctx(tenant).quota;
        quota.spend(Resource::TotalTransientFanOutBytesPerSeconds, bytes, self.now)
    }

    /// Delivers to one connection.
    pub(super) fn deliver_one(
        &mut self,
        tenant: TenantIdx,
        fanout: &mut Fanout<'_>,
        conn: Slot,
        options: bifro_core::ports::SubOptions,
        ids: &[std::num::NonZeroU32],
        shared: Option<(&str, &bifro_core::ports::GroupName)>,
    ) {
        self.work += 1;
        let Some(conn) = self.conns.get_mut(conn) else { return };
        if conn.closing {
            return;
        }
        let delivery = Delivery {
            qos: options.qos.min(fanout.view.qos),
            // [MQTT-3.3.1-9], [MQTT5-3.3.1-12], [MQTT5-3.3.1-13]
            retain: options.retain_as_published && fanout.view.retain,
            subscription_ids: ids,
            check: options.check_deliveries,
            seq: None,
            shared,
        };
        let cx =
            Cx { now: self.now, tenant: self.tenants.ctx(tenant), authorizer: &*self.authorizer, over_budget: false };
        conn.congested = conn.congested || conn.outgoing_bytes() > self.budget.high_water_bytes();
        let congested = conn.congested;
        self.wires.supply(&mut conn.wire);
        let mut out = Outbox {
            wire: &mut conn.wire,
            effects: &mut self.effect_scratch,
            tally: &mut self.tally,
            congested,
            share: self.settings.turn_bytes_per_conn,
        };
        conn.session.deliver(&cx, fanout, &delivery, &mut out);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(conn.slot);
        }
        let slot = conn.slot;
        // The message may have to be sent again some time.
        if delivery.qos != QoS::AtMostOnce
            && let Some(at) = conn.next_alarm()
        {
            self.wheel.schedule(slot, at);
        }
        if !self.effect_scratch.is_empty() {
            self.effects.extend(self.effect_scratch.drain(..).map(|effect| (slot, effect)));
        }
    }

    /// Enters the publish in the table, if somebody waits for it and it is not there yet.
    fn enter_publish(&mut self, publisher: &mut Publisher) -> Option<ReqId> {
        match *publisher {
            Publisher::Nobody => None,
            Publisher::Entered(publish) => Some(publish),
            Publisher::Waits(waiter) => {
                let publish = self.next_req_id();
                let exchange = match waiter {
                    Waiter::Session(conn, token) => self.exchange_of(conn, token),
                    Waiter::Node(..) => None,
                };
                let waiting = Waiting { waiter, parts: 1, matched: false, failed: None, exchange, again: None };
                self.publishes.enter(publish, waiting, self.now + self.settings.publish_deadline);
                *publisher = Publisher::Entered(publish);
                Some(publish)
            }
        }
    }

    /// Another completion the publish waits for; none if nobody waits for the publish (any more).
    pub(super) fn open_part(&mut self, publisher: &mut Publisher) -> Option<ReqId> {
        let publish = self.enter_publish(publisher)?;
        self.publishes.waiting.get_mut(&publish)?.parts += 1;
        Some(publish)
    }

    /// Whoever waits is told otherwise: the publish is forgotten.
    pub(super) fn take_waiter(&mut self, publisher: &mut Publisher) -> Option<Waiter> {
        match std::mem::replace(publisher, Publisher::Nobody) {
            Publisher::Nobody => None,
            Publisher::Waits(waiter) => Some(waiter),
            Publisher::Entered(publish) => self.publishes.waiting.remove(&publish).map(|waiting| waiting.waiter),
        }
    }

    fn publish_matched(&mut self, publisher: Publisher, matched: bool) {
        match publisher {
            Publisher::Nobody => {}
            Publisher::Waits(Waiter::Session(conn, token)) => {
                let outcome = Published::Done { matched };
                self.with_session(conn, |session, cx, out| session.handle_published(cx, token, outcome, out));
            }
            Publisher::Waits(Waiter::Node(node, shard, publish)) => self.answer(node, shard, publish, Ok(())),
            Publisher::Entered(publish) => {
                if let Some(waiting) = self.publishes.waiting.get_mut(&publish) {
                    waiting.matched = matched;
                }
                self.publish_part_done(publish, Ok(()));
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
            && let Some(again) = waiting.again.take()
        {
            (waiting.failed, waiting.parts) = (None, 1);
            return self.publishes.retries.push(self.now, publish, *again);
        }
        if let Some(mut exchange) = waiting.exchange.take() {
            let failed = waiting.failed.is_some();
            let parts = self.advance_exchange(publish, &mut exchange, failed);
            if let (Some(parts), Some(waiting)) = (parts, self.publishes.waiting.get_mut(&publish)) {
                waiting.parts = parts;
                waiting.exchange = Some(exchange);
                return;
            }
        }
        let Some(waiting) = self.publishes.waiting.remove(&publish) else { return };
        let outcome = match waiting.failed {
            None => Published::Done { matched: waiting.matched },
            Some(error) => Published::Failed(error),
        };
        self.publish_decided(&waiting, outcome);
    }

    /// Tells the publisher, or whoever waits in its place since it left.
    fn publish_decided(&mut self, waiting: &Waiting, outcome: Published) {
        match waiting.waiter {
            Waiter::Session(conn, token) => {
                self.with_session(conn, |session, cx, out| session.handle_published(cx, token, outcome, out));
                self.departing_publish_decided(conn, token, outcome);
            }
            Waiter::Node(node, shard, publish) => self.answer_decided(node, shard, publish, outcome),
        }
    }

    /// Publishes that nobody took over in time fail; the publisher may retry.
    pub(super) fn expire_publishes(&mut self) {
        while let Some(&(deadline, publish)) = self.publishes.deadlines.front() {
            let open = self.publishes.waiting.contains_key(&publish);
            if open && deadline > self.now {
                break;
            }
            self.publishes.deadlines.pop_front();
            if let Some(waiting) = self.publishes.waiting.remove(&publish) {
                self.metrics.publish_timeouts.add(1);
                let is_noted = waiting.exchange.as_ref().is_some_and(|exchange| exchange.is_noted());
                let outcome = match waiting.failed {
                    None if is_noted => Published::Done { matched: waiting.matched },
                    _ => Published::Failed(PortError::Unavailable),
                };
                if let Some(exchange) = &waiting.exchange {
                    self.abandon_exchange(exchange);
                }
                self.publish_decided(&waiting, outcome);
            }
        }
    }

    /// Publishes a will on behalf of a client that has gone.
    pub(super) fn publish_will(&mut self, tenant: TenantIdx, client: &Client, will: &Arc<Message>) {
        let view = will.view();
        self.metrics.wills_published.add(1);
        self.report(Event::of(EventKind::WillDisted, Some(client), "will published").on(view.topic));
        self.route(tenant, view, view.retain.then(|| client.clone()), None);
    }
}
