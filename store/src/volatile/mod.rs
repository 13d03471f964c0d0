//! The services of a node that keeps nothing: all state is in memory, spread over the shards.
//!
//! Each shard owns one [`VolatileServices`] with a partition of everything:
//!
//! | state | lives on shard |
//! |---|---|
//! | owner of a client id, and the client's inbox | hash(tenant, client id): the same for both, so that a detach, the unregistration behind it and the successor's attach meet in their order |
//! | routes | hash(tenant, first level of the filter); on every shard if that level is a wildcard |
//! | retained messages | hash(tenant, topic) |
//! | remembered matches | every shard, for its own publishers |
//!
//! What a request wants of another shard goes out as a [`Message`]; what it wants of its own goes through a queue of the same
//! messages that is empty again before the call returns. So both take the same code and the same order, and with a single
//! shard everything is done within the call.

mod dict;
mod dist;
mod inbox;
pub mod message;
mod retain;
#[cfg(test)]
mod tests;

pub use message::Message;

use bifro_core::ids::{ReqId, ShardId, TenantIdx, keyed_hash};
use bifro_core::limits::MATCH_CACHE_TOPICS_MAX;
use bifro_core::metrics::ShardMetrics;
use bifro_core::ports::{Completion, Out, Services};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_range::dict::OwnerTable;
use bifro_range::dist::{MatchCache, RoutePartition};
use bifro_range::inbox::InboxTable;
use bifro_range::retain::RetainTable;
use hashbrown::HashMap;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// One shard's end of all services, in memory.
///
/// # Contract
/// As [`Services`] has it: one call at a time with a monotonic `now`, [`Services::drain`] after each; the mesh delivers
/// what one shard sends to another once and in order; every shard is told of a tenant
/// ([`Services::set_tenant`]) before the first of its clients is admitted on any.
#[derive(Debug)]
pub struct VolatileServices {
    shard: ShardId,
    shards: u16,
    seed: u64,
    metrics: Arc<ShardMetrics>,
    tenants: Vec<Option<Arc<TenantCtx>>>,
    owners: OwnerTable,
    routes: RoutePartition,
    cache: MatchCache,
    /// Routes this shard is having added, by the token it gave them.
    additions: Slab<dist::Addition>,
    inboxes: InboxTable,
    retained: RetainTable,
    /// Searches this shard waits for, by request.
    searches: HashMap<ReqId, retain::Search>,
    out: Out<Message>,
    /// Messages to this shard itself; empty between calls.
    local: VecDeque<Message>,
    /// What the metrics have been told of dropped messages: by full queues, by expiry.
    dropped_told: (u64, u64),
}

impl VolatileServices {
    /// The services of `shard`, one of `shards`. `seed` is the same on all shards of the process, and secret.
    ///
    /// # Panics
    /// If `shard` is not one of `shards`.
    pub fn new(shard: ShardId, shards: u16, seed: u64, metrics: Arc<ShardMetrics>) -> Self {
        assert!(shard.0 < shards, "{shard:?} is not one of {shards} shards");
        Self {
            shard,
            shards,
            seed,
            metrics,
            tenants: Vec::new(),
            owners: OwnerTable::new(),
            routes: RoutePartition::new(),
            cache: MatchCache::new(MATCH_CACHE_TOPICS_MAX),
            additions: Slab::new(),
            inboxes: InboxTable::new(shard, seed),
            retained: RetainTable::new(),
            searches: HashMap::new(),
            out: Out::default(),
            local: VecDeque::new(),
            dropped_told: (0, 0),
        }
    }

    fn tenant(&self, tenant: TenantIdx) -> Option<&Arc<TenantCtx>> {
        self.tenants.get(tenant.0 as usize)?.as_ref()
    }

    /// The shard that owns what `name` stands for; the same whichever shard asks.
    fn place(&self, tenant: TenantIdx, name: &str) -> ShardId {
        if self.shards == 1 {
            return self.shard;
        }
        let hash = keyed_hash(self.seed, &[&tenant.0.to_le_bytes(), name.as_bytes()]);
        ShardId((hash % u64::from(self.shards)) as u16)
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    fn send(&mut self, to: ShardId, message: Message) {
        if to == self.shard {
            self.local.push_back(message);
        } else {
            self.out.sends.push((to, message));
        }
    }

    fn complete(&mut self, completion: Completion) {
        self.out.completions.push(completion);
    }

    /// Works off what this shard has told itself. Ends every call that may have sent something.
    fn settle(&mut self, now: Instant) {
        while let Some(message) = self.local.pop_front() {
            self.handle(now, self.shard, message);
        }
    }

    fn handle(&mut self, now: Instant, from: ShardId, message: Message) {
        match message {
            Message::Dict(message) => self.handle_dict(now, message),
            Message::Dist(message) => self.handle_dist(from, message),
            Message::Inbox(message) => self.handle_inbox(now, from, message),
            Message::Retain(message) => self.handle_retain(now, from, message),
        }
    }

    fn tell_metrics(&mut self) {
        let totals = self.inboxes.totals();
        self.metrics.inboxes.set(totals.inboxes);
        self.metrics.inbox_messages.set(totals.messages);
        self.metrics.inbox_bytes.set(totals.bytes);
        self.metrics.retained_messages.set(self.retained.messages());
        self.metrics.retained_bytes.set(self.retained.bytes());
        self.metrics.routes.set(self.routes.routes());
        let (full, expired) = self.dropped_told;
        if (full, expired) != (totals.dropped_full, totals.dropped_expired) {
            self.metrics.dropped_queue_full.add(totals.dropped_full - full);
            self.metrics.dropped_expired.add(totals.dropped_expired - expired);
            self.dropped_told = (totals.dropped_full, totals.dropped_expired);
        }
    }
}

impl Services for VolatileServices {
    type Message = Message;

    fn receive(&mut self, now: Instant, from: ShardId, message: Message) {
        self.handle(now, from, message);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_dict_timeout(now);
        self.handle_inbox_timeout(now);
        self.handle_retain_timeout(now);
        self.settle(now);
    }

    fn next_timeout(&self) -> Option<Instant> {
        [self.owners.next_timeout(), self.inboxes.next_timeout(), self.retained.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn drain(&mut self, out: &mut Out<Message>) {
        debug_assert!(self.local.is_empty(), "every call settles");
        out.sends.append(&mut self.out.sends);
        out.completions.append(&mut self.out.completions);
        self.tell_metrics();
    }

    fn set_tenant(&mut self, tenant: Arc<TenantCtx>) {
        let index = tenant.idx.0 as usize;
        if self.tenants.len() <= index {
            self.tenants.resize(index + 1, None);
        }
        self.tenants[index] = Some(tenant);
    }
}
