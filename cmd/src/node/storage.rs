//! The node's storage, and how each shard gets its services over it.

use super::StartError;
use crate::config::{Loaded, memory};
use bifro_core::config::StoreDurability;
use bifro_core::ids::{NodeId, ShardId};
use bifro_core::metrics::ShardMetrics;
use bifro_core::tenant::{TenantCtx, TenantName};
use bifro_core::time::Instant;
use bifro_net::broker::TenantRegistry;
use bifro_store::fatal::{Wake, exit_process};
use bifro_store::host::{HostError, Node, StorageCells, StoreConfig, random};
use bifro_store::kv::{FjallConfig, SpaceLimits};
use bifro_store::services::{Placement, RangeServices};
use bifro_store::wal::{Durability, WalConfig};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

/// Memory for the base's blocks, as a share of the node's budget, and its bounds.
const CACHE_SHARE: u64 = 32;
const CACHE_BYTES: (u64, u64) = (8 << 20, 1 << 30);
/// Memory for changes on their way to the base, as a share of the node's budget at most, and how little of it a range can do with.
const CHANGES_SHARE: u64 = 4;
const OVERLAY_BYTES_MIN: usize = 64 << 10;
/// How often the start looks whether the shards have recovered.
const RECOVERY_POLL: Duration = Duration::from_millis(1);

/// Where sessions and retained messages are kept, if they are.
pub(super) struct Storage {
    node: Option<Arc<Node>>,
    seed: u64,
    shards: u16,
    /// Who the node is in its cluster, if it is in one.
    member: Option<NodeId>,
    /// Shards whose services are not in their places yet, and one for the node, until it admits clients.
    pub(super) recovering: Arc<AtomicUsize>,
    /// All shards have read what an earlier process left, and so know of every tenant.
    loaded: Barrier,
    failed: Mutex<Option<HostError>>,
}

impl Storage {
    /// Opens the data directory, unless nothing is to be kept.
    pub(super) fn open(loaded: &Loaded, shards: u16) -> Result<Self, StartError> {
        let node = match durability(loaded) {
            None => None,
            Some(durability) => Some(Arc::new(Node::open(store_config(loaded, durability), exit_process())?)),
        };
        let seed = match &node {
            Some(node) => node.genesis().seed,
            None => random()?,
        };
        Ok(Self {
            node,
            seed,
            shards,
            member: None,
            recovering: Arc::new(AtomicUsize::new(usize::from(shards) + 1)),
            loaded: Barrier::new(shards.into()),
            failed: Mutex::new(None),
        })
    }

    /// The node takes part in a cluster. Before its shards start.
    pub(super) const fn join(&mut self, member: NodeId) {
        self.member = Some(member);
    }

    /// A key nobody outside can guess, for hashing client identifiers and topics.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// Who this node is; none if nothing is kept.
    pub(super) fn node_id(&self) -> Option<NodeId> {
        self.node.as_ref().map(|node| node.genesis().node)
    }

    pub(super) fn cells(&self) -> Option<Arc<StorageCells>> {
        self.node.as_ref().map(|node| node.cells())
    }

    /// A shard's services, with everything an earlier process left. To be called on the shard's thread, once on each. None if any
    /// shard cannot read what there is: then the node does not start.
    pub(super) fn services(
        &self,
        shard: ShardId,
        metrics: Arc<ShardMetrics>,
        wake: Wake,
        now: Instant,
        tenants: &TenantRegistry,
    ) -> Option<RangeServices> {
        let placement = Placement { shard, shards: self.shards, metrics };
        let join = |services: RangeServices| match self.member {
            Some(member) => services.join(member),
            None => services,
        };
        let Some(node) = &self.node else { return Some(join(RangeServices::volatile(placement, self.seed))) };
        // A tenant too many shares what the default tenant has, as its clients are refused.
        let fallback = || tenants.all()[0].clone();
        let tenant =
            |name: &str| -> Arc<TenantCtx> { tenants.intern(&TenantName::from(name)).unwrap_or_else(fallback) };
        let services = RangeServices::durable(placement, node, wake, exit_process(), now, &tenant);
        let services = match services {
            Ok(services) => Some(join(services)),
            Err(error) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        };
        self.loaded.wait();
        services.filter(|_| self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_none())
    }

    /// Waits until every shard has recovered.
    ///
    /// # Errors
    /// What one of them could not read; all have ended then.
    pub(super) fn wait(&self) -> Result<(), StartError> {
        while self.recovering.load(Ordering::Acquire) > 1 {
            if let Some(error) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error.into());
            }
            std::thread::sleep(RECOVERY_POLL);
        }
        Ok(())
    }

    /// The node is where it belongs: the shards open their listeners.
    pub(super) fn admit_clients(&self) {
        self.recovering.fetch_sub(1, Ordering::Release);
    }
}

fn durability(loaded: &Loaded) -> Option<Durability> {
    match loaded.config.store.durability {
        StoreDurability::Fsync => Some(Durability::Fsync),
        StoreDurability::Os => Some(Durability::Os),
        StoreDurability::Volatile => None,
    }
}

fn store_config(loaded: &Loaded, durability: Durability) -> StoreConfig {
    let store = &loaded.config.store;
    let reserve_bytes = u64::from(store.disk_reserve_mib) << 20;
    let budget = memory::budget_bytes(&loaded.config.node);
    // Each range of either kind has an overlay that fills, and one that is being written.
    let overlays = 4 * u64::from(store.ranges);
    let changes = (u64::from(store.checkpoint_mib) << 20).min(budget / CHANGES_SHARE);
    StoreConfig {
        dir: loaded.config.node.data_dir.clone().into(),
        ranges: store.ranges,
        wal: WalConfig { durability, reserve_bytes, ..WalConfig::default() },
        kv: FjallConfig {
            cache_bytes: (budget / CACHE_SHARE).clamp(CACHE_BYTES.0, CACHE_BYTES.1),
            reserve_bytes: reserve_bytes / 4,
            ..FjallConfig::default()
        },
        space: SpaceLimits {
            overlay_bytes: usize::try_from(changes / overlays).unwrap_or(usize::MAX).max(OVERLAY_BYTES_MIN),
            ..SpaceLimits::default()
        },
    }
}
