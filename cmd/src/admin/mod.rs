//! The admin thread: a small HTTP endpoint for metrics and health, off the data cores, on a tokio runtime that outgoing calls
//! of plugins share.
//!
//! ```text
//!   GET /         what there is
//!   GET /metrics  OpenMetrics text; ?per=shard tells shards apart
//!   GET /healthz  200 while every shard turns, else 503 and which does not
//!   GET /readyz   200 while clients are welcome, else 503 and why not
//!   GET /cluster  the nodes of the cluster, as JSON; ?loads asks each what it bears
//!   GET /ranges   the ranges with their replicas, as JSON
//!   POST /ranges/RANGE/lead/ID     that node is to lead the range
//!   POST /ranges/RANGE/recover?accept-loss  it goes on without its majority, which is lost; all: all such ranges do
//!   POST /cluster/nodes/ID/drain   it is to give away what it has; undrain: it is not
//!   POST /cluster/nodes/ID/remove  it does not come back; ?lost: it never does
//! ```
//! Nothing here waits on a shard, nor a shard on it: it reads cells that shards and the cluster's thread write, asks that thread to pass on what is
//! wanted of a node, and leaves commands for shards ([`shards`]), which answer in a turn of their own. Connections are bounded in number, time and header
//! size ([`server`]), so that the worst a client can do is to keep other operators waiting for seconds.

mod cluster;
mod health;
mod metrics;
mod process;
mod ranges;
mod recovery;
mod server;
mod shards;
#[cfg(test)]
mod tests;

pub use cluster::{ClusterCell, ClusterPage, LoadPage, NodePage};
pub use health::{Phase, Readiness, ShardBeat};
pub use ranges::{RangePage, RangesPage, ReplicaPage};
pub use shards::ShardsCell;

use crate::logging::EventLog;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bifro_core::config::AdminConfig;
use bifro_core::ids::RangeId;
use bifro_core::metrics::ShardMetrics;
use bifro_core::settings::Quota;
use bifro_core::tenant::TenantName;
use bifro_store::host::StorageCells;
use cluster::Told;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Knows the tenants; asked at each scrape, on the admin thread.
pub trait TenantSource: Send + Sync + std::fmt::Debug {
    /// Every tenant with its quota, the most interesting first: those beyond `tenant_metrics_max` are summed up as `other`.
    fn tenants(&self) -> Vec<(TenantName, Arc<Quota>)>;
}

/// What the endpoint reads.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// Metric cells, one per shard.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// Signs of life, one per shard.
    pub beats: Vec<Arc<ShardBeat>>,
    /// The tenants.
    pub tenants: Arc<dyn TenantSource>,
    /// Phase of the node.
    pub readiness: Arc<Readiness>,
    /// Event counters.
    pub events: Arc<EventLog>,
    /// Log lines dropped.
    pub lines_dropped: Arc<AtomicU64>,
    /// Figures of the storage; none if nothing is kept.
    pub storage: Option<Arc<StorageCells>>,
    /// The cluster, once the node has joined one.
    pub cluster: ClusterCell,
    /// The shards, once they have been started.
    pub shards: ShardsCell,
}

impl AdminState {
    /// Ranges of persistent sessions that nobody leads, as far as is known here.
    fn unled(&self) -> Vec<RangeId> {
        self.storage.as_ref().map(|cells| cells.unled()).unwrap_or_default()
    }
}

/// The running admin thread; stops when dropped.
#[derive(Debug)]
pub struct AdminHandle {
    address: Option<SocketAddr>,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// Address the endpoint listens on; none if it is switched off.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The thread's runtime, for outgoing HTTP. Tasks on it must not block.
    pub const fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything the handlers need.
#[derive(Debug)]
struct Context {
    state: AdminState,
    stall: Duration,
    tenant_metrics_max: usize,
}

/// Binds the endpoint, if it is switched on, and starts the admin thread.
///
/// # Errors
/// The address cannot be bound (the error names it), or the thread cannot be started.
pub fn start(config: &AdminConfig, state: AdminState) -> io::Result<AdminHandle> {
    let listener = config.bind.map(bind).transpose()?;
    let address = listener.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    let context = Arc::new(Context {
        state,
        stall: Duration::from_secs(config.stall_s.into()),
        tenant_metrics_max: config.tenant_metrics_max as usize,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        runtime.block_on(async {
            if let Some(listener) = listener {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(server::serve(listener, router(context)))),
                    Err(error) => tracing::error!(%error, "admin endpoint cannot be served"),
                }
            }
            // Either a message or the sender's end means stop.
            let _ = stopped.await;
        });
        // Tasks still running, such as slow clients and outgoing calls, end here with the runtime.
        runtime.shutdown_background();
    })?;
    Ok(AdminHandle { address, runtime: handle, stop: Some(stop), thread: Some(thread) })
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("admin.bind = \"{address}\": {error}"));
    let listener = std::net::TcpListener::bind(address).map_err(named)?;
    listener.set_nonblocking(true).map_err(named)?;
    Ok(listener)
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/cluster", get(cluster_page))
        .route("/ranges", get(ranges_page))
        .route("/ranges/{range}/lead/{node}", post(lead_range))
        .route("/ranges/{range}/recover", post(recover_range))
        .route("/cluster/nodes/{node}/drain", post(drain_node))
        .route("/cluster/nodes/{node}/undrain", post(undrain_node))
        .route("/cluster/nodes/{node}/remove", post(remove_node))
        .with_state(context)
}

async fn index() -> &'static str {
    concat!(
        "bifro-uring ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/metrics            OpenMetrics text\n/metrics?per=shard  the same for each shard\n/healthz            does every \
         shard turn\n/readyz             are clients welcome\n/cluster            the nodes of the cluster\n/cluster?loads      and what each bears\n/ranges             the ranges with their replicas\n\nPOST /ranges/RANGE/lead/ID, /ranges/RANGE/recover: `bifroctl range`\nPOST /cluster/nodes/ID/drain, \
         undrain and remove: `bifroctl node`\n"
    )
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricsQuery {
    per: Option<Per>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Per {
    Shard,
}

async fn metrics_page(State(context): State<Arc<Context>>, Query(query): Query<MetricsQuery>) -> Response {
    match metrics::encode(&context.state, context.tenant_metrics_max, query.per.is_some()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn healthz(State(context): State<Arc<Context>>) -> (StatusCode, String) {
    let silences = context.state.beats.iter().map(|beat| beat.silence()).enumerate();
    let stalled: String = silences
        .filter(|(_, silence)| *silence >= context.stall)
        .map(|(shard, silence)| format!("shard {shard} has not turned for {} s\n", silence.as_secs()))
        .collect();
    if stalled.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, stalled) }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterQuery {
    loads: Option<String>,
}

async fn cluster_page(
    State(context): State<Arc<Context>>,
    Query(query): Query<ClusterQuery>,
) -> axum::Json<ClusterPage> {
    cluster::page(&context.state.cluster, query.loads.is_some()).await
}

async fn ranges_page(State(context): State<Arc<Context>>) -> axum::Json<RangesPage> {
    ranges::page(&context.state).await
}

async fn lead_range(State(context): State<Arc<Context>>, Path((range, node)): Path<(String, String)>) -> Told {
    ranges::lead(&context.state, &range, &node).await
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RecoverQuery {
    accept_loss: Option<String>,
}

async fn recover_range(
    State(context): State<Arc<Context>>,
    Path(range): Path<String>,
    Query(query): Query<RecoverQuery>,
) -> Told {
    if query.accept_loss.is_none() {
        return (StatusCode::BAD_REQUEST, "what only lost replicas had is lost then: say ?accept-loss\n".to_owned());
    }
    recovery::recover(&context.state, &range).await
}

async fn drain_node(State(context): State<Arc<Context>>, Path(node): Path<String>) -> Told {
    cluster::drain(&context.state.cluster, &node, true).await
}

async fn undrain_node(State(context): State<Arc<Context>>, Path(node): Path<String>) -> Told {
    cluster::drain(&context.state.cluster, &node, false).await
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    lost: Option<String>,
}

async fn remove_node(
    State(context): State<Arc<Context>>,
    Path(node): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Told {
    cluster::remove(&context.state.cluster, &node, query.lost.is_some(), || context.state.unled()).await
}

async fn readyz(State(context): State<Arc<Context>>) -> (StatusCode, &'static str) {
    match context.state.readiness.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready if context.state.cluster.is_draining() => {
            (StatusCode::SERVICE_UNAVAILABLE, "draining: clients are sent to other nodes\n")
        }
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}
