//! The allowed range of every number in the configuration, so that no value reaches the code that would divide by zero,
//! overflow or allocate without end.

use super::document::Document;
use super::error::ConfigError;

/// Key without array indexes, lowest and highest value. Tenants' keys stand under `tenant_defaults`.
pub(super) const BOUNDS: &[(&str, i64, i64)] = &[
    ("node.cores", 0, 1_024),
    ("node.memory_budget_mib", 0, 16 << 20),
    ("node.shutdown_deadline_s", 0, 3_600),
    ("node.drain_per_s", 1, 1_000_000),
    ("node.spin_us", 0, 1_000_000),
    ("store.ranges", 1, 1_024),
    ("store.disk_reserve_mib", 0, 16 << 20),
    ("store.checkpoint_mib", 16, 1 << 20),
    ("cluster.probe_interval_ms", 50, 60_000),
    ("cluster.eviction_grace_s", 1, 86_400),
    ("admin.tenant_metrics_max", 0, 10_000),
    ("admin.stall_s", 1, 3_600),
    ("limits.ring_buffers", 16, 32_768),
    ("limits.ring_buffer_bytes", 256, 1 << 20),
    ("limits.mesh_capacity", 64, 1 << 20),
    ("limits.write_high_water_bytes", 16 << 10, 1 << 30),
    ("limits.slow_subscriber_s", 1, 86_400),
    ("limits.publish_deadline_ms", 100, 600_000),
    ("limits.turn_bytes", 1_024, 16 << 20),
    ("listener.mode", 0, 0o777),
    ("listener.connections_max", 1, 10_000_000),
    ("listener.connections_per_ip_max", 0, 10_000_000),
    ("listener.connects_per_s_max", 0, 10_000_000),
    ("listener.connect_deadline_s", 1, 600),
    ("listener.pre_auth_packet_bytes_max", 256, 16 << 20),
    ("listener.backlog", 1, 65_535),
    ("tenant_defaults.maximum_qos", 0, 2),
    ("tenant_defaults.topic_level_bytes_max", 1, 65_535),
    ("tenant_defaults.topic_levels_max", 1, bifro_core::limits::TOPIC_LEVELS_HARD_MAX as i64),
    ("tenant_defaults.topic_bytes_max", 1, 65_535),
    ("tenant_defaults.topic_alias_max", 0, 65_535),
    ("tenant_defaults.shared_group_members_max", 1, 1_000_000),
    ("tenant_defaults.subscriptions_per_session_max", 1, 1_000_000),
    ("tenant_defaults.publish_rate_max", 0, U32_MAX),
    ("tenant_defaults.receive_maximum", 1, 65_535),
    ("tenant_defaults.send_maximum", 1, 65_535),
    ("tenant_defaults.inbound_bytes_per_s_max", 0, i64::MAX),
    ("tenant_defaults.outbound_bytes_per_s_max", 0, i64::MAX),
    ("tenant_defaults.will_bytes_max", 0, PAYLOAD_MAX),
    ("tenant_defaults.payload_bytes_max", 1, PAYLOAD_MAX),
    ("tenant_defaults.resend_timeout_s", 0, 86_400),
    ("tenant_defaults.resend_times_max", 0, 1_000),
    ("tenant_defaults.filters_per_packet_max", 1, 65_535),
    ("tenant_defaults.group_fanout_max", 0, U32_MAX),
    ("tenant_defaults.persistent_fanout_max", 0, U32_MAX),
    ("tenant_defaults.persistent_fanout_bytes_max", 0, i64::MAX),
    ("tenant_defaults.session_expiry_max_s", 0, U32_MAX),
    ("tenant_defaults.session_expiry_min_s", 0, U32_MAX),
    ("tenant_defaults.keep_alive_min_s", 0, 65_534),
    // MQTT 3.1.1 obliges a server to take identifiers of 23 bytes.
    ("tenant_defaults.client_id_bytes_max", 23, 65_535),
    ("tenant_defaults.inbox_messages_max", 1, 10_000_000),
    ("tenant_defaults.inbox_bytes_max", 1_024, i64::MAX),
    ("tenant_defaults.retained_matches_max", 0, U32_MAX),
    ("tenant_defaults.retained_match_bytes_max", 0, i64::MAX),
    ("tenant_defaults.quota.*", 0, i64::MAX),
];

const U32_MAX: i64 = u32::MAX as i64;

/// 250 MiB: with the longest topic and 64 KiB of properties a packet stays below MQTT's 268,435,455 bytes.
const PAYLOAD_MAX: i64 = 250 << 20;

/// The range of a key, if it is a number that the configuration knows.
pub(super) fn bound(pattern: &str) -> Option<(i64, i64)> {
    let table = pattern.rsplit_once('.').map_or("", |(table, _)| table);
    let named = |name: &str| name == pattern || name.strip_suffix(".*") == Some(table);
    BOUNDS.iter().find(|(name, ..)| named(name)).map(|&(_, low, high)| (low, high))
}

/// Every number of the file that is out of its range.
pub(super) fn check(document: &Document<'_>) -> Vec<ConfigError> {
    let outside = |entry: &super::document::Entry| {
        let value = entry.integer?;
        let (low, high) = bound(&entry.pattern)?;
        let allowed = i128::from(low)..=i128::from(high);
        (!allowed.contains(&value))
            .then(|| document.error(&entry.path, format!("{value} is out of range: allowed is {low} to {high}")))
    };
    document.entries().iter().filter_map(outside).collect()
}
