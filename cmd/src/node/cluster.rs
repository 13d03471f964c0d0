//! The node's part in a cluster, if it is to have one.

use super::StartError;
use super::listeners::once_free;
use super::storage::Storage;
use super::watcher::Watcher;
use crate::admin::{ClusterCell, ShardBeat, ShardsCell};
use crate::config::Loaded;
use bifro_cluster::identity::Identity;
use bifro_cluster::{Certificates, Entrance, Founding, Place, Secret, Settings, Underlay};
use bifro_core::config::ClusterConfig;
use bifro_core::ids::{ClusterId, NodeId, ShardId};
use bifro_core::limits::LINK_IDLE;
use bifro_core::metrics::ShardMetrics;
use bifro_genesis::{ClusterGenesis, Draft};
use bifro_net::broker::Command;
use bifro_net::clock::Clock;
use bifro_net::links::{Hello, LinkLimits, Links, LinksConfig};
use bifro_net::mesh::InletSender;
use bifro_store::fatal::exit_process;
use bifro_store::host::{NodeDir, random};
use bifro_swim::{Config, Health, Load};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a node that is to join others waits for their answer before it hears clients: what these publish before could not reach the others.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// How often the system is asked for a port that is followed by as many free ones as there are shards.
const BIND_ATTEMPTS: u32 = 64;

/// Characters of the shortest secret.
const SECRET_CHARACTERS_MIN: usize = 16;

/// The secret of the configuration; an empty one if it names none, which only a node may do that has certificates or that nobody else can
/// reach.
pub(super) fn secret(config: &ClusterConfig) -> Result<Secret, StartError> {
    let Some(file) = &config.secret_file else { return Ok(Secret::new("")) };
    let refuse = |problem: String| StartError::Secret { file: file.clone(), problem };
    let text = std::fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let length = text.trim().chars().count();
    if length < SECRET_CHARACTERS_MIN {
        let advice = "`openssl rand -hex 32` makes a good one; it must be the same on all nodes";
        return Err(refuse(format!(
            "has {length} characters, and at least {SECRET_CHARACTERS_MIN} are needed: {advice}"
        )));
    }
    Ok(Secret::new(&text))
}

/// The certificates of the configuration, if it names any.
pub(super) fn certificates(config: &ClusterConfig) -> Result<Option<Certificates>, StartError> {
    Ok(config.tls.as_ref().map(Certificates::load).transpose()?)
}

/// What the rest of the process is to its part in the cluster.
pub(super) struct Process<'a> {
    pub(super) storage: &'a Storage,
    /// By shard, as what follows.
    pub(super) metrics: &'a [Arc<ShardMetrics>],
    pub(super) beats: &'a [Arc<ShardBeat>],
    pub(super) shards: &'a [InletSender<Command>],
    pub(super) ranges: &'a ShardsCell,
}

/// This node's part in the cluster, before it joins.
pub(super) struct Member {
    config: ClusterConfig,
    hello: Hello,
    identity: Identity,
    entrance: Entrance,
    /// The shards' ends of their links to other nodes, by shard.
    links: Vec<Links>,
}

impl Member {
    /// Binds the ports of the cluster that the configuration names, if it names one, and begins to find out what the cluster is. A node
    /// that keeps nothing has no directory.
    pub(super) fn prepare(
        loaded: &Loaded,
        dir: Option<&NodeDir>,
        shards: u16,
        clock: Clock,
    ) -> Result<Option<Self>, StartError> {
        let Some(config) = &loaded.config.cluster else { return Ok(None) };
        let (node, identity) = match dir {
            Some(dir) => (dir.node(), Identity::open(Path::new(&loaded.config.node.data_dir))?),
            None => (NodeId(random()?), Identity::volatile()),
        };
        let (secret, certificates) = (secret(config)?, certificates(config)?);
        let starts = identity.starts();
        let hello = Hello { cluster: None, node, starts, nonce: random()?, shard: ShardId(0), shards };
        let links = |address, shard| {
            Links::bind(LinksConfig {
                bind: address,
                me: Hello { shard, ..hello },
                secret: secret.clone(),
                certificates: certificates.clone(),
                clock,
                limits: LinkLimits { idle: LINK_IDLE, ..LinkLimits::default() },
            })
        };
        let (socket, links) = bind(config.bind, shards, links)?;
        let is_newcomer = identity.peers().is_empty();
        let founding = dir.map(|dir| founding(dir, loaded.config.store.ranges, is_newcomer)).transpose()?;
        let (advertise, seeds) = (config.advertise, config.seeds.clone());
        let place = Place { id: node, nonce: hello.nonce, socket, advertise, seeds, secret, certificates };
        let entrance = Entrance::open(place, founding)?;
        Ok(Some(Self { config: config.clone(), hello, identity, entrance, links }))
    }

    /// Who this node is.
    pub(super) const fn node(&self) -> NodeId {
        self.hello.node
    }

    /// Waits until the cluster is known, however long that takes; none if this node keeps nothing.
    pub(super) fn found(&mut self) -> Result<Option<ClusterGenesis>, StartError> {
        let known = self.entrance.wait()?;
        if let Some(genesis) = &known {
            self.hello.cluster = Some(genesis.cluster);
            self.links.iter_mut().for_each(|links| links.set_cluster(genesis.cluster));
        }
        Ok(known)
    }

    /// Each shard's links, and how it greets others over them. Once.
    pub(super) fn take_links(&mut self) -> Vec<(Links, Hello)> {
        let hello = self.hello;
        let greeted = |(shard, links)| (links, Hello { shard: ShardId(shard), ..hello });
        (0..).zip(self.links.drain(..)).map(greeted).collect()
    }

    /// Joins, and waits until another member is known to all shards; not for long, since there may be none.
    pub(super) fn join(self, loaded: &Loaded, process: &Process<'_>, cell: &ClusterCell) -> Underlay {
        let config = &self.config;
        let (beats, stall) = (process.beats.to_vec(), Duration::from_secs(loaded.config.admin.stall_s.into()));
        let (cells, metrics) = (process.storage.cells(), process.metrics.to_vec());
        let stalls = process.metrics.to_vec();
        let address = self.entrance.address().to_string();
        let is_first = self.identity.peers().is_empty() && config.seeds.iter().all(|seed| *seed == address);
        let (told, is_told) = mpsc::channel();
        let ranges = process.ranges.clone();
        let listeners = u16::try_from(loaded.config.listener.len()).unwrap_or(u16::MAX);
        let mut watcher = Watcher::new(process.shards.to_vec());
        let underlay = self.entrance.join(Settings {
            cluster: self.hello.cluster,
            identity: self.identity,
            swim: timings(config),
            shards: self.hello.shards,
            roles: loaded.config.roles.roles(),
            load: Box::new(move || load(&metrics, listeners)),
            ranges: Box::new(move |order, done| ranges.ask(order, done)),
            end: Box::new(end_process),
            health: Box::new(move || {
                let turns = beats.iter().all(|beat| beat.silence() < stall);
                let has_space = !cells.as_ref().is_some_and(|cells| cells.is_space_short());
                let is_stalled = stalls.iter().any(|metrics| metrics.store_stalled.read() > 0);
                if turns && has_space && !is_stalled { Health::Well } else { Health::Impaired }
            }),
            watcher: Box::new(move |view| {
                if watcher.see(view) {
                    // Nobody may wait any more.
                    let _ = told.send(());
                }
            }),
            fatal: exit_process(),
        });
        cell.show(underlay.handle().clone());
        if !is_first && is_told.recv_timeout(JOIN_PATIENCE).is_err() {
            let seeds = &config.seeds;
            tracing::warn!(?seeds, "no other node has answered yet; going on alone, and asking them again and again");
        }
        underlay
    }
}

/// What the node brings along to the genesis of its cluster.
fn founding(dir: &NodeDir, ranges: u16, is_newcomer: bool) -> Result<Founding, StartError> {
    let draft = Draft { cluster: ClusterId(random()?.max(1)), seed: random()?, ranges };
    let file = dir.file();
    let keep = move |ledger: &_| file.keep(ledger).map_err(|error| error.to_string());
    Ok(Founding { ledger: dir.ledger()?, draft, keep: Box::new(keep), is_newcomer })
}

/// Binds the underlay's port, and the ports after it for the shards. If the system is to choose, until it has chosen one that is followed by
/// free ones.
fn bind(
    address: SocketAddr,
    shards: u16,
    links: impl Fn(SocketAddr, ShardId) -> io::Result<Links>,
) -> Result<(UdpSocket, Vec<Links>), StartError> {
    let refuse = |address, error| StartError::ClusterPort { address, shards, error };
    let is_chosen = address.port() == 0;
    let mut attempts = if is_chosen { BIND_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let socket = once_free(|| UdpSocket::bind(address)).map_err(|error| refuse(address, error))?;
        let base = socket.local_addr()?;
        let end = |shard: u16| match base.port().checked_add(shard + 1) {
            Some(port) => {
                let address = SocketAddr::new(base.ip(), port);
                let bind = || links(address, ShardId(shard));
                let bound = if is_chosen { bind() } else { once_free(bind) };
                bound.map_err(|error| refuse(address, error))
            }
            None => Err(refuse(base, io::Error::other("there are no more ports"))),
        };
        match (0..shards).map(end).collect() {
            Ok(links) => return Ok((socket, links)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// What this node bears.
fn load(metrics: &[Arc<ShardMetrics>], listeners: u16) -> Load {
    let sum = |count: fn(&ShardMetrics) -> u64| metrics.iter().map(|metrics| count(metrics)).sum::<u64>();
    let ranges = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    Load {
        connections: u32::try_from(sum(|metrics| metrics.connections.read())).unwrap_or(u32::MAX),
        replicas: ranges(sum(|metrics| metrics.ranges_held.read())),
        led: ranges(sum(|metrics| metrics.ranges_led.read())),
        listeners,
        retained: u32::try_from(sum(|metrics| metrics.retained_messages.read())).unwrap_or(u32::MAX),
        is_draining: false,
    }
}

/// Ends this process as SIGTERM from outside would.
fn end_process() {
    tracing::warn!("an operator has removed this node from the cluster: it ends");
    if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGTERM) {
        tracing::error!(%error, "the process cannot be told to end: stop it");
    }
}

/// Everything in proportion to the probe interval, as in the defaults.
fn timings(config: &ClusterConfig) -> Config {
    let probe_interval = Duration::from_millis(config.probe_interval_ms.into());
    Config {
        probe_interval,
        probe_timeout: probe_interval * 2 / 5,
        gossip_interval: probe_interval / 2,
        eviction_grace: Duration::from_secs(config.eviction_grace_s.into()),
        ..Config::default()
    }
}
