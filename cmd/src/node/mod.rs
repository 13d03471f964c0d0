//! A running node: shards, listeners, admin thread and signals brought together, from start to exit.
//!
//! Order of the start: what can be refused (configuration, machine, files, addresses) comes before anything runs. Order of
//! the end: readiness goes first, then listeners, then sessions, then the shards, then the admin thread.

mod cluster;
mod error;
mod listeners;
mod policy;
mod reload;
mod storage;
mod watcher;

pub use error::StartError;

use crate::acl::AclAuthorizer;
use crate::admin::{self, AdminHandle, AdminState, ClusterCell, Phase, Readiness, ShardBeat, ShardsCell};
use crate::auth::AuthPlane;
use crate::config::Loaded;
use crate::logging::Logging;
use crate::signals::{self, Request};
use crate::{config, selfcheck};
use bifro_cluster::Underlay;
use bifro_core::ids::ShardId;
use bifro_core::metrics::ShardMetrics;
use bifro_core::ports::Services;
use bifro_net::broker::{BrokerSettings, Command, Shard, ShardMessage, ShardParts, TenantRegistry};
use bifro_net::clock::Clock;
use bifro_net::cores::{self, Executors, ExecutorsConfig, spawn_executors};
use bifro_net::links::{Hello, Links};
use bifro_net::mesh::{Inlet, InletSender, MeshEnd, inlet, mesh};
use bifro_net::ring::{Ring, RingConfig};
use bifro_store::fatal::Wake;
use bifro_store::host::random;
use bifro_store::services::RangeServices;
use listeners::Sockets;
use policy::ConfiguredTenants;
use reload::Reloader;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::Storage;

/// Commands that may wait for one shard; with more the sender tries again.
const INLET_CAPACITY: usize = 16_384;
/// How long shards may take beyond the shutdown deadline before the process exits without them.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long the log may take to be written at exit.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Checks everything a start would check, without starting.
///
/// # Errors
/// What a start would fail with.
pub fn check(loaded: &Loaded) -> Result<(), StartError> {
    for listener in &loaded.config.listener {
        listeners::settings(listener, listeners::frame_bytes_max(&loaded.config))?;
    }
    if let Some(cluster) = &loaded.config.cluster {
        cluster::secret(cluster)?;
        cluster::certificates(cluster)?;
    }
    AclAuthorizer::load(&loaded.acl)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    AuthPlane::new(&loaded.auth, &loaded.auth_chains(), runtime.handle().clone())?;
    Ok(())
}

/// What one shard is given before it starts.
struct ShardSeed {
    metrics: Arc<ShardMetrics>,
    beat: Arc<ShardBeat>,
    mesh: MeshEnd<ShardMessage<<RangeServices as Services>::Message>>,
    inlet: Inlet<Command>,
    sender: InletSender<Command>,
    listeners: Vec<(u16, OwnedFd)>,
    links: Option<(Links, Hello)>,
}

/// Runs a node until it has been told to end.
///
/// # Errors
/// Why it could not start.
pub fn run(loaded: Loaded) -> Result<(), StartError> {
    let shards = shard_count(&loaded);
    let logging = Arc::new(Logging::start(&loaded.config.log, usize::from(shards))?);
    let result = run_logged(loaded, shards, &logging);
    if let Err(error) = &result {
        tracing::error!(%error, "the node cannot start");
    }
    logging.flush(LOG_PATIENCE);
    result
}

fn run_logged(loaded: Loaded, shards: u16, logging: &Arc<Logging>) -> Result<(), StartError> {
    let connections = loaded.config.listener.iter().map(|listener| u64::from(listener.connections_max)).sum();
    let findings = selfcheck::run(shards.into(), connections).map_err(StartError::Machine)?;
    for warning in &findings.warnings {
        tracing::warn!("{warning}");
    }
    let clock = Clock::start();
    let early = signals::start(end_unserved(logging.clone()))?;
    let (storage, mut member) = found(&loaded, shards, clock)?;
    let settings = Arc::new(broker_settings(&loaded, shards, storage.seed())?);
    let acl = AclAuthorizer::load(&loaded.acl)?;
    let tenants = Arc::new(TenantRegistry::new(Arc::new(ConfiguredTenants::of(&loaded.config))));
    let readiness = Arc::new(Readiness::default());
    let state = admin_state(shards, &tenants, &readiness, &storage, logging);
    let (metrics, beats) = (state.metrics.clone(), state.beats.clone());
    let (cluster_cell, shards_cell) = (state.cluster.clone(), state.shards.clone());
    let admin = admin::start(&loaded.config.admin, state)?;
    let auth = AuthPlane::new(&loaded.auth, &loaded.auth_chains(), admin.runtime().clone())?;
    let sockets = loaded.config.listener.iter().map(|listener| listeners::open(listener, shards));
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = sockets.iter().map(|sockets| sockets.address.clone()).collect();
    let links = member.as_mut().map(cluster::Member::take_links).unwrap_or_default();
    let (seeds, senders) = seeds(&loaded, &metrics, &beats, sockets, links);
    shards_cell.show(senders.clone());
    let executors = spawn_shards(
        &loaded,
        shards,
        seeds,
        &Common {
            settings: settings.clone(),
            auth: auth.clone(),
            acl: Arc::new(acl),
            tenants: tenants.clone(),
            storage: storage.clone(),
            clock,
            logging,
        },
    )?;
    let reloader = Reloader::new(loaded.clone(), settings, auth, tenants, senders.clone());
    let deadline = Duration::from_secs(loaded.config.node.shutdown_deadline_s.into());
    let _signals = handle_signals(reloader, logging.clone(), readiness.clone(), senders.clone(), deadline)?;
    drop(early);
    if let Err(error) = storage.wait() {
        executors.join();
        return Err(error);
    }
    let process = cluster::Process {
        storage: &storage,
        metrics: &metrics,
        beats: &beats,
        shards: &senders,
        ranges: &shards_cell,
    };
    let underlay = member.map(|member| member.join(&loaded, &process, &cluster_cell));
    storage.wait_for_leaders(&metrics);
    storage.admit_clients();
    announce(&loaded, &addresses, &admin, underlay.as_ref(), shards, findings.connections_fit);
    readiness.enter(Phase::Ready);
    executors.join();
    if let Some(underlay) = underlay {
        underlay.leave();
    }
    tracing::info!("the node has ended");
    Ok(())
}

/// What the admin endpoint reads, of which the shards and the cluster's thread are told.
fn admin_state(
    shards: u16,
    tenants: &Arc<TenantRegistry>,
    readiness: &Arc<Readiness>,
    storage: &Storage,
    logging: &Logging,
) -> AdminState {
    AdminState {
        metrics: (0..shards).map(|_| Arc::default()).collect(),
        beats: (0..shards).map(|_| Arc::default()).collect(),
        tenants: Arc::new(policy::Registered(tenants.clone())),
        readiness: readiness.clone(),
        events: logging.events().clone(),
        lines_dropped: logging.lines_dropped(),
        storage: storage.cells(),
        cluster: ClusterCell::default(),
        shards: ShardsCell::default(),
    }
}

/// Opens the storage of a node of its cluster, which has to be known before: the node waits for it, unless it is alone or keeps nothing.
fn found(loaded: &Loaded, shards: u16, clock: Clock) -> Result<(Arc<Storage>, Option<cluster::Member>), StartError> {
    let dir = storage::directory(loaded)?;
    let mut member = cluster::Member::prepare(loaded, dir.as_ref(), shards, clock)?;
    let known = match &mut member {
        Some(member) => member.found()?,
        None => dir.as_ref().map(|dir| dir.alone(loaded.config.store.ranges)).transpose()?,
    };
    let id = member.as_ref().map(cluster::Member::node);
    Ok((Arc::new(Storage::open(loaded, dir.zip(known), id, shards)?), member))
}

/// What signals do until the node has something to serve: told to end, it ends at once, for nobody has been promised anything.
fn end_unserved(logging: Arc<Logging>) -> impl FnMut(Request) + Send {
    move |request| match request {
        Request::Reload => tracing::warn!("told to reload while starting: nothing is reloaded"),
        Request::Drain | Request::Exit => {
            tracing::info!("told to end before the node was ready");
            logging.flush(LOG_PATIENCE);
            std::process::exit(0);
        }
    }
}

fn shard_count(loaded: &Loaded) -> u16 {
    match loaded.config.node.cores {
        0 => cores::recommended_shards(),
        cores => cores,
    }
}

fn broker_settings(loaded: &Loaded, shards: u16, seed: u64) -> Result<BrokerSettings, StartError> {
    let config = &loaded.config;
    let frame_bytes_max = listeners::frame_bytes_max(config);
    let listeners = config.listener.iter().map(|listener| listeners::settings(listener, frame_bytes_max));
    let limits = &config.limits;
    Ok(BrokerSettings {
        shards,
        listeners: listeners.collect::<Result<_, _>>()?,
        write_high_water_bytes: limits.write_high_water_bytes as usize,
        stall_deadline: Duration::from_secs(limits.slow_subscriber_s.into()),
        publish_deadline: Duration::from_millis(limits.publish_deadline_ms.into()),
        shard_budget_bytes: (config::memory::budget_bytes(&config.node) / u64::from(shards)).max(1),
        turn_bytes_per_conn: limits.turn_bytes as usize,
        drain_per_s: config.node.drain_per_s,
        nonce: random()?,
        seed,
    })
}

fn seeds(
    loaded: &Loaded,
    metrics: &[Arc<ShardMetrics>],
    beats: &[Arc<ShardBeat>],
    sockets: Vec<Sockets>,
    links: Vec<(Links, Hello)>,
) -> (Vec<ShardSeed>, Vec<InletSender<Command>>) {
    let shards = u16::try_from(metrics.len()).expect("shards are counted in 16 bits");
    let ends = mesh(shards, loaded.config.limits.mesh_capacity as usize);
    let mut by_shard: Vec<Vec<(u16, OwnedFd)>> = metrics.iter().map(|_| Vec::new()).collect();
    for (listener, sockets) in (0..).zip(sockets) {
        for (shard, fd) in by_shard.iter_mut().zip(sockets.fds) {
            shard.push((listener, fd));
        }
    }
    let mut seeds = Vec::new();
    let mut senders = Vec::new();
    let mut links = links.into_iter();
    for ((mesh, listeners), (metrics, beat)) in ends.into_iter().zip(by_shard).zip(metrics.iter().zip(beats)) {
        let (sender, inlet) = inlet(INLET_CAPACITY);
        senders.push(sender.clone());
        let links = links.next();
        seeds.push(ShardSeed { metrics: metrics.clone(), beat: beat.clone(), mesh, inlet, sender, listeners, links });
    }
    (seeds, senders)
}

/// What all shards are given.
struct Common<'a> {
    settings: Arc<BrokerSettings>,
    auth: AuthPlane,
    acl: Arc<AclAuthorizer>,
    tenants: Arc<TenantRegistry>,
    storage: Arc<Storage>,
    clock: Clock,
    logging: &'a Logging,
}

fn spawn_shards(
    loaded: &Loaded,
    shards: u16,
    seeds: Vec<ShardSeed>,
    common: &Common<'_>,
) -> Result<Executors, StartError> {
    let config = &loaded.config;
    let executors = ExecutorsConfig {
        shards,
        pin: if config.node.pin { cores::pinning(shards) } else { None },
        name: "shard".to_owned(),
    };
    let ring = RingConfig {
        buffers: config.limits.ring_buffers,
        buffer_bytes: config.limits.ring_buffer_bytes,
        spin: Duration::from_micros(config.node.spin_us.into()),
        ..RingConfig::default()
    };
    // Each shard takes its seed once; what a shard owns cannot be shared, so it is handed over and not lent.
    let seeds: Mutex<Vec<Option<ShardSeed>>> = Mutex::new(seeds.into_iter().map(Some).collect());
    let (settings, auth, acl) = (common.settings.clone(), common.auth.clone(), common.acl.clone());
    let storage = common.storage.clone();
    let (tenants, events, clock) = (common.tenants.clone(), common.logging.events().clone(), common.clock);
    let start = move |shard: ShardId| {
        let seed = seeds.lock().unwrap_or_else(PoisonError::into_inner)[shard.index()].take();
        let seed = seed.expect("each shard is started once");
        let sender = seed.sender.clone();
        let reply: crate::auth::Reply = Arc::new(move |req, outcome| {
            // A full mailbox drops the answer; the client's CONNECT deadline then ends the attempt.
            let _ = sender.send(Command::Auth { req, outcome });
        });
        let (events, beat) = (events.clone(), seed.beat.clone());
        let authenticator = Box::new(auth.for_shard(shard, reply));
        let (settings, acl, tenants, storage) = (settings.clone(), acl.clone(), tenants.clone(), storage.clone());
        async move {
            let ShardSeed { mesh, inlet, listeners, metrics, links, .. } = seed;
            let (thread, bell) = (std::thread::current(), mesh.bell());
            let wake: Wake = Arc::new(move || {
                bell.ring();
                // Until the shard turns its thread waits like any other.
                thread.unpark();
            });
            let Some(services) = storage.services(shard, metrics.clone(), wake, clock.now(), &tenants) else { return };
            let ring = Ring::new(ring).unwrap_or_else(|error| panic!("the network ring cannot be made: {error}"));
            let shard = Shard::new(ShardParts {
                shard,
                settings,
                metrics,
                beat: Box::new(move || beat.beat()),
                events: Arc::new(move |event| events.log_event(shard.index(), event)),
                services,
                authenticator,
                authorizer: acl,
                tenants,
                mesh,
                inlet,
                links,
                ring,
                listeners,
                clock,
                recovering: storage.recovering.clone(),
            });
            let shard = shard.unwrap_or_else(|error| panic!("the shard cannot watch its links: {error}"));
            if let Err(error) = shard.run().await {
                panic!("the network ring failed: {error}");
            }
        }
    };
    Ok(spawn_executors(&executors, start)?)
}

fn handle_signals(
    mut reloader: Reloader,
    logging: Arc<Logging>,
    readiness: Arc<Readiness>,
    senders: Vec<InletSender<Command>>,
    deadline: Duration,
) -> Result<signals::SignalThread, StartError> {
    let act = move |request| match request {
        Request::Reload => reloader.reload(&logging),
        Request::Drain => {
            readiness.enter(Phase::Draining);
            tracing::info!(deadline_s = deadline.as_secs(), "draining: no new connections, sessions are being ended");
            for sender in &senders {
                reload::send(sender, || Command::Drain { within: deadline });
            }
            exit_after(deadline + DRAIN_PATIENCE, logging.clone());
        }
        Request::Exit => {
            tracing::warn!("told to end a second time: exiting without waiting for the sessions");
            logging.flush(LOG_PATIENCE);
            std::process::exit(1);
        }
    };
    Ok(signals::start(act)?)
}

/// A shard that hangs must not keep the process alive.
fn exit_after(patience: Duration, logging: Arc<Logging>) {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        tracing::error!("a shard has not ended in time; exiting without it");
        logging.flush(LOG_PATIENCE);
        std::process::exit(1);
    });
}

fn announce(
    loaded: &Loaded,
    addresses: &[String],
    admin: &AdminHandle,
    underlay: Option<&Underlay>,
    shards: u16,
    connections_fit: u64,
) {
    for (listener, address) in loaded.config.listener.iter().zip(addresses) {
        let protocol = listeners::protocol_name(listener.protocol);
        tracing::info!(protocol, %address, "listening");
    }
    if let Some(address) = admin.address() {
        tracing::info!(protocol = "admin", %address, "listening");
    }
    if let Some(underlay) = underlay {
        tracing::info!(protocol = "cluster", address = %underlay.address(), "listening");
    }
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, shards, connections_fit, configuration = %loaded.source, "ready");
}
