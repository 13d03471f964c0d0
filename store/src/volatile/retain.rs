//! Retain's port: a topic's message on one shard, a search with wildcards on all of them.

use super::VolatileServices;
use super::message::{Message, Retain as RetainMessage};
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{ReqId, ShardId, TenantIdx};
use bifro_core::message::Message as Published;
use bifro_core::ports::{Completion, PortError, Retain, RetainedMessage};
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::ReplyTo;
use bifro_range::retain::{FindLimits, RetainEffect};
use std::sync::Arc;

/// A search that some shards have not answered yet.
#[derive(Debug)]
pub(super) struct Search {
    tenant: TenantIdx,
    filter: Arc<str>,
    unanswered: usize,
    messages: Vec<RetainedMessage>,
}

impl Retain for VolatileServices {
    fn set(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, publisher: &Client, message: &Arc<Published>) {
        let to = self.place(tenant.idx, message.topic());
        let (publisher, message) = (publisher.clone(), message.clone());
        self.send(to, Message::Retain(RetainMessage::Set { req, tenant: tenant.idx, publisher, message }));
        self.settle(now);
    }

    fn find(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, filter: &str) {
        if !tenant.quota.spend(Resource::TotalRetainMatchPerSeconds, 1, now) {
            self.refuse_matches(filter);
            self.complete(Completion::Retained { req, messages: Vec::new() });
            return;
        }
        let filter: Arc<str> = filter.into();
        let partitions =
            if has_wildcard(&filter) { self.all_shards().collect() } else { vec![self.place(tenant.idx, &filter)] };
        let unanswered = partitions.len();
        let search = Search { tenant: tenant.idx, filter: filter.clone(), unanswered, messages: Vec::new() };
        self.searches.insert(req, search);
        for partition in partitions {
            let filter = filter.clone();
            self.send(partition, Message::Retain(RetainMessage::Find { req, tenant: tenant.idx, filter }));
        }
        self.settle(now);
    }
}

impl VolatileServices {
    pub(super) fn handle_retain(&mut self, now: Instant, from: ShardId, message: RetainMessage) {
        match message {
            RetainMessage::Set { req, tenant, publisher, message } => {
                let result = match self.tenant(tenant).cloned() {
                    Some(tenant) => self.retained.set(now, &tenant, &publisher, &message),
                    None => Err(PortError::Unavailable),
                };
                self.send(from, Message::Retain(RetainMessage::SetDone { req, result }));
            }
            RetainMessage::SetDone { req, result } => self.complete(Completion::RetainSet { req, result }),
            RetainMessage::Find { req, tenant, filter } => {
                let to = ReplyTo { shard: from, req };
                let mut effects = Vec::new();
                if let Some(limits) = self.tenant(tenant).map(|tenant| FindLimits::of(&tenant.settings)) {
                    self.retained.find(now, to, tenant, filter, limits, &mut effects);
                } else {
                    effects.push(RetainEffect::Found { to, messages: Vec::new() });
                }
                self.carry_out_retain(effects);
            }
            RetainMessage::Found { req, messages } => self.handle_found(now, req, messages),
        }
    }

    pub(super) fn handle_retain_timeout(&mut self, now: Instant) {
        let mut effects = Vec::new();
        self.retained.handle_timeout(now, &mut effects);
        self.carry_out_retain(effects);
    }

    fn carry_out_retain(&mut self, effects: Vec<RetainEffect>) {
        for RetainEffect::Found { to, messages } in effects {
            self.send(to.shard, Message::Retain(RetainMessage::Found { req: to.req, messages }));
        }
    }

    /// One shard has answered a search. When all have, the answer is put in order of topics and cut to the limits.
    fn handle_found(&mut self, now: Instant, req: ReqId, messages: Vec<RetainedMessage>) {
        let Some(search) = self.searches.get_mut(&req) else { return };
        search.messages.extend(messages);
        search.unanswered -= 1;
        if search.unanswered > 0 {
            return;
        }
        let Some(Search { tenant, filter, mut messages, .. }) = self.searches.remove(&req) else { return };
        messages.sort_by(|one, other| one.message.topic().cmp(other.message.topic()));
        let Some(tenant) = self.tenant(tenant).cloned() else {
            self.complete(Completion::Retained { req, messages: Vec::new() });
            return;
        };
        let mut limits = FindLimits::of(&tenant.settings);
        let within_limits = messages.iter().take_while(|retained| limits.admit(retained)).count();
        messages.truncate(within_limits);
        let within_rate = (messages.iter())
            .take_while(|retained| {
                let bytes = retained.message.footprint_bytes() as u64;
                tenant.quota.spend(Resource::TotalRetainMatchBytesPerSecond, bytes, now)
            })
            .count();
        if within_rate < messages.len() {
            messages.truncate(within_rate);
            self.refuse_matches(&filter);
        }
        self.complete(Completion::Retained { req, messages });
    }

    fn refuse_matches(&mut self, filter: &str) {
        let detail = "retained messages were not delivered: the tenant's rate is used up";
        self.complete(Completion::Event(Event::of(EventKind::OutOfTenantResource, None, detail).on(filter)));
    }
}

/// Whether the filter may match more than the topic it spells.
fn has_wildcard(filter: &str) -> bool {
    filter.split('/').any(|level| level == "+" || level == "#")
}
