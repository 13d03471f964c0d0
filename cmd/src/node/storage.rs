//! The node's storage, and how each shard gets its services over it.

use super::StartError;
use crate::config::{Loaded, memory};
use bifro_core::config::StoreDurability;
use bifro_core::ids::{NodeId, ShardId};
use bifro_core::metrics::ShardMetrics;
use bifro_core::roles::Roles;
use bifro_core::tenant::TenantName;
use bifro_core::time::Instant;
use bifro_genesis::ClusterGenesis;
use bifro_net::broker::TenantRegistry;
use bifro_store::fatal::{Wake, exit_process};
use bifro_store::host::{HostError, Node, NodeDir, Replication, StorageCells, StoreConfig, random};
use bifro_store::kv::{FjallConfig, SpaceLimits};
use bifro_store::services::{FindTenant, HearingCells, Placement, RangeServices};
use bifro_store::wal::{Durability, WalConfig};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

/// Memory for the base's blocks, as a share of the node's budget, and its bounds.
const CACHE_SHARE: u64 = 32;
const CACHE_BYTES: (u64, u64) = (8 << 20, 1 << 30);
/// Memory for changes on their way to the base, as a share of the node's budget at most, and how little of it a range can do with.
const CHANGES_SHARE: u64 = 4;
const OVERLAY_BYTES_MIN: usize = 64 << 10;
/// How long a node that is to serve clients waits for the leaders of all ranges.
const LEADERS_PATIENCE: Duration = Duration::from_secs(10);
/// How often the start looks whether the shards have recovered.
const RECOVERY_POLL: Duration = Duration::from_millis(1);

/// Where sessions and retained messages are kept, if they are.
pub(super) struct Storage {
    node: Option<Arc<Node>>,
    seed: u64,
    shards: u16,
    /// Who the node is in its cluster, if it is in one.
    member: Option<NodeId>,
    roles: Roles,
    hearing: Arc<HearingCells>,
    /// Shards whose services are not in their places yet, and one for the node, until it admits clients.
    pub(super) recovering: Arc<AtomicUsize>,
    /// All shards have read what an earlier process left, and so know of every tenant.
    loaded: Barrier,
    failed: Mutex<Option<HostError>>,
}

impl Storage {
    /// Opens the storage, unless nothing is to be kept. `member`: who the node is in its cluster, if it is in one.
    pub(super) fn open(
        loaded: &Loaded,
        kept: Option<(NodeDir, ClusterGenesis)>,
        member: Option<NodeId>,
        shards: u16,
    ) -> Result<Self, StartError> {
        let node = match kept {
            None => None,
            Some((dir, cluster)) => {
                let config = store_config(loaded, cluster.ranges);
                Some(Arc::new(Node::open(dir, cluster, config, exit_process())?))
            }
        };
        let seed = match &node {
            Some(node) => node.genesis().seed,
            None => random()?,
        };
        Ok(Self {
            node,
            seed,
            shards,
            member,
            roles: loaded.config.roles.roles(),
            hearing: HearingCells::new(shards),
            recovering: Arc::new(AtomicUsize::new(usize::from(shards) + 1)),
            loaded: Barrier::new(shards.into()),
            failed: Mutex::new(None),
        })
    }

    /// A key nobody outside can guess, for hashing client identifiers and topics.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
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
        tenants: &Arc<TenantRegistry>,
    ) -> Option<RangeServices> {
        let placement = Placement { shard, shards: self.shards, metrics, cells: self.hearing.clone() };
        let Some(node) = &self.node else {
            let services = RangeServices::volatile(placement, self.seed);
            return Some(match self.member {
                Some(member) => services.join(member).with_roles(self.roles),
                None => services,
            });
        };
        let tenants = tenants.clone();
        let tenant: FindTenant = Arc::new(move |name| {
            // A tenant too many shares what the default tenant has, as its clients are refused.
            tenants.intern(&TenantName::from(name)).unwrap_or_else(|| tenants.all()[0].clone())
        });
        let services = match self.member {
            Some(_) => RangeServices::clustered(placement, node, wake, exit_process(), now, tenant),
            None => RangeServices::durable(placement, node, wake, exit_process(), now, &*tenant),
        };
        let services = match services {
            Ok(services) => Some(services),
            Err(error) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        };
        self.loaded.wait();
        services
            .map(|services| services.with_roles(self.roles))
            .filter(|_| self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_none())
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

    /// Waits until every range of persistent sessions has a leader, so that the first clients need not; not for long, since there may be
    /// too few nodes yet.
    pub(super) fn wait_for_leaders(&self, metrics: &[Arc<ShardMetrics>]) {
        let start = std::time::Instant::now();
        let unled = || metrics.iter().map(|metrics| metrics.ranges_unled.read()).max().unwrap_or_default();
        while unled() > 0 && start.elapsed() < LEADERS_PATIENCE {
            std::thread::sleep(RECOVERY_POLL);
        }
        if unled() > 0 {
            let ranges = unled();
            tracing::warn!(
                ranges,
                "ranges of persistent sessions have no leader: a majority of their nodes is needed; publishes wait until then"
            );
        }
    }

    /// The node is where it belongs: the shards open their listeners.
    pub(super) fn admit_clients(&self) {
        self.recovering.fetch_sub(1, Ordering::Release);
    }
}

/// Takes hold of the data directory, unless nothing is to be kept.
pub(super) fn directory(loaded: &Loaded) -> Result<Option<NodeDir>, StartError> {
    match loaded.config.store.durability {
        StoreDurability::Volatile => Ok(None),
        StoreDurability::Fsync | StoreDurability::Os => {
            Ok(Some(NodeDir::open(Path::new(&loaded.config.node.data_dir))?))
        }
    }
}

fn store_config(loaded: &Loaded, ranges: u16) -> StoreConfig {
    let store = &loaded.config.store;
    let durability = match store.durability {
        StoreDurability::Fsync => Durability::Fsync,
        StoreDurability::Os | StoreDurability::Volatile => Durability::Os,
    };
    let reserve_bytes = u64::from(store.disk_reserve_mib) << 20;
    let budget = memory::budget_bytes(&loaded.config.node);
    // Each range of either kind has an overlay that fills, and one that is being written.
    let overlays = 4 * u64::from(ranges);
    let changes = (u64::from(store.checkpoint_mib) << 20).min(budget / CHANGES_SHARE);
    StoreConfig {
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
        replication: Replication::default(),
    }
}
