//! The routes of one partition, and who has asked for them.

use super::RouteFilter;
use super::routes::RouteTable;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::{ShardId, TenantIdx};
use bifro_core::ports::{Matches, PortError, Receiver};
use hashbrown::HashMap;
use slab::Slab;

/// What a partition wants told, each to the shard named.
#[derive(Debug)]
pub enum DistEffect {
    /// Forget all topics of this partition that the filter matches; if `ack` is there, answer with
    /// [`RoutePartition::forgotten`].
    Forget {
        /// Whose cache.
        shard: ShardId,
        /// Tenant.
        tenant: TenantIdx,
        /// The filter.
        route: Arc<RouteFilter>,
        /// Names the route that is being added.
        ack: Option<u32>,
    },
    /// The route is in place in this partition, and no cache contradicts it.
    Added {
        /// Who asked.
        shard: ShardId,
        /// As the asker numbers it.
        token: u32,
        /// Refusal, if any; then this partition has no such route.
        result: Result<(), PortError>,
    },
    /// The answer to a match.
    Matched {
        /// Who asked.
        shard: ShardId,
        /// Tenant.
        tenant: TenantIdx,
        /// Topic.
        topic: Arc<str>,
        /// The receivers.
        matches: Box<Matches>,
    },
}

#[derive(Debug, Default)]
struct TenantPartition {
    routes: RouteTable,
    /// Shards that may remember, or wait for, a match of this tenant; ascending, so that effects have one order.
    interested: BTreeSet<ShardId>,
}

/// A route stored, waiting for caches to forget.
#[derive(Debug)]
struct Adding {
    shard: ShardId,
    token: u32,
    unacknowledged: usize,
}

/// One partition of all tenants' routes.
#[derive(Debug, Default)]
pub struct RoutePartition {
    tenants: HashMap<TenantIdx, TenantPartition>,
    adding: Slab<Adding>,
    routes: u64,
}

impl RoutePartition {
    /// A partition without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes held.
    pub const fn routes(&self) -> u64 {
        self.routes
    }

    /// Routes stored whose addition some cache has not acknowledged yet.
    pub fn adding(&self) -> usize {
        self.adding.len()
    }

    /// Adds a route for `shard`, which knows the addition as `token`. `members_max` bounds the group, if there is one.
    #[expect(clippy::too_many_arguments, reason = "the request's fields, each of another type")]
    pub fn add(
        &mut self,
        shard: ShardId,
        token: u32,
        tenant: TenantIdx,
        route: &Arc<RouteFilter>,
        receiver: Receiver,
        members_max: u32,
        effects: &mut Vec<DistEffect>,
    ) {
        let partition = self.tenants.entry(tenant).or_default();
        let before = partition.routes.len();
        let result = partition.routes.add(route, receiver, members_max);
        self.routes += partition.routes.len() - before;
        // A route that was there already may still have caches to be waited for, so it is announced again.
        if result.is_err() || partition.interested.is_empty() {
            effects.push(DistEffect::Added { shard, token, result });
            return;
        }
        let unacknowledged = partition.interested.len();
        let ack = u32::try_from(self.adding.insert(Adding { shard, token, unacknowledged }))
            .expect("fewer than 2^32 routes are being added");
        effects.extend(partition.interested.iter().map(|&shard| DistEffect::Forget {
            shard,
            tenant,
            route: route.clone(),
            ack: Some(ack),
        }));
    }

    /// Removes a route.
    pub fn remove(
        &mut self,
        tenant: TenantIdx,
        route: &Arc<RouteFilter>,
        receiver: Receiver,
        effects: &mut Vec<DistEffect>,
    ) {
        let Some(partition) = self.tenants.get_mut(&tenant) else { return };
        if !partition.routes.remove(route, receiver) {
            return;
        }
        self.routes -= 1;
        effects.extend(partition.interested.iter().map(|&shard| DistEffect::Forget {
            shard,
            tenant,
            route: route.clone(),
            ack: None,
        }));
        self.drop_if_idle(tenant);
    }

    /// The cache of `shard` has forgotten what the route `ack` concerns. `interested`: it remembers or waits for other topics.
    pub fn forgotten(
        &mut self,
        shard: ShardId,
        tenant: TenantIdx,
        ack: u32,
        interested: bool,
        effects: &mut Vec<DistEffect>,
    ) {
        if !interested && let Some(partition) = self.tenants.get_mut(&tenant) {
            partition.interested.remove(&shard);
            self.drop_if_idle(tenant);
        }
        let Some(adding) = self.adding.get_mut(ack as usize) else { return };
        adding.unacknowledged -= 1;
        if adding.unacknowledged == 0 {
            let Adding { shard, token, .. } = self.adding.remove(ack as usize);
            effects.push(DistEffect::Added { shard, token, result: Ok(()) });
        }
    }

    /// The receivers of a topic, for the cache of `shard`, which is interested from now on.
    pub fn match_topic(&mut self, shard: ShardId, tenant: TenantIdx, topic: Arc<str>, effects: &mut Vec<DistEffect>) {
        let partition = self.tenants.entry(tenant).or_default();
        partition.interested.insert(shard);
        let matches = Box::new(partition.routes.matches(&topic));
        effects.push(DistEffect::Matched { shard, tenant, topic, matches });
    }

    /// The members of one group; nobody remembers the answer.
    pub fn match_group(&self, tenant: TenantIdx, route: &RouteFilter) -> Matches {
        let group = self.tenants.get(&tenant).and_then(|partition| partition.routes.group(route));
        Matches { groups: group.into_iter().collect(), ..Matches::default() }
    }

    fn drop_if_idle(&mut self, tenant: TenantIdx) {
        let idle = |partition: &TenantPartition| partition.routes.len() == 0 && partition.interested.is_empty();
        if self.tenants.get(&tenant).is_some_and(idle) {
            self.tenants.remove(&tenant);
        }
    }
}
