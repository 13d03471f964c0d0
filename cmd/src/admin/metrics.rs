//! The metrics page: shards' cells, event counters, tenants' quotas and the process, as OpenMetrics text.
//!
//! Series are bounded: metrics times shards, kinds of events, resources times (`tenant_metrics_max` + 1).

use super::AdminState;
use super::process::Reading;
use bifro_cluster::UnderlayMetrics;
use bifro_core::metrics::{Kind, ShardMetrics};
use bifro_core::settings::Resource;
use bifro_store::host::StorageCells;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Label of everything that belongs to no tenant of its own on the page.
const OTHER: &str = "other";

/// The page as of now.
///
/// # Errors
/// Formatting failed, which only a bug in an encoder can cause.
pub(super) fn encode(state: &AdminState, tenant_metrics_max: usize, per_shard: bool) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ProcessCollector));
    let node = registry.sub_registry_with_prefix("bifro");
    node.register("build", "Version of the broker", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    node.register_collector(Box::new(ShardCollector { shards: state.metrics.clone(), per_shard }));
    if let Some(storage) = &state.storage {
        node.register_collector(Box::new(StorageCollector(storage.clone())));
    }
    if let Some(metrics) = state.cluster.metrics() {
        node.sub_registry_with_prefix("cluster").register_collector(Box::new(ClusterCollector(metrics.clone())));
    }
    node.register_collector(Box::new(EventCollector(state.clone())));
    node.register_collector(Box::new(TenantCollector::new(state, tenant_metrics_max)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// Begins a metric of a cell.
fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    kind: Kind,
    help: &'e str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let metric_type = match kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    // The encoder ends the sentence itself.
    encoder.encode_descriptor(name, help.trim_end_matches('.'), None, metric_type)
}

/// The log's cells, and those of all shards' spaces together.
#[derive(Debug)]
struct StorageCollector(Arc<StorageCells>);

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_cells(&mut encoder, |visit| self.0.each(visit))
    }
}

/// The underlay's cells.
#[derive(Debug)]
struct ClusterCollector(Arc<UnderlayMetrics>);

impl Collector for ClusterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_cells(&mut encoder, |visit| self.0.each(visit))
    }
}

/// Name, kind, help and value of a cell.
type VisitCell<'v> = &'v mut dyn FnMut(&'static str, Kind, &'static str, u64);

/// Encodes a table of cells, which `each` visits.
fn encode_cells(encoder: &mut DescriptorEncoder<'_>, each: impl FnOnce(VisitCell<'_>)) -> fmt::Result {
    let mut result = Ok(());
    each(&mut |name, kind, help, value| {
        let encoded = describe(encoder, name, kind, help).and_then(|metric| encode_value(kind, value, metric));
        result = result.and(encoded);
    });
    result
}

#[derive(Debug)]
struct ShardCollector {
    shards: Vec<Arc<ShardMetrics>>,
    per_shard: bool,
}

impl Collector for ShardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Every shard visits its cells in the same order, so a column is a metric.
        let mut columns: Vec<(&'static str, Kind, &'static str, Vec<u64>)> = Vec::new();
        for (shard, metrics) in self.shards.iter().enumerate() {
            let mut column = 0;
            metrics.each(|name, kind, help, value| {
                if shard == 0 {
                    columns.push((name, kind, help, Vec::with_capacity(self.shards.len())));
                }
                columns[column].3.push(value);
                column += 1;
            });
        }
        for (name, kind, help, values) in columns {
            let mut metric = describe(&mut encoder, name, kind, help)?;
            if self.per_shard {
                for (shard, &value) in values.iter().enumerate() {
                    let labels = [("shard", shard.to_string())];
                    encode_value(kind, value, metric.encode_family(&labels)?)?;
                }
            } else {
                encode_value(kind, values.iter().fold(0, |sum, &value| sum.wrapping_add(value)), metric)?;
            }
        }
        Ok(())
    }
}

fn encode_value(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge => encode_gauge(value, encoder),
    }
}

/// The text format's integers end at `i64::MAX`.
fn encode_gauge(value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
}

#[derive(Debug)]
struct EventCollector(AdminState);

impl Collector for EventCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut events = encoder.encode_descriptor("events", "Events by kind", None, MetricType::Counter)?;
        for (kind, count) in self.0.events.counts() {
            ConstCounter::new(count).encode(events.encode_family(&[("kind", kind.name())])?)?;
        }
        let help = "Log lines dropped because standard error did not keep up";
        let dropped = encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.lines_dropped.load(Ordering::Relaxed)).encode(dropped)
    }
}

/// What one tenant, or all others together, has of one resource.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    used: u64,
    limit: u64,
}

#[derive(Debug)]
struct TenantCollector(Vec<(Cow<'static, str>, Vec<Share>)>);

impl TenantCollector {
    fn new(state: &AdminState, max: usize) -> Self {
        let mut rows: Vec<(Cow<'static, str>, Vec<Share>)> = Vec::new();
        let mut others = vec![Share::default(); Resource::ALL.len()];
        let mut any_other = false;
        for (index, (name, quota)) in state.tenants.tenants().into_iter().enumerate() {
            let shares = Resource::ALL.iter().map(|&r| Share { used: quota.used(r), limit: quota.limit(r) });
            if index < max {
                rows.push((Cow::Owned(name.to_string()), shares.collect()));
                continue;
            }
            any_other = true;
            for (sum, share) in others.iter_mut().zip(shares) {
                // A sum of limits would mean nothing: some of the others may have none.
                sum.used = sum.used.saturating_add(share.used);
            }
        }
        if any_other {
            rows.push((Cow::Borrowed(OTHER), others));
        }
        Self(rows)
    }
}

impl Collector for TenantCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What a tenant uses of a resource; for rates, within the last second that saw any";
        let mut used = encoder.encode_descriptor("tenant_used", help, None, MetricType::Gauge)?;
        self.each(|tenant, resource, share| {
            // Rates without a limit are not counted.
            if resource.is_rate() && share.limit == 0 {
                return Ok(());
            }
            encode_gauge(share.used, used.encode_family(&[("tenant", tenant), ("resource", resource.key())])?)
        })?;
        let help = "Limit of a tenant's resource; absent where there is none";
        let mut limit = encoder.encode_descriptor("tenant_limit", help, None, MetricType::Gauge)?;
        self.each(|tenant, resource, share| {
            if share.limit == 0 {
                return Ok(());
            }
            encode_gauge(share.limit, limit.encode_family(&[("tenant", tenant), ("resource", resource.key())])?)
        })
    }
}

impl TenantCollector {
    fn each(&self, mut visit: impl FnMut(&str, Resource, Share) -> fmt::Result) -> fmt::Result {
        for (tenant, shares) in &self.0 {
            for (&resource, &share) in Resource::ALL.iter().zip(shares) {
                visit(tenant, resource, share)?;
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reading = Reading::now();
        if let Some(seconds) = reading.cpu_s {
            let help = "User and system CPU time, in seconds";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        if let Some(start) = reading.start_s {
            let help = "Start of the process, in seconds since the Unix epoch";
            let metric = encoder.encode_descriptor("process_start_time_seconds", help, None, MetricType::Gauge)?;
            ConstGauge::new(start).encode(metric)?;
        }
        let levels = [
            ("process_resident_memory_bytes", "Resident memory, in bytes", reading.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory, in bytes", reading.virtual_bytes),
            ("process_open_fds", "Open file descriptors", reading.open_fds),
            ("process_max_fds", "Open file descriptors at most", reading.max_fds),
            ("process_threads", "Threads", reading.threads),
        ];
        for (name, help, value) in levels {
            let Some(value) = value else { continue };
            encode_gauge(value, encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
