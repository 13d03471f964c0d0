//! Completions of the ports, brought to whoever waits for them.

use super::Broker;
use super::fanout::Route;
use super::publish::Publisher;
use super::shared::{GroupTurn, WaitsOn};
use bifro_core::client::Client;
use bifro_core::delivered::Over;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ConnRef, NodeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::message::Message;
use bifro_core::plugin::AuthOutcome;
use bifro_core::ports::{Attached, Completion, GroupMatch, InboxMessage, Origin, PortError, Services};
use bifro_core::time::Instant;
use bifro_mqtt::packet::PacketId;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::Token;
use std::rc::Rc;
use std::sync::Arc;

/// Who waits for a request.
#[derive(Debug)]
pub(super) enum Awaited {
    /// A session, for the authentication chain.
    Auth(Slot),
    /// A session, to own its client id.
    Register(Slot),
    /// A session, for its inbox.
    Attach(Slot),
    /// A transient session, for an old inbox to go.
    Discard(Slot),
    /// A session that left its inbox gives up its client id afterwards.
    Leave { conn: ConnRef, client: Client, tenant: TenantIdx },
    /// Subscriptions that wait for the route of this place of the fan-out table.
    Route(Slot),
    /// A persistent session's subscription.
    InboxSubscribe(Slot, Token),
    /// A persistent session's unsubscription.
    InboxUnsubscribe(Slot, Token),
    /// A session's lookup of retained messages.
    Retained(Slot, Token),
    /// Messages of a topic wait for their receivers.
    Match { tenant: TenantIdx, topic: Rc<str> },
    /// A message for a group.
    Group { tenant: TenantIdx, message: Arc<Message> },
    /// A message for a group waits for a member of another node.
    Member {
        tenant: TenantIdx,
        message: Arc<Message>,
        group: Arc<GroupMatch>,
        turn: GroupTurn,
        publish: WaitsOn,
        origin: Option<Box<Origin>>,
    },
    /// A publish waits for a node to say which groups have it.
    Inquired(ReqId),
    /// A session, for its inbox to note a PUBREC.
    Held(Slot, PacketId),
    /// A session, for its inbox to forget an identifier.
    Released(Slot, PacketId),
    /// A publish waits for inboxes to store it.
    PublishPart(ReqId),
    /// A publish waits for a node to forget it.
    Forgotten { node: NodeIdx, publish: ReqId, over: Box<Over> },
    /// A publish of some shard waits for the inbox of a group's member.
    GroupPart((ShardId, u64)),
    /// A retained message is being set.
    Retain { publish: Option<ReqId>, message: Arc<Message>, client: Client },
}

/// The services, and whether they have been asked for anything since they were last drained: most messages do not concern
/// them, and draining them costs more than delivering a message.
#[derive(Debug)]
pub(super) struct Asked<S> {
    services: S,
    asked: bool,
}

impl<S> Asked<S> {
    pub(super) const fn new(services: S) -> Self {
        Self { services, asked: false }
    }

    /// For a call after which they have to be drained.
    pub(super) const fn ask(&mut self) -> &mut S {
        self.asked = true;
        &mut self.services
    }

    pub(super) const fn peek(&self) -> &S {
        &self.services
    }

    /// For looking up matches, which asks nothing of anybody.
    pub(super) const fn cached(&mut self) -> &mut S {
        &mut self.services
    }
}

impl<S: Services> Asked<S> {
    /// [`Services::begin_turn`]; there is something to drain if it says so.
    pub(super) fn begin_turn(&mut self, now: Instant) {
        self.asked |= self.services.begin_turn(now);
    }

    /// [`Services::poll`]; there is something to drain if it says so.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let worked = self.services.poll(now);
        self.asked |= worked;
        worked
    }

    /// [`Services::end_turn`]; there is something to drain if it says so.
    pub(super) fn end_turn(&mut self, now: Instant) -> bool {
        self.asked |= self.services.end_turn(now);
        self.asked
    }
}

impl<S: Services> Broker<S> {
    /// Carries out what sessions and services have asked for, until nothing is left.
    pub(super) fn settle(&mut self) {
        while self.services.asked || !self.effects.is_empty() {
            if std::mem::take(&mut self.services.asked) {
                self.services.services.drain(&mut self.services_out);
                let sends = self.services_out.sends.drain(..);
                self.to_peers.extend(sends.map(|(shard, message)| (shard, super::ShardMessage::Service(message))));
                let mut remote = std::mem::take(&mut self.services_out.remote);
                for send in remote.drain(..) {
                    self.send_service(&send);
                }
                self.services_out.remote = remote;
                let mut completions = std::mem::take(&mut self.services_out.completions);
                for completion in completions.drain(..) {
                    self.handle_completion(completion);
                }
                self.services_out.completions = completions;
            }
            while let Some((slot, effect)) = self.effects.pop_front() {
                self.carry_out(slot, effect);
            }
        }
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Registered { req } => {
                if let Some(Awaited::Register(slot)) = self.requests.remove(&req) {
                    self.handshake_answered(slot);
                    self.with_session(slot, |session, cx, out| session.handle_registered(cx, out));
                }
            }
            Completion::Kick { conn } => {
                self.metrics.takeovers.add(1);
                self.with_session(conn.slot, |session, cx, out| {
                    session.close(cx, Reason::SESSION_TAKEN_OVER, None, out);
                });
            }
            Completion::InboxMoved { conn } => {
                self.with_session(conn.slot, |session, _, out| session.handle_inbox_moved(out));
            }
            Completion::InboxLost { conn } => {
                self.metrics.inboxes_lost.add(1);
                self.with_session(conn.slot, |session, cx, out| session.close(cx, Reason::SERVER_BUSY, None, out));
            }
            Completion::LeaderLost { node } => self.leader_lost(node),
            Completion::TenantFound { name } => {
                // One too many is served as the default tenant, as its clients are refused.
                let _ = self.meet_tenant(&name);
            }
            Completion::RouteAdded { req, result } => self.handle_route_added(req, result),
            Completion::Matched { req, matches } => match self.requests.remove(&req) {
                Some(Awaited::Match { tenant, topic }) => self.handle_matched(tenant, topic, &matches),
                Some(Awaited::Group { tenant, message }) => {
                    if let Some(group) = matches.groups.first() {
                        self.deliver_shared(tenant, &message, group, &mut Publisher::Nobody);
                    }
                }
                _ => {}
            },
            Completion::Attached { req, result } => self.handle_attached(req, result),
            Completion::Detached { req } => self.handle_detached(req),
            Completion::InboxSubscribed { req, result } => self.handle_inbox_subscribed(req, result.map(|_existed| ())),
            Completion::InboxUnsubscribed { req, .. } => {
                if let Some(Awaited::InboxUnsubscribe(slot, token)) = self.requests.remove(&req) {
                    self.with_session(slot, |session, cx, out| session.handle_unsubscribed(cx, token, out));
                }
            }
            Completion::Inserted { req, result } => match self.requests.remove(&req) {
                Some(Awaited::PublishPart(publish)) => self.publish_part_done(publish, result),
                Some(Awaited::GroupPart(publish)) => self.group_part_done(Some(publish), result),
                _ => {}
            },
            Completion::InboxDone { req, result } => self.handle_inbox_done(req, result),
            Completion::Found { req, groups } => self.range_found(req, &groups),
            Completion::InboxPush { conn, messages } => self.handle_push(conn, messages),
            Completion::RetainSet { req, result } => self.handle_retain_set(req, result),
            Completion::Retained { req, messages } => {
                if let Some(Awaited::Retained(slot, token)) = self.requests.remove(&req) {
                    self.with_session(slot, |session, cx, out| session.handle_retained(cx, token, messages, out));
                }
            }
            Completion::WillDue { client, will } => {
                if let Some(tenant) = self.meet_tenant(&client.tenant) {
                    self.publish_will(tenant.idx, &client, &will);
                }
            }
            Completion::Redeliver { tenant, filter, group, message } => {
                self.redeliver(tenant, &filter, &group, message);
            }
            Completion::Event(event) => self.report(event),
        }
    }

    fn handle_push(&mut self, conn: ConnRef, messages: Vec<InboxMessage>) {
        self.work += messages.len();
        self.with_session(conn.slot, |session, cx, out| session.handle_inbox(cx, messages, out));
    }

    fn handle_inbox_subscribed(&mut self, req: ReqId, result: Result<(), PortError>) {
        if let Some(Awaited::InboxSubscribe(slot, token)) = self.requests.remove(&req) {
            self.with_session(slot, |session, cx, out| session.handle_subscribed(cx, token, result, out));
        }
    }

    /// A step of a QoS 2 exchange is safe; or another connection has the session, and its client hears nothing more over this one.
    fn handle_inbox_done(&mut self, req: ReqId, result: Result<(), PortError>) {
        match self.requests.remove(&req) {
            Some(Awaited::PublishPart(publish)) => self.publish_part_done(publish, result),
            Some(_) if result.is_err() => {}
            Some(Awaited::Held(slot, packet_id)) => {
                self.with_session(slot, |session, cx, out| session.handle_held(cx, packet_id, out));
            }
            Some(Awaited::Released(slot, packet_id)) => {
                self.with_session(slot, |session, _, out| session.handle_released(packet_id, out));
            }
            _ => {}
        }
    }

    fn handle_route_added(&mut self, req: ReqId, result: Result<(), PortError>) {
        let Some(Awaited::Route(place)) = self.requests.remove(&req) else { return };
        let Some(entry) = self.fanout.entry_mut(place) else { return };
        let waiting = match std::mem::replace(&mut entry.route, Route::Added) {
            Route::Adding(expected, waiting) if expected == req => waiting,
            other => {
                entry.route = other;
                return;
            }
        };
        if result.is_err() {
            for &(conn, _) in &waiting {
                self.fanout.unsubscribe(&mut self.conns, place, conn);
            }
        }
        for (conn, token) in waiting {
            self.with_session(conn, |session, cx, out| session.handle_subscribed(cx, token, result, out));
        }
    }

    fn handle_attached(&mut self, req: ReqId, result: Result<Box<Attached>, PortError>) {
        let Some(Awaited::Attach(slot) | Awaited::Discard(slot)) = self.requests.remove(&req) else { return };
        self.handshake_answered(slot);
        if let Ok(attached) = &result {
            self.settle_delivered(attached);
        }
        self.with_session(slot, |session, cx, out| session.handle_attached(cx, result, out));
    }

    /// The request a session's handshake waited for has been answered.
    fn handshake_answered(&mut self, slot: Slot) {
        if let Some(conn) = self.conns.get_mut(slot) {
            conn.take_awaited();
        }
    }

    fn handle_detached(&mut self, req: ReqId) {
        match self.requests.remove(&req) {
            Some(Awaited::Discard(slot)) => {
                let empty = Ok(Box::<Attached>::default());
                self.handshake_answered(slot);
                self.with_session(slot, |session, cx, out| session.handle_attached(cx, empty, out));
            }
            Some(Awaited::Leave { conn, client, tenant }) => self.unregister(conn, &client, tenant),
            _ => {}
        }
    }

    pub(super) fn unregister(&mut self, conn: ConnRef, client: &Client, tenant: TenantIdx) {
        let tenant = self.tenants.ctx(tenant).clone();
        self.services.ask().unregister(self.now, conn, client, &tenant);
    }

    pub(super) fn handle_retain_set(&mut self, req: ReqId, result: Result<(), PortError>) {
        let Some(Awaited::Retain { publish, message, client }) = self.requests.remove(&req) else { return };
        let (kind, detail) = match result {
            Err(error) => (EventKind::MsgRetainedError, format!("not retained: {error:?}")),
            Ok(()) if message.payload().is_empty() => (EventKind::RetainMsgCleared, "retained message cleared".into()),
            Ok(()) => (EventKind::MsgRetained, format!("{} bytes retained", message.payload().len())),
        };
        self.report(Event::of(kind, Some(&client), detail).on(message.topic()));
        if let Some(publish) = publish {
            if result.is_err() {
                self.publishes.give_up_tries(publish);
            }
            self.publish_part_done(publish, result);
        }
    }

    /// The authentication chain has answered.
    pub(super) fn handle_auth(&mut self, req: ReqId, outcome: AuthOutcome) {
        if let Some(Awaited::Auth(slot)) = self.requests.remove(&req) {
            self.handshake_answered(slot);
            self.count_outcome(&outcome);
            self.with_session(slot, |session, cx, out| session.handle_auth(cx, outcome, out));
        }
    }
}
