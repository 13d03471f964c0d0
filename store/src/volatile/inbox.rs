//! The inboxes' port.

use super::VolatileServices;
use super::dist::Origin;
use super::message::{Inbox as InboxRequest, Message};
use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, InboxSeq, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::message::Message as Published;
use bifro_core::ports::{Completion, DetachState, Inbox, InboxOwner, InboxPlaces, PortError, Receiver, SubOptions};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::ReplyTo;
use bifro_range::inbox::{InboxEffect, OwnerRef};
use std::sync::Arc;

fn owner_ref(owner: &InboxOwner<'_>) -> OwnerRef {
    OwnerRef { inbox: owner.inbox.1, epoch: owner.epoch }
}

impl Inbox for VolatileServices {
    fn attach(
        &mut self,
        now: Instant,
        req: ReqId,
        conn: ConnRef,
        client: &Client,
        tenant: &TenantCtx,
        clean_start: bool,
    ) {
        let to = self.place(tenant.idx, &client.client_id);
        let client = client.clone();
        self.send(to, Message::Inbox(InboxRequest::Attach { req, conn, tenant: tenant.idx, client, clean_start }));
        self.settle(now);
    }

    fn discard(&mut self, now: Instant, req: ReqId, client: &Client, tenant: &TenantCtx) {
        let to = self.place(tenant.idx, &client.client_id);
        self.send(to, Message::Inbox(InboxRequest::Discard { req, tenant: tenant.idx, client: client.clone() }));
        self.settle(now);
    }

    fn detach(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, state: DetachState) {
        let client = owner.client.clone();
        let detach = InboxRequest::Detach { req, owner: owner_ref(&owner), client, state: Box::new(state) };
        self.send(owner.inbox.0, Message::Inbox(detach));
        self.settle(now);
    }

    fn subscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str, options: SubOptions) {
        let subscribe = InboxRequest::Subscribe { req, owner: owner_ref(&owner), filter: filter.into(), options };
        self.send(owner.inbox.0, Message::Inbox(subscribe));
        self.settle(now);
    }

    fn unsubscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str) {
        let unsubscribe = InboxRequest::Unsubscribe { req, owner: owner_ref(&owner), filter: filter.into() };
        self.send(owner.inbox.0, Message::Inbox(unsubscribe));
        self.settle(now);
    }

    fn insert(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: TenantIdx,
        shard: ShardId,
        inboxes: &InboxPlaces,
        message: &Arc<Published>,
    ) {
        let insert = InboxRequest::Insert { req, tenant, places: inboxes.clone(), message: message.clone() };
        self.send(shard, Message::Inbox(insert));
        self.settle(now);
    }

    fn commit(&mut self, now: Instant, owner: InboxOwner<'_>, done: Vec<InboxSeq>) {
        self.send(owner.inbox.0, Message::Inbox(InboxRequest::Commit { owner: owner_ref(&owner), done }));
        self.settle(now);
    }
}

impl VolatileServices {
    pub(super) fn handle_inbox(&mut self, now: Instant, from: ShardId, message: InboxRequest) {
        let mut effects = Vec::new();
        let to = |req| ReplyTo { shard: from, req };
        match message {
            InboxRequest::Attach { req, conn, tenant, client, clean_start } => match self.tenant(tenant).cloned() {
                Some(tenant) => {
                    self.inboxes.attach(now, to(req), conn, &client, &tenant, clean_start, &mut effects);
                }
                None => effects.push(InboxEffect::Attached { to: to(req), result: Err(PortError::Unavailable) }),
            },
            InboxRequest::Discard { req, tenant, client } => {
                self.inboxes.discard(now, to(req), tenant, &client, &mut effects);
            }
            InboxRequest::Detach { req, owner, client, state } => {
                self.inboxes.detach(now, to(req), owner, &client, *state, &mut effects);
            }
            InboxRequest::Subscribe { req, owner, filter, options } => {
                self.inboxes.subscribe(to(req), owner, &filter, options, &mut effects);
            }
            InboxRequest::Unsubscribe { req, owner, filter } => {
                self.inboxes.unsubscribe(to(req), owner, &filter, &mut effects);
            }
            InboxRequest::Insert { req, tenant, places, message } => match self.tenant(tenant).cloned() {
                Some(tenant) => self.inboxes.insert(now, to(req), &tenant, &places, &message, &mut effects),
                None => effects.push(InboxEffect::Inserted { to: to(req), result: Err(PortError::Unavailable) }),
            },
            InboxRequest::Commit { owner, done } => self.inboxes.commit(now, owner, &done, &mut effects),
            InboxRequest::Attached { req, result } => self.complete(Completion::Attached { req, result }),
            InboxRequest::Detached { req } => self.complete(Completion::Detached { req }),
            InboxRequest::Subscribed { req, result } => self.complete(Completion::InboxSubscribed { req, result }),
            InboxRequest::Unsubscribed { req, existed } => {
                self.complete(Completion::InboxUnsubscribed { req, existed });
            }
            InboxRequest::Inserted { req, result } => self.complete(Completion::Inserted { req, result }),
            InboxRequest::Push { conn, messages } => self.complete(Completion::InboxPush { conn, messages }),
        }
        self.carry_out_inbox(effects);
    }

    /// The route of an inbox's subscription is in place, or was refused.
    pub(super) fn handle_inbox_route(&mut self, inbox: Slot, subscription: u32, result: Result<(), PortError>) {
        let mut effects = Vec::new();
        self.inboxes.route_added(inbox, subscription, result, &mut effects);
        self.carry_out_inbox(effects);
    }

    pub(super) fn handle_inbox_timeout(&mut self, now: Instant) {
        let mut effects = Vec::new();
        self.inboxes.handle_timeout(now, &mut effects);
        self.carry_out_inbox(effects);
    }

    fn carry_out_inbox(&mut self, effects: Vec<InboxEffect>) {
        for effect in effects {
            match effect {
                InboxEffect::Attached { to, result } => self.answer(to, |req| InboxRequest::Attached { req, result }),
                InboxEffect::Detached { to } => self.answer(to, |req| InboxRequest::Detached { req }),
                InboxEffect::Subscribed { to, result } => {
                    self.answer(to, |req| InboxRequest::Subscribed { req, result });
                }
                InboxEffect::Unsubscribed { to, existed } => {
                    self.answer(to, |req| InboxRequest::Unsubscribed { req, existed });
                }
                InboxEffect::Inserted { to, result } => self.answer(to, |req| InboxRequest::Inserted { req, result }),
                InboxEffect::Push { conn, messages } => {
                    self.send(conn.shard, Message::Inbox(InboxRequest::Push { conn, messages }));
                }
                InboxEffect::AddRoute { tenant, route, receiver } => {
                    if let Receiver::Inbox { inbox, subscription, .. } = receiver {
                        self.add_to_partitions(Origin::Inbox { inbox, subscription }, tenant, route, receiver);
                    }
                }
                InboxEffect::RemoveRoute { tenant, route, receiver } => {
                    self.remove_from_partitions(tenant, &route, receiver);
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

    fn answer(&mut self, to: ReplyTo, message: impl FnOnce(ReqId) -> InboxRequest) {
        self.send(to.shard, Message::Inbox(message(to.req)));
    }
}
