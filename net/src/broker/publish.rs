//! Routing a publish: match, deliver here, hand over to other shards and inboxes, retain, and tell the publisher once
//! everybody has taken the message over.
//!
//! # Invariants
//! - Messages of one topic leave this shard in the order in which they were published: while a match is being asked for,
//!   later messages of the topic queue behind the first, and so do those behind one that is tried again ([`super::again`]).
//! - A publish in the table has at least one open part; it leaves with its last part or at its deadline, whichever is first.

mod table;

pub(super) use table::{Parts, PublishTable, Publisher, Scope, Waiter, Waiting};

use super::Broker;
use super::again::line_of;
use super::completion::Awaited;
use super::exactly_once::Exchange;
use super::shared::is_all_here;
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ReqId, Slot, TenantIdx};
use bifro_core::inquiry::Holder;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{Matches, PortError, Services};
use bifro_core::settings::Resource;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{PublishToken, Published};
use std::rc::Rc;
use std::sync::Arc;
use table::{TopicKey, TopicKeyRef, Unmatched};

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
        self.route_to(tenant, view, retain_for, publisher, Scope::Everywhere(Parts::ALL));
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
        if let Scope::Everywhere(parts) = scope
            && !matches!(publisher, Publisher::Nobody)
            && self.publishes.retries.concern(tenant, &view)
        {
            self.enter_publish(&mut publisher);
            let message = owned.unwrap_or_else(|| view.to_message());
            return self.wait_in_line(tenant, message, parts, publisher);
        }
        self.route_in_order(tenant, view, owned, publisher, scope);
    }

    /// As [`Broker::route_to`], for a message before which no other one is to be tried again.
    pub(super) fn route_in_order(
        &mut self,
        tenant: TenantIdx,
        view: MessageView<'_>,
        owned: Option<Arc<Message>>,
        mut publisher: Publisher,
        scope: Scope,
    ) {
        if let Scope::Everywhere(parts) = scope
            && self.awaits_owner(publisher)
        {
            let message = owned.unwrap_or_else(|| view.to_message());
            return self.wait_in_line(tenant, message, parts, publisher);
        }
        let services = self.services.peek();
        let is_known = match scope {
            Scope::Everywhere(_) if view.qos == QoS::AtMostOnce => services.is_complete(),
            Scope::Everywhere(_) => services.are_receivers_known(),
            Scope::Here(_) | Scope::Member(_) => true,
        };
        if is_known && let Some(matches) = self.known_receivers(tenant, view.topic) {
            self.deliver_matched(tenant, view, owned, &matches, &mut publisher, &scope);
            self.publish_matched(publisher, !matches.is_empty());
            return;
        }
        self.enter_publish(&mut publisher);
        let message = owned.unwrap_or_else(|| view.to_message());
        self.publishes.unmatched_bytes += message.footprint_bytes() as u64;
        let key = TopicKey(tenant, view.topic.into());
        let queue = self.publishes.unmatched.entry(key.clone()).or_default();
        // One that is tried again comes before those that were published after it.
        let behind = match publisher {
            Publisher::Entered(publish) => queue.iter().position(|of| of.is_behind(publish, message.view().publisher)),
            _ => None,
        };
        let reigns_seen = self.services.peek().reigns_seen();
        queue.insert(behind.unwrap_or(queue.len()), Unmatched { message, publisher, scope, reigns_seen });
        if queue.len() == 1 {
            self.ask_for_matches(tenant, key.1);
        }
    }

    /// The receivers of a topic, if they are remembered and no earlier message waits for them.
    pub(super) fn known_receivers(&mut self, tenant: TenantIdx, topic: &str) -> Option<Rc<Matches>> {
        let waits_behind =
            !self.publishes.unmatched.is_empty() && self.publishes.unmatched.contains_key(&TopicKeyRef(tenant, topic));
        if waits_behind { None } else { self.services.cached().matches(tenant, topic) }
    }

    fn ask_for_matches(&mut self, tenant: TenantIdx, topic: Rc<str>) {
        let req = self.next_req_id();
        self.requests.insert(req, Awaited::Match { tenant, topic: topic.clone() });
        self.services.ask().request_matches(self.now, req, tenant, &topic);
    }

    /// The receivers of a topic are known: everything that waited for them goes out in order.
    pub(super) fn handle_matched(&mut self, tenant: TenantIdx, topic: Rc<str>, matches: &Rc<Matches>) {
        if !self.services.peek().are_receivers_known() {
            // Since this was asked a range has lost its leader, whose sessions the answer may lack, or a node is there that has not been heard.
            return self.ask_for_matches(tenant, topic);
        }
        let Some(queue) = self.publishes.unmatched.remove(&TopicKey(tenant, topic)) else { return };
        for Unmatched { message, mut publisher, scope, reigns_seen } in queue {
            self.publishes.unmatched_bytes -= message.footprint_bytes() as u64;
            if self.is_routed_no_more(publisher) {
                continue;
            }
            let is_ordered = self.keeps_order(message.view().qos, publisher);
            match scope {
                Scope::Everywhere(parts)
                    if self.awaits_owner(publisher)
                        || is_ordered && self.publishes.retries.concern(tenant, &message.view()) =>
                {
                    self.wait_in_line(tenant, message, parts, publisher);
                    continue;
                }
                Scope::Here(_)
                    if is_ordered
                        && !matches.inboxes.is_empty()
                        && reigns_seen != self.services.peek().reigns_seen() =>
                {
                    self.refuse_late(publisher);
                    continue;
                }
                _ => {}
            }
            let owned = Some(message.clone());
            self.deliver_matched(tenant, message.view(), owned, matches, &mut publisher, &scope);
            self.publish_matched(publisher, !matches.is_empty());
        }
    }

    /// Hands a message to its receivers, groups included, as far as `scope` says.
    pub(super) fn deliver_matched(
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
        if view.qos == QoS::ExactlyOnce {
            if self.publishes.has_failed_as_exchange(*publisher) {
                return;
            }
            if let Scope::Everywhere(parts) = *scope {
                self.keep_exchange(tenant, &view, &mut owned, matches, *publisher);
                if self.inquires(&view, matches, parts, *publisher) {
                    return;
                }
            }
        }
        let (Scope::Everywhere(parts) | Scope::Here(parts)) = *scope else { return };
        let origin = match view.qos {
            QoS::ExactlyOnce if parts.live && !matches.live.is_empty() && self.services.peek().is_replicated() => {
                self.publishes.note_live(*publisher)
            }
            _ => None,
        };
        for (shard, places) in matches.live.iter().filter(|_| parts.live) {
            if *shard == self.shard {
                if self.is_undelivered(origin.as_deref(), &view) {
                    self.deliver_live(tenant, &view, owned.as_ref(), places);
                }
                continue;
            }
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            let publish = self.open_part(publisher).map(|req| req.0);
            let deliver = super::ShardMessage::Deliver {
                tenant,
                message,
                places: places.clone(),
                origin: origin.clone(),
                publish,
            };
            self.to_peers.push((*shard, deliver));
        }
        if !matches.inboxes.is_empty() {
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            self.insert_into_inboxes(tenant, &message, matches, publisher);
        }
        if !matches.groups.is_empty() && parts.groups {
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            self.deliver_to_groups(tenant, &message, matches, publisher, scope);
        }
        if matches!(scope, Scope::Everywhere(_)) {
            self.note_handing_out(view.qos, *publisher, !matches.groups.is_empty());
            self.forward_to_nodes(tenant, &view, matches, publisher);
            self.metrics.publishes_unmatched.add(u64::from(matches.is_empty()));
            self.keep_for_another_try(tenant, &view, owned, *publisher);
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
            let is_ours = matches!(scope, Scope::Everywhere(_)) || is_all_here(group);
            let is_recognised = message.view().qos == QoS::ExactlyOnce;
            if is_ours && !(is_recognised && self.publishes.is_found_in(*publisher, group)) {
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
                    exchange.note(Holder::Range(*range));
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

    /// Enters the publish in the table, if somebody waits for it and it is not there yet.
    fn enter_publish(&mut self, publisher: &mut Publisher) -> Option<ReqId> {
        match *publisher {
            Publisher::Nobody => None,
            Publisher::Entered(publish) => Some(publish),
            Publisher::Waits(waiter) => {
                let publish = self.next_req_id();
                let exchange = match waiter {
                    Waiter::Session(conn, token) => self.exchange_of(conn, token, publish),
                    Waiter::Node(..) => None,
                };
                self.enter_as(publish, waiter, exchange);
                *publisher = Publisher::Entered(publish);
                Some(publish)
            }
        }
    }

    /// Enters a publish, whose match is its first part.
    pub(super) fn enter_as(&mut self, publish: ReqId, waiter: Waiter, exchange: Option<Box<Exchange>>) {
        let waiting = Waiting { waiter, parts: 1, matched: false, failed: None, exchange, again: None };
        self.publishes.enter(publish, waiting, self.now + self.settings.publish_deadline);
    }

    /// Whether a message stays in order with those that are tried again.
    pub(super) fn keeps_order(&self, qos: QoS, publisher: Publisher) -> bool {
        match (qos, publisher) {
            (QoS::AtMostOnce, _) | (_, Publisher::Nobody) => false,
            (QoS::AtLeastOnce, _) => true,
            (QoS::ExactlyOnce, Publisher::Entered(publish)) => self.publishes.is_exchange(publish),
            (QoS::ExactlyOnce, Publisher::Waits(_)) => false,
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
        let is_first_failure = waiting.failed.is_none() && result.is_err();
        waiting.failed = waiting.failed.or(result.err());
        if let (Some(exchange), Err(error)) = (&mut waiting.exchange, result) {
            exchange.doubt(error);
        }
        if waiting.failed == Some(PortError::Unavailable)
            && let Some(again) = &waiting.again
        {
            if is_first_failure {
                self.publishes.retries.hold(self.now, line_of(again), publish);
            }
            if waiting.parts == 0
                && let Some(again) = waiting.again.take()
            {
                (waiting.failed, waiting.parts) = (None, 1);
                return self.publishes.retries.push(self.now, publish, *again);
            }
        }
        if waiting.parts > 0 {
            return;
        }
        if waiting.is_exchange() && (self.ends_inquiry(publish) || self.goes_on_as_exchange(publish)) {
            return;
        }
        let Some(waiting) = self.publishes.waiting.remove(&publish) else { return };
        let outcome = match waiting.failed {
            None => Published::Done { matched: waiting.matched },
            Some(error) => Published::Failed(error),
        };
        self.publish_decided(&waiting, outcome);
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
        waiting.parts = parts;
        waiting.exchange = Some(exchange);
        true
    }

    /// Tells the publisher, or whoever waits in its place since it left.
    fn publish_decided(&mut self, waiting: &Waiting, outcome: Published) {
        match waiting.waiter {
            Waiter::Session(conn, token) => {
                self.with_session(conn, |session, cx, out| match outcome {
                    // Another connection has the session, and the client repeats the publish there.
                    Published::Failed(PortError::NotOwner) => session.close(cx, Reason::SESSION_TAKEN_OVER, None, out),
                    outcome => session.handle_published(cx, token, outcome, out),
                });
                self.departing_publish_decided(conn, token, outcome);
            }
            Waiter::Node(node, shard, publish) => {
                self.answer_decided((node, shard), publish, outcome, waiting.exchange.as_deref());
            }
        }
    }

    /// Publishes that nobody took over in time fail; the publisher may retry. Not those of which nobody can say whether they have: the publisher waits.
    pub(super) fn expire_publishes(&mut self) {
        while let Some(&(deadline, publish)) = self.publishes.deadlines.front() {
            let waiting = self.publishes.waiting.get(&publish);
            if waiting.is_some() && deadline > self.now {
                break;
            }
            self.publishes.deadlines.pop_front();
            let Some(waiting) = waiting else { continue };
            let (waiter, has_left) = (waiting.waiter, self.has_left(waiting.waiter));
            let is_undecidable = waiting.exchange.as_ref().is_some_and(|exchange| exchange.is_undecidable());
            if is_undecidable && !has_left && matches!(waiter, Waiter::Session(..)) {
                self.publishes.deadlines.push_back((self.now + self.settings.publish_deadline, publish));
                continue;
            }
            let Some(waiting) = self.publishes.waiting.remove(&publish) else { continue };
            self.metrics.publish_timeouts.add(1);
            let is_noted = waiting.exchange.as_ref().is_some_and(|exchange| exchange.is_noted());
            let outcome = match waiting.failed {
                None if is_noted => Published::Done { matched: waiting.matched },
                _ => Published::Failed(PortError::Unavailable),
            };
            self.publish_decided(&waiting, outcome);
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
