//! A node: its disk and clock, and the process that runs on it as long as it is up, with the real storage, services and underlay.

use super::options::Settings;
use super::shard::{Shard, TENANT};
use super::talk::Hello;
use crate::clock::Clock;
use crate::queue::Moment;
use bifro_core::ids::{ClusterId, NodeId, NodeIdx, ShardId};
use bifro_core::metrics::ShardMetrics;
use bifro_core::nodes::{Member as Belonging, Node as Other, Nodes};
use bifro_core::ports::Services;
use bifro_core::rng::Prng;
use bifro_core::roles::Duties;
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_genesis::ClusterGenesis;
use bifro_store::fatal::{Fatal, Wake};
use bifro_store::host::{Disk, Node as Storage, Replication, StoreConfig};
use bifro_store::kv::{FjallConfig, SpaceLimits};
use bifro_store::services::{HearingCells, Placement, RangeServices};
use bifro_store::wal::WalConfig;
use bifro_swim::{Announcement, Config, Health, Incarnation, Member, Peer, Status, Swim};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) shards: u16,
    pub(crate) clock: Clock,
    disk: Disk,
    /// Its starts, and whom it has met: what a node's data directory says of them.
    starts: u32,
    pub(crate) peers: Vec<Peer>,
    pub(crate) process: Option<Process>,
    pub(crate) frozen_until: Moment,
    /// By shard.
    pub(crate) stalled_until: Vec<Moment>,
    pub(crate) slow_until: Moment,
}

/// A node's process. Dropped it is dead.
pub(crate) struct Process {
    /// Which of all: what another process of the node has set going is forgotten.
    pub(crate) boot: u64,
    pub(crate) shards: Vec<Shard>,
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    pub(crate) swim: Swim,
    /// When the next of each is to happen.
    pub(crate) turns: Vec<Option<Moment>>,
    pub(crate) swim_at: Option<Moment>,
    pub(crate) is_writing: bool,
    pub(crate) does_jobs: bool,
    /// Every process that ever was a node, by its number.
    known: BTreeMap<(NodeId, u64), NodeIdx>,
    told: Option<Arc<Nodes>>,
    /// Dropped after the shards.
    pub(crate) storage: Storage,
}

/// Where a node's underlay listens.
pub(crate) fn address(node: usize) -> SocketAddr {
    ([10, 0, 0, node as u8 + 1], 7_000).into()
}

/// The node that listens there.
pub(crate) fn at(address: SocketAddr) -> usize {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]) - 1,
        std::net::IpAddr::V6(_) => unreachable!("nobody has such an address"),
    }
}

impl Node {
    pub(crate) fn new(index: usize, shards: u16, clock: Clock) -> Self {
        Self {
            id: NodeId(index as u64 + 100),
            shards,
            clock,
            disk: Disk::default(),
            starts: 0,
            peers: Vec::new(),
            process: None,
            frozen_until: Moment(0),
            stalled_until: vec![Moment(0); shards.into()],
            slow_until: Moment(0),
        }
    }

    /// Starts a process, the `boot`th of all.
    pub(crate) fn start(&mut self, boot: u64, cluster: &ClusterGenesis, settings: &Settings, at: Moment, rng: &Prng) {
        let (now, id, index) = (self.clock.read(at), self.id, (self.id.0 - 100) as usize);
        let fatal: Fatal = Arc::new(move |reason| panic!("{id} must not go on: {reason}"));
        let config = config(settings);
        let storage = Storage::simulated(id, cluster.clone(), &self.disk, config, fatal.clone())
            .unwrap_or_else(|error| panic!("{id} does not start: {error}"));
        let tenant = Arc::new(tenant());
        let metrics: Vec<Arc<ShardMetrics>> = (0..self.shards).map(|_| Arc::default()).collect();
        let cells = HearingCells::new(self.shards);
        let shards = (0..self.shards).map(|shard| {
            let (metrics, cells) = (metrics[usize::from(shard)].clone(), cells.clone());
            let placement = Placement { shard: ShardId(shard), shards: self.shards, metrics, cells };
            let (wake, found): (Wake, _) = (Arc::new(|| {}), tenant.clone());
            let find = Arc::new(move |_: &str| found.clone());
            let services = RangeServices::clustered(placement, &storage, wake, fatal.clone(), now, find);
            let mut services = services.unwrap_or_else(|error| panic!("{id} does not start: {error}"));
            services.set_tenant(tenant.clone());
            let me = Hello { node: id, nonce: boot, shard };
            Shard::new(me, self.shards, services, tenant.clone(), boot << 8 | u64::from(shard), now)
        });
        let shards = shards.collect();
        self.starts += 1;
        let me = Announcement {
            id,
            incarnation: Incarnation { start: self.starts, word: 0 },
            nonce: boot,
            address: address(index),
            shards: self.shards,
            health: Health::Well,
            duties: Duties::default(),
        };
        let mut swim = Swim::new(Config::default(), me, self.peers.clone(), rng.derive(boot), now);
        swim.set_seeds((0..cluster.founders.len()).map(address).collect(), now);
        self.process = Some(Process {
            boot,
            shards,
            metrics,
            swim,
            turns: vec![None; self.shards.into()],
            swim_at: None,
            is_writing: false,
            does_jobs: false,
            known: BTreeMap::new(),
            told: None,
            storage,
        });
    }

    /// What its clock shows.
    pub(crate) fn now(&self, at: Moment) -> Instant {
        self.clock.read(at)
    }

    /// Until when nothing of it runs, or nothing of one of its shards.
    pub(crate) fn stands_until(&self, shard: Option<u16>) -> Moment {
        shard.map_or(self.frozen_until, |shard| self.frozen_until.max(self.stalled_until[usize::from(shard)]))
    }
}

impl Process {
    /// Who lives, as the shards are to know it, if that is news. As bifro-cmd's `node/cluster.rs` reckons.
    pub(crate) fn nodes(&mut self) -> Option<Arc<Nodes>> {
        let members: Vec<Member> = self.swim.members().cloned().collect();
        let present = members.iter().filter(|member| member.status.is_present());
        let mut others: Vec<Other> = present.map(|member| self.other(&member.announcement)).collect();
        others.sort_by_key(|node| node.idx);
        let me = self.swim.me().id;
        let belongs = |member: &&Member| member.status != Status::Left && !member.evicted;
        let mut belonging: Vec<NodeId> =
            members.iter().filter(belongs).map(|member| member.announcement.id).chain([me]).collect();
        belonging.sort_unstable();
        belonging.dedup();
        let belonging = belonging.into_iter().map(|id| Belonging { id, duties: Duties::default() }).collect();
        let nodes = Nodes { me, others, members: belonging };
        if self.told.as_deref() == Some(&nodes) {
            return None;
        }
        self.told = Some(Arc::new(nodes));
        self.told.clone()
    }

    fn other(&mut self, of: &Announcement) -> Other {
        let next = NodeIdx(self.known.len() as u16 + 1);
        let idx = *self.known.entry((of.id, of.nonce)).or_insert(next);
        of.to_node(idx)
    }
}

/// What the nodes have agreed on. All of them are there from the beginning.
pub(crate) fn genesis(nodes: usize, ranges: u16, seed: u64) -> ClusterGenesis {
    let founders = (0..nodes as u64).map(|node| NodeId(node + 100)).collect();
    ClusterGenesis { cluster: ClusterId(1), seed, ranges, founders }
}

fn config(settings: &Settings) -> StoreConfig {
    let Settings { overlay_bytes, kept_entries, chunk_bytes, .. } = *settings;
    StoreConfig {
        wal: WalConfig::default(),
        kv: FjallConfig::default(),
        space: SpaceLimits { overlay_bytes, ..SpaceLimits::default() },
        replication: Replication { kept_entries, chunk_bytes, ..Replication::default() },
    }
}

/// Nothing is dropped because there is too much of it.
fn tenant() -> TenantCtx {
    let settings =
        TenantSettings { inbox_messages_max: u32::MAX, inbox_bytes_max: u64::MAX, ..TenantSettings::default() };
    TenantCtx { idx: TENANT, name: "t".into(), settings, quota: Arc::new(Quota::new(&QuotaLimits::default())) }
}
