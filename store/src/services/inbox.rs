//! The inboxes' port.

use super::RangeServices;
use super::dist::Origin as RouteOrigin;
use super::leading::inbox_range;
use super::message::{Asked, AskedAs, Inbox as InboxRequest, Message, Step};
use super::mutation::Mutation;
use super::ranges::{Machine, Service};
use super::wire::{Remote, RemoteInbox};
use crate::host::{Host, ReadDone};
use crate::kv::Scan;
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ConnRef, InboxSeq, NodeIdx, RangeId, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::message::{Message as Published, QoS};
use bifro_core::ports::{
    AttachTerms, Attached, Completion, DetachState, InHand, Inbox, InboxOwner, InboxPlaces, Origin, PortError,
    Receiver, SubOptions, Via,
};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::ReplyTo;
use bifro_range::changes::Changes;
use bifro_range::inbox::{InboxEffect, InboxTable, OwnerRef};
use bifro_range::limits::{INBOX_FETCH_BYTES_MAX, INBOX_FETCH_MESSAGES_MAX};
use std::sync::Arc;

impl Machine for InboxTable {
    type Effect = InboxEffect;

    const SERVICE: Service = Service::Inbox;

    fn changes(&mut self) -> Option<&mut Changes> {
        self.changes()
    }
}

/// An attach that waits until every range has forgotten the session's publishes.
#[derive(Debug)]
pub(super) struct Settling {
    to: ReplyTo,
    attached: Box<Attached>,
    unanswered: usize,
}

fn owner_ref(owner: &InboxOwner<'_>) -> OwnerRef {
    OwnerRef { inbox: owner.inbox.1, epoch: owner.epoch }
}

impl Inbox for RangeServices {
    fn attach(
        &mut self,
        now: Instant,
        req: ReqId,
        conn: ConnRef,
        client: &Client,
        tenant: &TenantCtx,
        terms: AttachTerms,
    ) {
        if !self.has_hosts() {
            return self.complete(Completion::Attached { req, result: Err(PortError::Unavailable) });
        }
        let range = self.range_of(tenant, &client.client_id);
        let (client, tenant) = (client.clone(), tenant.idx);
        self.ask_leader(now, range, InboxRequest::Attach { req, range, conn, tenant, client, terms });
        self.settle(now);
    }

    fn discard(&mut self, now: Instant, req: ReqId, client: &Client, tenant: &TenantCtx) {
        let range = self.range_of(tenant, &client.client_id);
        self.ask_leader(now, range, InboxRequest::Discard { req, range, tenant: tenant.idx, client: client.clone() });
        self.settle(now);
    }

    fn reattach(&mut self, now: Instant, owner: InboxOwner<'_>, in_hand: InHand) {
        if self.note_reattached(owner.conn.slot) {
            let (range, conn) = (owner.inbox.0, owner.conn);
            self.ask_leader(now, range, InboxRequest::Reattach { range, conn, owner: owner_ref(&owner), in_hand });
        }
        self.settle(now);
    }

    fn detach(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, mut state: DetachState) {
        if !self.note_detached(owner.conn.slot) {
            // Whoever leads the range now has taken the connection for lost, and sees to its will.
            state.will = None;
        }
        let (range, client) = (owner.inbox.0, owner.client.clone());
        let detach = InboxRequest::Detach { req, range, owner: owner_ref(&owner), client, state: Box::new(state) };
        self.ask_leader(now, range, detach);
        self.settle(now);
    }

    fn subscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str, options: SubOptions) {
        let range = owner.inbox.0;
        let (owner, filter) = (owner_ref(&owner), filter.into());
        self.ask_leader(now, range, InboxRequest::Subscribe { req, range, owner, filter, options });
        self.settle(now);
    }

    fn unsubscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str) {
        let range = owner.inbox.0;
        let (owner, filter) = (owner_ref(&owner), filter.into());
        self.ask_leader(now, range, InboxRequest::Unsubscribe { req, range, owner, filter });
        self.settle(now);
    }

    fn insert(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: TenantIdx,
        (range, inboxes): (RangeIdx, &InboxPlaces),
        message: &Arc<Published>,
        origin: Option<Origin>,
    ) {
        if !self.is_led_here(range) {
            // Its routes come before the claim, and go after it.
            self.complete(Completion::Inserted { req, result: Err(PortError::Unavailable) });
            return self.settle(now);
        }
        let (places, message) = (inboxes.clone(), message.clone());
        self.send_to_range(range, InboxRequest::Insert { req, range, tenant, places, message, origin });
        self.settle(now);
    }

    fn commit(&mut self, now: Instant, owner: InboxOwner<'_>, done: Vec<InboxSeq>) {
        let range = owner.inbox.0;
        self.ask_leader(now, range, InboxRequest::Commit { range, owner: owner_ref(&owner), done });
        self.settle(now);
    }

    fn note_received(&mut self, now: Instant, req: ReqId, origin: Origin) {
        self.take_step(now, req, origin.inbox.0, Step::Receive(origin));
    }

    fn forget(&mut self, now: Instant, req: ReqId, range: RangeIdx, origin: Origin, in_doubt: bool) {
        self.take_step(now, req, range, Step::Forget(origin, in_doubt));
    }

    fn inquire(&mut self, now: Instant, req: ReqId, range: RangeIdx, origin: Origin) {
        self.take_step(now, req, range, Step::Inquire(origin));
    }

    fn release(&mut self, now: Instant, req: ReqId, origin: Origin) {
        self.take_step(now, req, origin.inbox.0, Step::Release(origin));
    }

    fn hold(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, seq: InboxSeq) {
        self.take_step(now, req, owner.inbox.0, Step::Hold(owner_ref(&owner), seq));
    }
}

impl RangeServices {
    pub(super) fn send_to_range(&mut self, range: RangeIdx, request: InboxRequest) {
        self.send(self.home(range), Message::Inbox(request));
    }

    fn take_step(&mut self, now: Instant, req: ReqId, range: RangeIdx, step: Step) {
        self.ask_leader(now, range, InboxRequest::Step { req, range, step });
        self.settle(now);
    }

    pub(super) fn handle_inbox(&mut self, now: Instant, from: ShardId, message: InboxRequest) {
        match message {
            InboxRequest::Answer { node: NodeIdx::HERE, claim, answer, .. } => {
                if self.is_waited_for(claim, &answer) {
                    self.handle_inbox_answer(*answer);
                }
            }
            InboxRequest::Answer { node, shard, claim, answer } => {
                self.tell_asker(now, (node, shard), claim, &answer);
            }
            message => self.handle_inbox_request(now, (NodeIdx::HERE, from, 0), message),
        }
    }

    /// What another node asks of an inbox here, or answers. False if it cannot be read.
    pub(super) fn hear_inbox(
        &mut self,
        now: Instant,
        node: NodeIdx,
        tenant: Option<TenantIdx>,
        message: RemoteInbox,
    ) -> bool {
        let ctx = tenant.and_then(|tenant| self.tenants.get(tenant));
        if ctx.is_none() && tenant.is_some() {
            return true;
        }
        let Some((shard, term, claim, request)) = message.into_message(node, ctx.map(|ctx| &**ctx), now) else {
            return false;
        };
        match request.range() {
            Some(range) if range.0 < self.ranges => {
                self.send(self.home(range), Message::Asked(Box::new(Asked { node, shard, term, claim, request })));
            }
            Some(_) => return false,
            None if shard.0 < self.shards => {
                let answer = InboxRequest::Answer { node: NodeIdx::HERE, shard, claim, answer: Box::new(request) };
                self.send(shard, Message::Inbox(answer));
            }
            None => return false,
        }
        true
    }

    pub(super) fn handle_inbox_request(
        &mut self,
        now: Instant,
        (node, shard, claim): (NodeIdx, ShardId, u32),
        message: InboxRequest,
    ) {
        let to = |req| ReplyTo { node, shard, claim, req };
        match message {
            InboxRequest::Attach { req, range, conn, tenant, client, terms } => {
                self.with_inboxes(range, |table, tenants, effects| match tenants.get(tenant) {
                    Some(tenant) => table.attach(now, to(req), conn, &client, tenant, terms, effects),
                    None => effects.push(InboxEffect::Attached { to: to(req), result: Err(PortError::Unavailable) }),
                });
            }
            InboxRequest::Discard { req, range, tenant, client } => self.with_inboxes(range, |table, _, effects| {
                table.discard(now, to(req), tenant, &client, effects);
            }),
            InboxRequest::Reattach { range, conn, owner, in_hand } => self.with_inboxes(range, |table, _, effects| {
                table.reattach(now, (conn, claim), owner, &in_hand, effects);
            }),
            InboxRequest::Detach { req, range, owner, client, state } => {
                self.with_inboxes(range, |table, _, effects| {
                    table.detach(now, to(req), owner, &client, *state, effects);
                });
            }
            InboxRequest::Subscribe { req, range, owner, filter, options } => {
                let is_short = self.is_short_of_space();
                self.with_inboxes(range, |table, _, effects| match is_short {
                    true => {
                        effects.push(InboxEffect::Subscribed { to: to(req), result: Err(PortError::QuotaExceeded) })
                    }
                    false => table.subscribe(to(req), owner, &filter, options, effects),
                });
            }
            InboxRequest::Unsubscribe { req, range, owner, filter } => self.with_inboxes(range, |table, _, effects| {
                table.unsubscribe(to(req), owner, &filter, effects);
            }),
            InboxRequest::Insert { req, range, .. } if !self.stores(range) => {
                self.refuse_insertion(to(req));
            }
            InboxRequest::Insert { req, range, tenant, places, message, origin } => {
                let origin = origin.filter(|_| !self.is_planted(Mutation::StoreWithoutNote));
                let is_refused = message.view().qos != QoS::AtMostOnce && self.is_short_of_space();
                self.with_inboxes(range, |table, tenants, effects| match tenants.get(tenant) {
                    Some(tenant) if !is_refused => {
                        table.insert(now, to(req), tenant, &places, &message, origin, effects);
                    }
                    Some(_) => refuse_for_space(to(req), &message, effects),
                    None => effects.push(InboxEffect::Inserted { to: to(req), result: Err(PortError::Unavailable) }),
                });
            }
            InboxRequest::Step { req, range, step } => self.with_inboxes(range, |table, _, effects| match step {
                Step::Receive(origin) => table.receive(to(req), origin, effects),
                Step::Release(origin) => table.release(to(req), origin, effects),
                Step::Forget(origin, in_doubt) => table.forget(now, to(req), origin, in_doubt, effects),
                Step::Inquire(origin) => table.inquire(now, to(req), origin, effects),
                Step::Hold(owner, seq) => table.hold(to(req), owner, seq, effects),
            }),
            InboxRequest::Settle { token, range, origins } => self.with_inboxes(range, |table, _, effects| {
                table.settle(now, to(ReqId(token.into())), &origins, effects);
            }),
            InboxRequest::Commit { range, owner, done } => self.with_inboxes(range, |table, _, effects| {
                table.commit(now, owner, &done, effects);
            }),
            answer => self.handle_inbox_answer(answer),
        }
    }

    /// Whether an answer is waited for, of a leader counted so: not if another leads by now, or the same again, who is asked as well.
    fn is_waited_for(&mut self, claim: u32, answer: &InboxRequest) -> bool {
        let (asked, range) = match answer {
            InboxRequest::Attached { req, .. }
            | InboxRequest::Detached { req }
            | InboxRequest::Subscribed { req, .. }
            | InboxRequest::Unsubscribed { req, .. }
            | InboxRequest::Done { req, .. }
            | InboxRequest::Found { req, .. } => (AskedAs::Req(*req), None),
            InboxRequest::Settled { token, range } => (AskedAs::Token(*token), Some(*range)),
            InboxRequest::Push { conn, .. } => return self.is_attached(conn.slot, claim),
            InboxRequest::Lost { conn } => return self.counts_on(conn.slot, claim),
            _ => return false,
        };
        let request = self.take_asked(asked, range, claim);
        if let (Some(InboxRequest::Attach { conn, range, .. }), InboxRequest::Attached { result: Ok(_), .. }) =
            (&request, answer)
        {
            self.note_attached(conn.slot, *range);
        }
        request.is_some()
    }

    fn handle_inbox_answer(&mut self, message: InboxRequest) {
        match message {
            InboxRequest::Attached { req, result } => self.complete(Completion::Attached { req, result }),
            InboxRequest::Detached { req } => self.complete(Completion::Detached { req }),
            InboxRequest::Subscribed { req, result } => self.complete(Completion::InboxSubscribed { req, result }),
            InboxRequest::Unsubscribed { req, existed } => {
                self.complete(Completion::InboxUnsubscribed { req, existed });
            }
            InboxRequest::Inserted { req, result } => self.complete(Completion::Inserted { req, result }),
            InboxRequest::Done { req, result } => self.complete(Completion::InboxDone { req, result }),
            InboxRequest::Found { req, groups } => self.complete(Completion::Found { req, groups }),
            InboxRequest::Settled { token, .. } => self.handle_settled(token),
            InboxRequest::Push { conn, messages } => {
                self.note_owner(conn.slot);
                if !messages.is_empty() {
                    self.complete(Completion::InboxPush { conn, messages });
                }
            }
            InboxRequest::Lost { conn } => {
                self.note_detached(conn.slot);
                self.complete(Completion::InboxLost { conn });
            }
            request => unreachable!("{request:?} is handled where the range is"),
        }
    }

    /// The route of an inbox's subscription is in place, or was refused.
    pub(super) fn handle_inbox_route(
        &mut self,
        range: RangeIdx,
        inbox: Slot,
        subscription: u32,
        result: Result<(), PortError>,
    ) {
        self.with_inboxes(range, |table, _, effects| table.route_added(inbox, subscription, result, effects));
        self.route_opened(range, Some((inbox, subscription)));
    }

    pub(super) fn handle_inbox_timeout(&mut self, now: Instant) {
        for at in 0..self.inboxes.len() {
            if self.inboxes[at].machine.next_timeout().is_some_and(|due| due <= now) {
                self.with_inboxes(self.inboxes[at].idx, |table, _, effects| table.handle_timeout(now, effects));
            }
        }
    }

    pub(super) fn carry_out_inbox(&mut self, range: RangeIdx, effects: &mut Vec<InboxEffect>) {
        for effect in effects.drain(..) {
            match effect {
                InboxEffect::Attached { to, result } => {
                    self.answer(to, |req| InboxRequest::Attached { req, result });
                }
                InboxEffect::SettleAndAttach { to, attached } => self.settlements.push((to, attached)),
                InboxEffect::Done { to, result } => {
                    let is_confirmed = self.is_planted(Mutation::ConfirmStepsOfOthers);
                    let result = if is_confirmed { Ok(()) } else { result };
                    self.answer(to, |req| InboxRequest::Done { req, result });
                }
                InboxEffect::Found { to, groups } => self.answer(to, |req| InboxRequest::Found { req, groups }),
                InboxEffect::Settled { to } => {
                    let token = u32::try_from(to.req.0).expect("it was made of a token");
                    self.answer(to, |_| InboxRequest::Settled { token, range });
                }
                InboxEffect::Detached { to } => self.answer(to, |req| InboxRequest::Detached { req }),
                InboxEffect::Subscribed { to, result } => {
                    self.answer(to, |req| InboxRequest::Subscribed { req, result });
                }
                InboxEffect::Unsubscribed { to, existed } => {
                    self.answer(to, |req| InboxRequest::Unsubscribed { req, existed });
                }
                InboxEffect::Inserted { to, result } => self.tell_inserted(to, result),
                InboxEffect::Lost { conn, claim } => {
                    self.send_to_asker((conn.node, conn.shard, claim), InboxRequest::Lost { conn });
                }
                InboxEffect::Push { conn, claim, messages } => {
                    self.send_to_asker((conn.node, conn.shard, claim), InboxRequest::Push { conn, messages });
                }
                InboxEffect::Fetch { inbox, from, to } => self.fetch(range, inbox, from, to),
                InboxEffect::AddRoute { tenant, route, receiver } => {
                    if let Receiver::Inbox { inbox, subscription, .. } = receiver {
                        let origin = RouteOrigin::Inbox { range, inbox, subscription };
                        self.add_to_partitions(origin, tenant, route, receiver);
                    }
                }
                InboxEffect::RemoveRoute { tenant, route, receiver } => {
                    self.remove_everywhere(tenant, &route, receiver);
                }
                InboxEffect::WillDue { client, will } => self.complete(Completion::WillDue { client, will }),
                InboxEffect::Redeliver { tenant, route, message } => {
                    if let Some(group) = &route.group {
                        let (filter, group) = (route.filter.clone(), group.clone());
                        self.complete(Completion::Redeliver { tenant, filter, group, message });
                    }
                }
                InboxEffect::Event(event) => self.complete(Completion::Event(event)),
            }
        }
    }

    fn fetch(&mut self, range: RangeIdx, inbox: Slot, from: Vec<u8>, to: Vec<u8>) {
        let scan = Scan { from, to: Some(to), limit: INBOX_FETCH_MESSAGES_MAX, bytes_max: INBOX_FETCH_BYTES_MAX };
        let token = u64::from(inbox.index) << 32 | u64::from(inbox.generation);
        if let Some(host) = &mut self.host {
            host.read(RangeId::of(Service::Inbox, range), token, scan);
        }
    }

    /// Gives the inboxes the messages that they have fetched.
    pub(super) fn take_fetched(&mut self, now: Instant) {
        loop {
            let done = self.host.as_mut().map(Host::take_reads).unwrap_or_default();
            if done.is_empty() {
                return;
            }
            for ReadDone { range: id, token, pairs } in done {
                let Some(range) = inbox_range(id) else { continue };
                let inbox = Slot { index: (token >> 32) as u32, generation: token as u32 };
                let records = pairs.iter().map(|(key, value)| (&**key, &**value));
                let mut read = Ok(());
                self.with_inboxes(range, |table, _, effects| read = table.fetched(now, inbox, records, effects));
                if let (Err(error), Some(host)) = (read, &self.host) {
                    host.fail(id, &error);
                }
            }
        }
    }

    fn answer(&mut self, to: ReplyTo, message: impl FnOnce(ReqId) -> InboxRequest) {
        self.send_to_asker((to.node, to.shard, to.claim), message(to.req));
    }

    /// Messages are inserted by shards of this node alone.
    fn tell_inserted(&mut self, to: ReplyTo, result: Result<(), PortError>) {
        self.send(to.shard, Message::Inbox(InboxRequest::Inserted { req: to.req, result }));
    }

    /// A message was to be stored in a range that is not led here any more.
    pub(super) fn refuse_insertion(&mut self, to: ReplyTo) {
        let result =
            if self.is_planted(Mutation::ConfirmLostInsertions) { Ok(()) } else { Err(PortError::Unavailable) };
        self.tell_inserted(to, result);
    }

    fn send_to_asker(&mut self, (node, shard, claim): (NodeIdx, ShardId, u32), answer: InboxRequest) {
        if self.reigns.is_none() {
            return self.send(shard, Message::Inbox(answer));
        }
        let to = if node == NodeIdx::HERE { shard } else { self.arrives_at(node, shard) };
        self.send(to, Message::Inbox(InboxRequest::Answer { node, shard, claim, answer: Box::new(answer) }));
    }

    /// Over the link that the request has come by. If that has ended, the asker knows.
    fn tell_asker(&mut self, now: Instant, (node, shard): (NodeIdx, ShardId), claim: u32, answer: &InboxRequest) {
        if let Some(answer) = RemoteInbox::of(answer, shard, 0, claim, now) {
            self.send_remote(Via::From(node, shard), None, &Remote::Inbox(answer));
        }
    }

    /// Whoever had the session may have gone before every range knew that a publish need not be recognised any more. They must, before its
    /// identifier can be used again.
    pub(super) fn forget_everywhere(&mut self, now: Instant, to: ReplyTo, attached: Box<Attached>) {
        let Some(inbox) = attached.inbox else { return };
        let epoch = attached.epoch;
        let origins: Arc<[Origin]> =
            attached.received_qos2.iter().map(|&packet_id| Origin::new(inbox, epoch, packet_id, 0)).collect();
        let settling = Settling { to, attached, unanswered: self.ranges.into() };
        let token = u32::try_from(self.settling.insert(settling)).expect("fewer than 2^32 attaches are under way");
        for range in (0..self.ranges).map(RangeIdx) {
            self.ask_leader(now, range, InboxRequest::Settle { token, range, origins: origins.clone() });
        }
    }

    fn handle_settled(&mut self, token: u32) {
        let Some(settling) = self.settling.get_mut(token as usize) else { return };
        settling.unanswered -= 1;
        if settling.unanswered == 0 {
            let Settling { to, attached, .. } = self.settling.remove(token as usize);
            let is_owned = attached.inbox.is_some_and(|(range, inbox)| {
                let owner = OwnerRef { inbox, epoch: attached.epoch };
                self.inboxes[self.local(range)].machine.is_owned(owner)
            });
            // Another may have attached meanwhile. Whoever waits here could not be told then that it has lost the session.
            let result = if is_owned { Ok(attached) } else { Err(PortError::NotOwner) };
            self.answer(to, |req| InboxRequest::Attached { req, result });
        }
    }
}

fn refuse_for_space(to: ReplyTo, message: &Published, effects: &mut Vec<InboxEffect>) {
    let detail = "a message could not be queued: the node's disk is nearly full";
    effects.push(InboxEffect::Event(Event::of(EventKind::OutOfTenantResource, None, detail).on(message.topic())));
    effects.push(InboxEffect::Inserted { to, result: Err(PortError::QuotaExceeded) });
}
