//! Carrying out what a session wants done.

use super::Broker;
use super::completion::Awaited;
use super::conn::{Conn, Deadline, PauseReasons};
use super::fanout::{Entry, Route, Subscriber};
use bifro_core::event::Event;
use bifro_core::ids::{ConnRef, NodeIdx, Slot};
use bifro_core::plugin::{AuthOutcome, AuthRequest};
use bifro_core::ports::{AttachTerms, GroupName, InboxOwner, Origin, Receiver, Services, SubOptions};
use bifro_core::tenant::{TenantCtx, TenantName};
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{Closed, Cx, Effect, Identity, Outbox, Session, Token};
use std::rc::Rc;
use std::sync::Arc;

/// A subscription as the session asks for it.
struct Subscription {
    token: Token,
    full: Box<str>,
    filter: Box<str>,
    group: Option<GroupName>,
    options: SubOptions,
}

impl<S: Services> Broker<S> {
    /// Calls the session of a connection, then looks after what it left behind: effects to carry out, bytes to send, a timer.
    pub(super) fn with_session<R>(
        &mut self,
        slot: Slot,
        call: impl FnOnce(&mut Session, &Cx<'_>, &mut Outbox<'_>) -> R,
    ) -> Option<R> {
        let conn = self.conns.get_mut(slot)?;
        let cx = Cx {
            now: self.now,
            tenant: self.tenants.ctx(conn.session.tenant()),
            authorizer: &*self.authorizer,
            over_budget: self.budget.is_exhausted(),
        };
        conn.congested = conn.congested || conn.outgoing_bytes() > self.budget.high_water_bytes();
        self.wires.supply(&mut conn.wire);
        let mut out = Outbox {
            wire: &mut conn.wire,
            effects: &mut self.effect_scratch,
            tally: &mut self.tally,
            congested: conn.congested,
            share: self.settings.turn_bytes_per_conn,
        };
        let result = call(&mut conn.session, &cx, &mut out);
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
        if conn.paused.has(PauseReasons::SESSION) && conn.session.wants_packets() {
            self.resumable.push(slot);
        }
        if !conn.admitted && conn.session.is_connected() {
            conn.admitted = true;
            // The time for CONNECT is no longer running.
            conn.deadline = Deadline::None;
            self.metrics.sessions.add(1);
            self.metrics.connects_accepted.add(1);
        }
        if let Some(at) = conn.next_alarm() {
            self.wheel.schedule(slot, at);
        }
        if !self.effect_scratch.is_empty() {
            self.effects.extend(self.effect_scratch.drain(..).map(|effect| (slot, effect)));
        }
        Some(result)
    }

    /// Moves what sessions have counted into the metrics.
    pub(super) fn count_tally(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let metrics = &self.metrics;
        metrics.publishes_sent.add(tally.publishes_sent.into());
        metrics.dropped_qos0_slow.add(tally.dropped_slow.into());
        metrics.dropped_queue_full.add(tally.dropped_queue_full.into());
        metrics.dropped_oversize.add(tally.dropped_oversize.into());
        metrics.dropped_expired.add(tally.dropped_expired.into());
        metrics.dropped_permission.add(tally.dropped_permission.into());
        metrics.publish_rate_exceeded.add(tally.publish_rate_exceeded.into());
    }

    pub(super) fn carry_out(&mut self, slot: Slot, effect: Effect) {
        match effect {
            Effect::Authenticate(request) => self.authenticate(slot, *request),
            Effect::Identify(identity) => self.identify(slot, &identity),
            Effect::Register => self.register(slot),
            Effect::Attach(terms) => self.attach(slot, terms),
            Effect::Discard => self.discard(slot),
            Effect::Subscribe { token, full, filter, group, options, .. } => {
                self.subscribe(slot, Subscription { token, full, filter, group, options });
            }
            Effect::Unsubscribe { token, full, filter, group } => {
                self.unsubscribe(slot, token, &full, &filter, group.as_ref());
            }
            Effect::FindRetained { token, filter } => {
                let Some(conn) = self.conns.get(slot) else { return };
                let tenant = self.tenants.ctx(conn.session.tenant()).clone();
                let req = self.await_completion(Awaited::Retained(slot, token));
                self.services.ask().find(self.now, req, &tenant, &filter);
            }
            Effect::PublishWill(will) => {
                let Some((client, tenant)) = self.identity(slot) else { return };
                self.publish_will(tenant, &client, &will);
            }
            Effect::Commit(done) => self.with_inbox(slot, |services, now, owner| services.commit(now, owner, done)),
            Effect::Reattach(in_hand) => {
                self.metrics.inboxes_moved.add(1);
                self.with_inbox(slot, |services, now, owner| services.reattach(now, owner, in_hand));
            }
            Effect::Hold { seq, packet_id } => {
                let req = self.await_completion(Awaited::Held(slot, packet_id));
                self.with_inbox(slot, |services, now, owner| services.hold(now, req, owner, seq));
            }
            Effect::Release { packet_id } => {
                let Some((inbox, epoch)) = self.conns.get(slot).and_then(|conn| conn.session.inbox()) else { return };
                let req = self.await_completion(Awaited::Released(slot, packet_id));
                let origin = Origin::new(inbox, epoch, packet_id.get(), 0);
                self.services.ask().release(self.now, req, origin);
            }
            Effect::Detach { state, undecided } => self.leave(slot, *state, undecided),
            Effect::Redeliver { filter, group, message } => {
                let Some((_, tenant)) = self.identity(slot) else { return };
                // Only a session that has ended gives back: it must not be found among the members any more.
                self.leave_all_entries(slot);
                self.redeliver(tenant, &filter, &group, message);
            }
            Effect::Unregister => self.give_up_client_id(slot),
            Effect::Reidentified(_) => self.schedule(slot),
            Effect::Close(closed) => self.session_closed(slot, closed),
            Effect::Event(event) => self.report(event),
        }
    }

    fn authenticate(&mut self, slot: Slot, request: AuthRequest) {
        if self.turn_away(slot) {
            return;
        }
        let req = self.await_answer(slot, Awaited::Auth(slot));
        if let Some(outcome) = self.authenticator.start(req, request, self.now) {
            self.handle_auth(req, outcome);
        }
    }

    /// The tenant named so; this shard's services and the other shards hear of it first.
    pub(super) fn meet_tenant(&mut self, name: &TenantName) -> Option<Arc<TenantCtx>> {
        let (tenant, new) = self.tenants.meet(name)?;
        if new {
            self.services.ask().set_tenant(tenant.clone());
            self.broadcast_tenant(&tenant);
        }
        Some(tenant)
    }

    /// Counts refusals of the authentication chain.
    pub(super) fn count_outcome(&self, outcome: &AuthOutcome) {
        if matches!(outcome, AuthOutcome::Refused(_)) {
            self.metrics.auth_failures.add(1);
        }
    }

    fn identify(&mut self, slot: Slot, identity: &Identity) {
        let Some(tenant) = self.meet_tenant(&identity.client.tenant) else {
            self.with_session(slot, |session, cx, out| session.close(cx, Reason::SERVER_BUSY, None, out));
            return;
        };
        let key = bifro_core::ids::publisher_key(self.settings.seed, &tenant.name, &identity.client.client_id);
        // The session's tenant is known with this call only, so the context is made here.
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.shaper = super::shaping::Shaper::new(&tenant.settings, self.now);
        let over_budget = self.budget.is_exhausted();
        let cx = Cx { now: self.now, tenant: &tenant, authorizer: &*self.authorizer, over_budget };
        self.wires.supply(&mut conn.wire);
        let mut out = Outbox {
            wire: &mut conn.wire,
            effects: &mut self.effect_scratch,
            tally: &mut self.tally,
            congested: false,
            share: self.settings.turn_bytes_per_conn,
        };
        conn.session.handle_identified(&cx, tenant.idx, key, &mut out);
        self.effects.extend(self.effect_scratch.drain(..).map(|effect| (slot, effect)));
    }

    fn register(&mut self, slot: Slot) {
        let Some((client, tenant)) = self.identity(slot) else { return };
        let tenant = self.tenants.ctx(tenant).clone();
        let req = self.await_answer(slot, Awaited::Register(slot));
        let conn = self.conn_ref(slot);
        self.services.ask().register(self.now, req, conn, &client, &tenant);
    }

    fn attach(&mut self, slot: Slot, terms: AttachTerms) {
        let Some((client, tenant)) = self.identity(slot) else { return };
        let tenant = self.tenants.ctx(tenant).clone();
        let req = self.await_answer(slot, Awaited::Attach(slot));
        let conn = self.conn_ref(slot);
        self.services.ask().attach(self.now, req, conn, &client, &tenant, terms);
    }

    fn discard(&mut self, slot: Slot) {
        let Some((client, tenant)) = self.identity(slot) else { return };
        let tenant = self.tenants.ctx(tenant).clone();
        let req = self.await_answer(slot, Awaited::Discard(slot));
        self.services.ask().discard(self.now, req, &client, &tenant);
    }

    fn subscribe(&mut self, slot: Slot, subscription: Subscription) {
        let Some(conn) = self.conns.get(slot) else { return };
        if conn.session.is_persistent() {
            let req = self.await_completion(Awaited::InboxSubscribe(slot, subscription.token));
            let (full, options) = (subscription.full, subscription.options);
            self.with_inbox(slot, |services, now, owner| services.subscribe(now, req, owner, &full, options));
            return;
        }
        let tenant = conn.session.tenant();
        let Subscription { token, filter, group, options, .. } = subscription;
        let existing = match &group {
            None => self.fanout.find(tenant, &filter),
            Some(group) => self.fanout.find_of(&conn.subs, &filter, Some(group)),
        };
        let subscriber = Subscriber { conn: slot, options, key: conn.session.publisher_key() };
        let place = match existing {
            Some(place) => {
                if !self.fanout.replace(&self.conns, place, slot, options) {
                    self.fanout.subscribe(&mut self.conns, place, subscriber);
                }
                place
            }
            None => self.subscribe_first(tenant, &filter, group, subscriber),
        };
        self.metrics.subscriptions.set(self.fanout.subscriptions() as u64);
        match self.fanout.entry_mut(place).map(|entry| &mut entry.route) {
            Some(Route::Adding(_, waiting)) => waiting.push((slot, token)),
            Some(Route::Added) => {
                self.with_session(slot, |session, cx, out| session.handle_subscribed(cx, token, Ok(()), out));
            }
            None => {}
        }
    }

    /// The first subscriber of a filter on this shard: dist has to learn of it.
    fn subscribe_first(
        &mut self,
        tenant: bifro_core::ids::TenantIdx,
        filter: &str,
        group: Option<GroupName>,
        subscriber: Subscriber,
    ) -> Slot {
        let req = self.next_req_id();
        let place = self.fanout.create(Entry {
            tenant,
            filter: Rc::from(filter),
            group: group.clone().map(Rc::new),
            subscribers: Vec::new(),
            route: Route::Adding(req, Vec::new()),
        });
        self.requests.insert(req, Awaited::Route(place));
        self.fanout.subscribe(&mut self.conns, place, subscriber);
        let receiver = Receiver::Live { shard: self.shard, slot: place };
        let tenant = self.tenants.ctx(tenant).clone();
        self.services.ask().add_route(self.now, req, &tenant, filter, group.as_ref(), receiver);
        place
    }

    fn unsubscribe(&mut self, slot: Slot, token: Token, full: &str, filter: &str, group: Option<&GroupName>) {
        let Some(conn) = self.conns.get(slot) else { return };
        if conn.session.is_persistent() {
            let req = self.await_completion(Awaited::InboxUnsubscribe(slot, token));
            self.with_inbox(slot, |services, now, owner| services.unsubscribe(now, req, owner, full));
            return;
        }
        if let Some(place) = self.fanout.find_of(&conn.subs, filter, group) {
            self.leave_entry(place, slot);
        }
        self.with_session(slot, |session, cx, out| session.handle_unsubscribed(cx, token, out));
    }

    /// Removes a connection from a place of the fan-out table, and the place's route with its last subscriber.
    pub(super) fn leave_entry(&mut self, place: Slot, conn: Slot) {
        if let Some(entry) = self.fanout.unsubscribe(&mut self.conns, place, conn) {
            let receiver = Receiver::Live { shard: self.shard, slot: place };
            let group = entry.group.as_deref();
            self.services.ask().remove_route(self.now, entry.tenant, &entry.filter, group, receiver);
            // Subscriptions that still waited for the route have come and gone: they are answered all the same
            // [MQTT-3.8.4-1] [MQTT5-3.8.4-1].
            if let Route::Adding(req, waiting) = entry.route {
                self.requests.remove(&req);
                for (conn, token) in waiting {
                    self.with_session(conn, |session, cx, out| session.handle_subscribed(cx, token, Ok(()), out));
                }
            }
        }
        self.metrics.subscriptions.set(self.fanout.subscriptions() as u64);
    }

    /// A session that leaves its inbox gives up its client id when the inbox says so; others at once.
    fn give_up_client_id(&mut self, slot: Slot) {
        let Some((client, tenant)) = self.identity(slot) else { return };
        if self.conns.get(slot).is_some_and(|conn| !conn.leaving) {
            let conn = self.conn_ref(slot);
            self.unregister(conn, &client, tenant);
        }
    }

    fn session_closed(&mut self, slot: Slot, closed: Closed) {
        self.metrics.disconnects.add(1);
        match closed {
            Closed::Refused(_) => self.metrics.connects_refused.add(1),
            Closed::Violation(_) => self.metrics.protocol_violations.add(1),
            Closed::ByClient | Closed::Transport | Closed::Server(_) => {}
        }
        let awaiting = self.conns.get_mut(slot).and_then(Conn::take_awaited);
        if let Some((req, Awaited::Auth(_))) = awaiting.and_then(|req| Some((req, self.requests.remove(&req)?))) {
            self.authenticator.cancel(req);
        }
        self.leave_all_entries(slot);
        self.begin_closing(slot);
    }

    fn leave_all_entries(&mut self, slot: Slot) {
        while let Some(sub) = self.conns.get(slot).and_then(|conn| conn.subs.last().copied()) {
            let Some(place) = self.fanout.place(sub.entry) else { break };
            self.leave_entry(place, slot);
        }
    }

    /// Calls the services on behalf of the connection's inbox.
    fn with_inbox(&mut self, slot: Slot, call: impl FnOnce(&mut S, bifro_core::time::Instant, InboxOwner<'_>)) {
        let conn_ref = self.conn_ref(slot);
        let Some(conn) = self.conns.get(slot) else { return };
        let (Some(client), Some((inbox, epoch))) = (conn.session.client(), conn.session.inbox()) else { return };
        let owner = InboxOwner { conn: conn_ref, client, tenant: conn.session.tenant(), inbox, epoch };
        call(self.services.ask(), self.now, owner);
    }

    pub(super) fn identity(&self, slot: Slot) -> Option<(bifro_core::client::Client, bifro_core::ids::TenantIdx)> {
        let session = &self.conns.get(slot)?.session;
        Some((session.client()?.clone(), session.tenant()))
    }

    pub(super) const fn conn_ref(&self, slot: Slot) -> ConnRef {
        ConnRef { node: NodeIdx::HERE, shard: self.shard, slot }
    }

    pub(super) fn next_req_id(&mut self) -> bifro_core::ids::ReqId {
        self.next_req += 1;
        bifro_core::ids::ReqId(self.next_req)
    }

    fn await_completion(&mut self, awaited: Awaited) -> bifro_core::ids::ReqId {
        let req = self.next_req_id();
        self.requests.insert(req, awaited);
        req
    }

    /// As [`Broker::await_completion`], for the one request a session's handshake waits for: it need not be answered if the
    /// session ends first, so it is forgotten then.
    fn await_answer(&mut self, slot: Slot, awaited: Awaited) -> bifro_core::ids::ReqId {
        let req = self.await_completion(awaited);
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.await_answer(req);
        }
        req
    }

    pub(super) fn report(&self, event: Event) {
        (self.events)(&event);
    }
}
