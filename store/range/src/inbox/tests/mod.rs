//! Exact effects of the inbox machine, driven without any other.

mod durable;
mod lifecycle;
mod queueing;
mod reign;
mod rest;
mod subscribing;

use super::*;
use crate::key::ReplyTo;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::client::{Client, ClientInfo, Transport, Version};
use bifro_core::ids::{
    ConnRef, InboxSeq, NodeIdx, PublisherKey, RangeIdx, ReqId, ShardId, Slot, TenantIdx, publisher_key,
};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{AttachTerms, Attached, DetachState, InboxMessage, Receiver, SubOptions};
use bifro_core::settings::{Quota, QuotaLimits, Resource, TenantSettings};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;

const SEED: u64 = 7;
const TO: ReplyTo = ReplyTo { node: NodeIdx::HERE, shard: ShardId(1), claim: 0, req: ReqId(1) };

const QOS0: SubOptions = SubOptions {
    qos: QoS::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    subscription_id: None,
    check_deliveries: false,
};
const QOS1: SubOptions = SubOptions { qos: QoS::AtLeastOnce, ..QOS0 };
const QOS2: SubOptions = SubOptions { qos: QoS::ExactlyOnce, ..QOS0 };

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn conn(index: u32) -> ConnRef {
    ConnRef { node: NodeIdx::HERE, shard: ShardId(1), slot: Slot { index, generation: 0 } }
}

fn client(id: &str) -> Client {
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "".into(),
        client_id: id.into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    })
}

fn message(payload: &str, qos: QoS) -> Arc<Message> {
    message_with(payload, qos, None, PublisherKey(1))
}

fn message_with(payload: &str, qos: QoS, expiry_at: Option<Instant>, publisher: PublisherKey) -> Arc<Message> {
    let payload = payload.as_bytes();
    MessageView { topic: "a/b", properties: &[], payload, qos, retain: true, expiry_at, publisher }.to_message()
}

/// What of an effect matters to most tests, one line each.
fn line(effect: &InboxEffect) -> String {
    let text = |message: &Message| String::from_utf8(message.payload().to_owned()).unwrap();
    match effect {
        InboxEffect::Attached { result: Ok(attached), .. } => format!("attached present={}", attached.present),
        InboxEffect::Attached { result: Err(refusal), .. } => format!("attach refused {refusal:?}"),
        InboxEffect::SettleAndAttach { .. } => "attached when settled".into(),
        InboxEffect::Settled { .. } => "settled".into(),
        InboxEffect::Done { result, .. } => format!("done: {result:?}"),
        InboxEffect::Found { groups, .. } => format!("found {groups:?}"),
        InboxEffect::Detached { .. } => "detached".into(),
        InboxEffect::Subscribed { result, .. } => format!("subscribed {result:?}"),
        InboxEffect::Unsubscribed { existed, .. } => format!("unsubscribed {existed}"),
        InboxEffect::Inserted { result, .. } => format!("inserted {result:?}"),
        InboxEffect::Push { conn, messages, .. } => {
            let each = messages.iter().map(|m| {
                let seq = m.seq.map_or("-".into(), |seq| format!("{}", seq.0));
                format!("{seq}:{}", text(&m.message))
            });
            format!("push {} {}", conn.slot.index, each.collect::<Vec<_>>().join(" "))
        }
        InboxEffect::Fetch { inbox, .. } => format!("fetch for {inbox}"),
        InboxEffect::Lost { conn, .. } => format!("lost {}", conn.slot.index),
        InboxEffect::AddRoute { route, .. } => format!("add route {}", route.filter),
        InboxEffect::RemoveRoute { route, .. } => format!("remove route {}", route.filter),
        InboxEffect::WillDue { client, will } => format!("will of {}: {}", client.user, text(will)),
        InboxEffect::Redeliver { route, message, .. } => format!("redeliver {} {}", route.filter, text(message)),
        InboxEffect::Event(event) => format!("event {}", event.kind.name()),
    }
}

/// A table with one tenant, and the state of its requests.
struct Driven {
    table: InboxTable,
    tenant: TenantCtx,
    now: Instant,
    /// Of the last attach.
    attached: Attached,
    /// Subscriptions made, with their inbox.
    places: Vec<(Slot, u32)>,
}

impl Driven {
    fn new() -> Self {
        Self::with(TenantSettings::default(), &QuotaLimits::default())
    }

    fn with(settings: TenantSettings, limits: &QuotaLimits) -> Self {
        let quota = Arc::new(Quota::new(limits));
        let tenant = TenantCtx { idx: TenantIdx(0), name: "t".into(), settings, quota };
        let table = InboxTable::new(RangeIdx(0), SEED);
        Self { table, tenant, now: at(0), attached: Attached::default(), places: vec![] }
    }

    fn run(&mut self, call: impl FnOnce(&mut Self, &mut Vec<InboxEffect>)) -> Vec<String> {
        let mut effects = vec![];
        call(self, &mut effects);
        self.table.validate();
        let lines = effects.iter().map(line).collect();
        for effect in effects {
            match effect {
                InboxEffect::Attached { result: Ok(attached), .. } => self.attached = *attached,
                InboxEffect::AddRoute { receiver: Receiver::Inbox { inbox, subscription, .. }, .. } => {
                    self.places.push((inbox, subscription));
                }
                _ => {}
            }
        }
        lines
    }

    fn owner(&self) -> OwnerRef {
        OwnerRef { inbox: self.attached.inbox.unwrap().1, epoch: self.attached.epoch }
    }

    fn attach(&mut self, conn_index: u32, client: &Client, clean_start: bool) -> Vec<String> {
        self.run(|this, effects| {
            let terms = AttachTerms { clean_start, expiry_s: u32::MAX, will: None };
            this.table.attach(this.now, TO, conn(conn_index), client, &this.tenant, terms, effects);
        })
    }

    fn detach(&mut self, client: &Client, state: DetachState) -> Vec<String> {
        let owner = self.owner();
        self.run(|this, effects| this.table.detach(this.now, TO, owner, client, state, effects))
    }

    /// Subscribes, and has the route in place at once.
    fn subscribe(&mut self, full: &str, options: SubOptions) -> Vec<String> {
        let owner = self.owner();
        let made = self.places.len();
        let mut lines = self.run(|this, effects| this.table.subscribe(TO, owner, full, options, effects));
        if let Some(&(inbox, place)) = self.places.get(made) {
            lines.extend(self.run(|this, effects| this.table.route_added(inbox, place, Ok(()), effects)));
        }
        lines
    }

    fn unsubscribe(&mut self, full: &str) -> Vec<String> {
        let owner = self.owner();
        self.run(|this, effects| this.table.unsubscribe(TO, owner, full, effects))
    }

    /// Inserts for every subscription ever made.
    fn insert(&mut self, message: &Arc<Message>) -> Vec<String> {
        let places = self.places.clone();
        self.run(|this, effects| this.table.insert(this.now, TO, &this.tenant, &places, message, None, effects))
    }

    /// Inserts, and returns what was pushed.
    fn pushed(&mut self, message: &Arc<Message>) -> Vec<InboxMessage> {
        let (places, mut effects) = (self.places.clone(), vec![]);
        self.table.insert(self.now, TO, &self.tenant, &places, message, None, &mut effects);
        let messages = effects.into_iter().filter_map(|effect| match effect {
            InboxEffect::Push { messages, .. } => Some(messages),
            _ => None,
        });
        messages.flatten().collect()
    }

    fn commit(&mut self, seqs: &[u64]) -> Vec<String> {
        let (owner, done) = (self.owner(), seqs.iter().map(|&seq| InboxSeq(seq)).collect::<Vec<_>>());
        self.run(|this, effects| this.table.commit(this.now, owner, &done, effects))
    }

    fn timeout(&mut self, secs: u64) -> Vec<String> {
        self.now = at(secs);
        self.run(|this, effects| this.table.handle_timeout(this.now, effects))
    }

    fn used(&self, resource: Resource) -> u64 {
        self.tenant.quota.used(resource)
    }

    fn assert_nothing_used(&self) {
        for resource in [
            Resource::TotalPersistentSessions,
            Resource::TotalPersistentSessionSpaceBytes,
            Resource::TotalPersistentSubscriptions,
            Resource::TotalSharedSubscriptions,
        ] {
            assert_eq!(self.used(resource), 0, "{resource:?}");
        }
        let Totals { inboxes, messages, bytes, .. } = self.table.totals();
        assert_eq!((inboxes, messages, bytes), (0, 0, 0));
    }
}

fn for_s(expiry_s: u32) -> DetachState {
    DetachState { expiry_s, ..DetachState::default() }
}

fn with_will(delay_s: u64, expiry_s: u32) -> DetachState {
    let will = message("will", QoS::AtLeastOnce);
    DetachState { will: Some((core::time::Duration::from_secs(delay_s), will)), ..for_s(expiry_s) }
}

fn by_user(user: &str) -> Client {
    let mut info = Arc::into_inner(client("c")).unwrap();
    info.user = Box::from(user);
    Arc::new(info)
}

fn key_of(client: &Client) -> PublisherKey {
    publisher_key(SEED, "t", &client.client_id)
}
