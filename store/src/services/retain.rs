//! Retain's port: a topic's message in one range, a search with wildcards in all of them.

use super::RangeServices;
use super::lookups::Wish;
use super::message::{Message, Retain as RetainMessage};
use super::ranges::{Machine, Service};
use bifro_core::client::Client;
use bifro_core::event::{Event, EventKind};
use bifro_core::ids::{NodeIdx, RangeIdx, ReqId, ShardId, TenantIdx};
use bifro_core::message::Message as Published;
use bifro_core::ports::{Completion, PortError, Retain, RetainedMessage};
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::ReplyTo;
use bifro_range::changes::Changes;
use bifro_range::retain::{FindLimits, RetainEffect, RetainTable};
use std::sync::Arc;

impl Machine for RetainTable {
    type Effect = RetainEffect;

    const SERVICE: Service = Service::Retain;

    fn changes(&mut self) -> Option<&mut Changes> {
        self.changes()
    }
}

/// A search that some ranges have not answered yet.
#[derive(Debug)]
pub(super) struct Search {
    tenant: TenantIdx,
    filter: Arc<str>,
    unanswered: usize,
    messages: Vec<RetainedMessage>,
}

impl Retain for RangeServices {
    fn set(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, publisher: &Client, message: &Arc<Published>) {
        let (publisher, message) = (publisher.clone(), message.clone());
        if !self.keeps_retained() {
            self.look_up(now, req, tenant.idx, Wish::Set { publisher, message });
            return self.settle(now);
        }
        let (range, tenant) = (self.range_of(tenant, message.topic()), tenant.idx);
        let set = RetainMessage::Set { req, range, tenant, publisher, message };
        self.send(self.home(range), Message::Retain(set));
        self.settle(now);
    }

    fn find(&mut self, now: Instant, req: ReqId, tenant: &TenantCtx, filter: &str) {
        if !tenant.quota.spend(Resource::TotalRetainMatchPerSeconds, 1, now) {
            self.refuse_matches(filter);
            self.complete(Completion::Retained { req, messages: Vec::new() });
            return;
        }
        if self.keeps_retained() {
            self.search(req, tenant, filter);
        } else {
            self.look_up(now, req, tenant.idx, Wish::Find { filter: filter.into() });
        }
        self.settle(now);
    }
}

impl RangeServices {
    /// Asks the ranges here.
    pub(super) fn search(&mut self, req: ReqId, tenant: &TenantCtx, filter: &str) {
        let ranges = if has_wildcard(filter) {
            0..self.ranges
        } else {
            let RangeIdx(one) = self.range_of(tenant, filter);
            one..one + 1
        };
        let filter: Arc<str> = filter.into();
        let (tenant, unanswered) = (tenant.idx, ranges.len());
        self.searches.insert(req, Search { tenant, filter: filter.clone(), unanswered, messages: Vec::new() });
        for range in ranges.map(RangeIdx) {
            let find = RetainMessage::Find { req, range, tenant, filter: filter.clone() };
            self.send(self.home(range), Message::Retain(find));
        }
    }

    pub(super) fn handle_retain(&mut self, now: Instant, from: ShardId, message: RetainMessage) {
        let to = |req| ReplyTo { node: NodeIdx::HERE, shard: from, claim: 0, req };
        match message {
            RetainMessage::Set { req, range, tenant, publisher, message } => {
                let is_refused = !message.payload().is_empty() && self.is_short_of_space();
                let is_replicated = self.cluster.is_some();
                self.with_retained(range, |table, tenants, effects| {
                    let result = match tenants.get(tenant) {
                        Some(tenant) if !is_refused => table.set(now, tenant, &publisher, &message),
                        Some(_) => Err(PortError::QuotaExceeded),
                        None => Err(PortError::Unavailable),
                    };
                    let is_told = is_replicated && result.is_ok();
                    effects.push(match is_told.then(|| table.replica(tenant, message.topic())).flatten() {
                        Some(replica) => RetainEffect::Changed { to: to(req), tenant, replica: replica.encode(now) },
                        None => RetainEffect::Set { to: to(req), result },
                    });
                });
            }
            RetainMessage::Merge { req, range, tenant, replica } => {
                self.with_retained(range, |table, tenants, effects| {
                    if let Some(tenant) = tenants.get(tenant) {
                        table.merge(now, tenant, *replica);
                    }
                    effects.extend(req.map(|req| RetainEffect::Merged { to: to(req) }));
                });
            }
            RetainMessage::Merged { req } => self.handle_merged(req),
            RetainMessage::Offered { node, shard, range, tenant, offers } => {
                self.handle_offered(from, (node, shard), (range, tenant), offers);
            }
            RetainMessage::Wanted { node, shard, tenant, topics } => self.handle_wanted(node, shard, tenant, topics),
            RetainMessage::SetDone { req, result } => self.answer_set(req, result),
            RetainMessage::Find { req, range, tenant, filter } => {
                self.with_retained(range, |table, tenants, effects| {
                    match tenants.get(tenant).map(|tenant| FindLimits::of(&tenant.settings)) {
                        Some(limits) => table.find(now, to(req), tenant, filter, limits, effects),
                        None => effects.push(RetainEffect::Found { to: to(req), messages: Vec::new() }),
                    }
                });
            }
            RetainMessage::Found { req, messages } => self.handle_found(now, req, messages),
        }
    }

    pub(super) fn handle_retain_timeout(&mut self, now: Instant) {
        for at in 0..self.retained.len() {
            if self.retained[at].machine.next_timeout().is_some_and(|due| due <= now) {
                self.with_retained(self.retained[at].idx, |table, _, effects| table.handle_timeout(now, effects));
            }
        }
    }

    pub(super) fn carry_out_retain(&mut self, effects: &mut Vec<RetainEffect>) {
        for effect in effects.drain(..) {
            let (to, message) = match effect {
                RetainEffect::Changed { to, tenant, replica } => {
                    self.replicate(to, tenant, replica);
                    continue;
                }
                RetainEffect::Merged { to } => (to, RetainMessage::Merged { req: to.req }),
                RetainEffect::Set { to, result } => (to, RetainMessage::SetDone { req: to.req, result }),
                RetainEffect::Found { to, messages } => (to, RetainMessage::Found { req: to.req, messages }),
            };
            self.send(to.shard, Message::Retain(message));
        }
    }

    /// One range has answered a search. When all have, the answer is put in order of topics and cut to the limits.
    fn handle_found(&mut self, now: Instant, req: ReqId, messages: Vec<RetainedMessage>) {
        let Some(search) = self.searches.get_mut(&req) else { return };
        search.messages.extend(messages);
        search.unanswered -= 1;
        if search.unanswered > 0 {
            return;
        }
        let Some(Search { tenant, filter, mut messages, .. }) = self.searches.remove(&req) else { return };
        messages.sort_by(|one, other| one.message.topic().cmp(other.message.topic()));
        let Some(tenant) = self.tenants.get(tenant).cloned() else {
            return self.answer_search(now, req, Vec::new());
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
        self.answer_search(now, req, messages);
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
