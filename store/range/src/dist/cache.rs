//! What one shard remembers of the partitions' answers. Looked up by every publish.

use crate::key::{TenantKey, TenantKeyRef};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use bifro_core::ids::{ReqId, ShardId, TenantIdx};
use bifro_core::ports::Matches;
use bifro_mqtt::topic::TopicTree;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Requests that one answer serves.
pub type WaitingRequests = SmallVec<[ReqId; 1]>;

#[derive(Debug)]
struct Cached {
    matches: Rc<Matches>,
    stamp: u64,
    partition: ShardId,
}

/// What is remembered or waited for of one tenant in one partition.
#[derive(Debug, Default)]
struct CachedPartition {
    topics: TopicTree<()>,
    asked: usize,
}

/// The match cache of one shard.
///
/// Invariants: a topic is remembered in `entries` exactly if it stands in its partition's tree; at most `capacity` are; `order`
/// has every remembered topic with its current stamp, oldest first, among at most as many stale ones.
#[derive(Debug)]
pub struct MatchCache {
    capacity: usize,
    entries: HashMap<TenantKey, Cached>,
    order: VecDeque<(u64, TenantKey)>,
    partitions: HashMap<(TenantIdx, ShardId), CachedPartition>,
    asked: HashMap<TenantKey, WaitingRequests>,
    last_stamp: u64,
}

impl MatchCache {
    /// An empty cache for `capacity` topics, of which the least recently added go first.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::new(),
            order: VecDeque::new(),
            partitions: HashMap::new(),
            asked: HashMap::new(),
            last_stamp: 0,
        }
    }

    /// Topics remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No topic is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The receivers of a topic, if remembered: one hash, one look-up, no allocation.
    pub fn matches(&self, topic: TenantKeyRef<'_>) -> Option<&Rc<Matches>> {
        self.entries.get(&topic).map(|cached| &cached.matches)
    }

    /// Notes that `req` waits for the receivers of a topic of `partition`. Returns the topic if the partition is to be asked,
    /// none if it has been asked already.
    pub fn ask(&mut self, topic: TenantKeyRef<'_>, partition: ShardId, req: ReqId) -> Option<Arc<str>> {
        if let Some(waiting) = self.asked.get_mut(&topic) {
            waiting.push(req);
            return None;
        }
        let key = topic.to_key();
        let name = key.name.clone();
        self.asked.insert(key, SmallVec::from_iter([req]));
        self.partitions.entry((topic.tenant, partition)).or_default().asked += 1;
        Some(name)
    }

    /// Remembers a partition's answer. Returns it with the requests that wait for it.
    pub fn answered(&mut self, key: TenantKey, partition: ShardId, matches: Matches) -> (Rc<Matches>, WaitingRequests) {
        let matches = Rc::new(matches);
        let waiting = self.asked.remove(&key).unwrap_or_default();
        while self.entries.len() >= self.capacity {
            self.evict_oldest();
        }
        let of = self.partitions.entry((key.tenant, partition)).or_default();
        of.asked = of.asked.saturating_sub(1);
        of.topics.insert(&key.name, ());
        self.last_stamp += 1;
        self.order.push_back((self.last_stamp, key.clone()));
        self.entries.insert(key, Cached { matches: matches.clone(), stamp: self.last_stamp, partition });
        self.drop_stale();
        (matches, waiting)
    }

    /// Forgets the topics of a partition that `filter` matches. Returns whether the cache is still interested in others of
    /// the tenant there.
    pub fn forget(&mut self, tenant: TenantIdx, partition: ShardId, filter: &str) -> bool {
        let Some(of) = self.partitions.get_mut(&(tenant, partition)) else { return false };
        of.topics.remove_matching(filter, |name, ()| {
            self.entries.remove(&TenantKeyRef { tenant, name });
        });
        let interested = of.asked > 0 || !of.topics.is_empty();
        if !interested {
            self.partitions.remove(&(tenant, partition));
        }
        interested
    }

    fn evict_oldest(&mut self) {
        while let Some((stamp, key)) = self.order.pop_front() {
            let Some(cached) = self.entries.get(&key).filter(|cached| cached.stamp == stamp) else { continue };
            if let Some(of) = self.partitions.get_mut(&(key.tenant, cached.partition)) {
                of.topics.remove(&key.name);
            }
            self.entries.remove(&key);
            return;
        }
    }

    /// Keeps `order` within twice what is remembered; each topic added pays for at most two entries looked at.
    fn drop_stale(&mut self) {
        if self.order.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            self.order.retain(|(stamp, key)| entries.get(key).is_some_and(|cached| cached.stamp == *stamp));
        }
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        assert!(self.entries.len() <= self.capacity);
        assert!(self.order.len() <= 2 * self.capacity + 16 + 1);
        let in_trees: usize = self.partitions.values().map(|of| of.topics.len()).sum();
        assert_eq!(in_trees, self.entries.len());
        assert_eq!(self.partitions.values().map(|of| of.asked).sum::<usize>(), self.asked.len());
        let current = |(stamp, key): &&(u64, TenantKey)| self.entries.get(key).is_some_and(|e| e.stamp == *stamp);
        assert_eq!(self.order.iter().filter(current).count(), self.entries.len());
    }
}
