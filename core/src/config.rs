//! The node's configuration as values: every section of `node.toml`, with its defaults.
//!
//! These structures say what a key is called, its unit and its default; `bifro-cmd` reads the file, checks the bounds and
//! reports mistakes with file, line and key. Unknown keys are errors everywhere, so a key that is here does something.

mod cidr;
mod cluster;
mod roles;

pub use cidr::{Cidr, CidrError};
pub use cluster::{ClusterConfig, ClusterTlsConfig};
pub use roles::RolesConfig;

use crate::settings::{QuotaLimits, TenantSettings};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use serde::{Deserialize, Serialize};

/// Everything the node can be told, authentication providers apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// `[node]`: the process.
    pub node: ProcessConfig,
    /// `[store]`: how persistent sessions and retained messages are kept.
    pub store: StoreConfig,
    /// `[cluster]`: the other nodes; none: this one is alone.
    pub cluster: Option<ClusterConfig>,
    /// `[roles]`: what the node does for the others.
    pub roles: RolesConfig,
    /// `[admin]`: the HTTP endpoint for operators.
    pub admin: AdminConfig,
    /// `[limits]`: bounds of buffers, queues and waits.
    pub limits: LimitsConfig,
    /// `[log]`: what is logged and how.
    pub log: LogConfig,
    /// `[[listener]]`: where clients arrive. At least one, unless `roles.mqtt` is off.
    pub listener: Vec<ListenerConfig>,
    /// `[tenant_defaults]`: settings and quota of tenants that have no table of their own. Read by the loader, which
    /// lays each tenant's table over it.
    #[serde(skip_deserializing)]
    pub tenant_defaults: TenantConfig,
    /// `[tenant.NAME]`: complete settings and quota of the tenants that differ from the defaults.
    #[serde(skip_deserializing)]
    pub tenant: BTreeMap<String, TenantConfig>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            node: ProcessConfig::default(),
            store: StoreConfig::default(),
            cluster: None,
            roles: RolesConfig::default(),
            admin: AdminConfig::default(),
            limits: LimitsConfig::default(),
            log: LogConfig::default(),
            listener: alloc::vec![ListenerConfig::loopback(Protocol::Tcp), ListenerConfig::loopback(Protocol::Ws)],
            tenant_defaults: TenantConfig::default(),
            tenant: BTreeMap::new(),
        }
    }
}

impl NodeConfig {
    /// Settings and quota in force for a tenant.
    pub fn tenant(&self, name: &str) -> &TenantConfig {
        self.tenant.get(name).unwrap_or(&self.tenant_defaults)
    }
}

/// `[node]`: what the process takes from the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// Directory of what the node keeps; relative to the configuration file.
    pub data_dir: String,
    /// Shards, one per core; 0 = every core the process may use.
    pub cores: u16,
    /// Pin each shard to its core. More shards than usable cores are never pinned.
    pub pin: bool,
    /// Memory the shards together may use for sessions, queues and buffers, in MiB; 0 = 60 % of what the cgroup or the
    /// machine has.
    pub memory_budget_mib: u64,
    /// Time sessions are given to end after SIGTERM, in seconds.
    pub shutdown_deadline_s: u32,
    /// How many clients are told to go to another node in a second, when this one is drained.
    pub drain_per_s: u32,
    /// How long an idle shard polls before it sleeps, in microseconds; 0 = not at all. Saves wake-ups at the price of a busy core.
    pub spin_us: u32,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            data_dir: String::from("data"),
            cores: 0,
            pin: true,
            memory_budget_mib: 0,
            shutdown_deadline_s: 30,
            drain_per_s: 1_000,
            spin_us: 0,
        }
    }
}

/// When what a client is told is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreDurability {
    /// When it is on the disk: it survives the machine.
    Fsync,
    /// When the operating system has it: it survives the process.
    Os,
    /// When it is in memory: it survives the connection.
    Volatile,
}

/// `[store]`: how persistent sessions and retained messages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// When what a client is told is safe.
    pub durability: StoreDurability,
    /// Ranges that sessions, and as many that retained messages are spread over; decided when the data directory is new, or the cluster is made.
    pub ranges: u16,
    /// Free disk space, in MiB, below which new messages are refused; half of it is kept for what makes room.
    pub disk_reserve_mib: u32,
    /// Memory for changes that are in the log and not in the key-value base yet, in MiB.
    pub checkpoint_mib: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { durability: StoreDurability::Fsync, ranges: 8, disk_reserve_mib: 512, checkpoint_mib: 256 }
    }
}

/// `[admin]`: metrics and health over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address to listen on; empty = no HTTP endpoint.
    #[serde(with = "address_or_empty")]
    pub bind: Option<SocketAddr>,
    /// Tenants with metrics of their own at most; the others are summed up as `other`.
    pub tenant_metrics_max: u32,
    /// A shard that has not turned for so long is reported as unhealthy, in seconds.
    pub stall_s: u32,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { bind: Some(SocketAddr::new(LOOPBACK, 9091)), tenant_metrics_max: 100, stall_s: 10 }
    }
}

/// `[limits]`: bounds that hold for each shard or connection, whatever the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Receive buffers each shard provides to the kernel; a power of two. When all are in use, reading waits.
    pub ring_buffers: u16,
    /// Size of one receive buffer, in bytes.
    pub ring_buffer_bytes: u32,
    /// Messages in the queue between two shards; beyond it they wait on the sender's side and count against its memory.
    pub mesh_capacity: u32,
    /// Bytes waiting in one connection's write buffer beyond which QoS 0 messages are dropped.
    pub write_high_water_bytes: u32,
    /// A connection over the high-water mark for so long is closed, in seconds.
    pub slow_subscriber_s: u32,
    /// How long a QoS 1 or 2 publish waits for everybody to take it over, in milliseconds; then MQTT 5 publishers get
    /// 0x83 and 3.x publishers no acknowledgement.
    pub publish_deadline_ms: u32,
    /// Bytes one connection may have served per turn before the next one gets its share.
    pub turn_bytes: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            ring_buffers: 1_024,
            ring_buffer_bytes: 4_096,
            mesh_capacity: 8_192,
            write_high_water_bytes: 1 << 20,
            slow_subscriber_s: 30,
            publish_deadline_ms: 5_000,
            turn_bytes: crate::limits::TURN_BYTES_PER_CONN as u32,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Least important level that is logged.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
    /// Levels of events by the name of their kind, where they differ from the built-in ones.
    pub events: BTreeMap<String, LogLevel>,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Never logged.
    Off,
    /// Something is broken.
    Error,
    /// Something deserves a look.
    Warn,
    /// The course of things.
    #[default]
    Info,
    /// For the search for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over a Unix-domain stream socket.
    Unix,
}

impl Protocol {
    /// The connection is encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// MQTT travels in WebSocket frames.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// One link of a listener's authentication chain; the first that knows the client decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// Admits clients that send no credentials.
    Anonymous,
    /// User names and password hashes from a file.
    PasswordFile,
    /// SCRAM-SHA-256 by enhanced authentication (MQTT 5.0), credentials in a file.
    Scram,
    /// JSON Web Token as password.
    Jwt,
    /// A web service is asked.
    Http,
    /// The client certificate names the user.
    Certificate,
}

/// `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// What it speaks.
    pub protocol: Protocol,
    /// Address to listen on; all protocols but `unix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<SocketAddr>,
    /// Path of the socket; `unix` only, relative to the configuration file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Permission bits of the socket; `unix` only.
    #[serde(default = "listener_default::mode")]
    pub mode: u32,
    /// Authentication chain; may be left out only where nobody from outside can reach: then anonymous.
    #[serde(default)]
    pub auth: Vec<AuthMethod>,
    /// Open connections at most, over all shards.
    #[serde(default = "listener_default::connections_max")]
    pub connections_max: u32,
    /// Open connections from one address at most; 0 = unlimited.
    #[serde(default)]
    pub connections_per_ip_max: u32,
    /// Connections accepted per second at most, over all shards; 0 = unlimited.
    #[serde(default)]
    pub connects_per_s_max: u32,
    /// Time from accept to CONNECT, handshakes included, in seconds.
    #[serde(default = "listener_default::connect_deadline_s")]
    pub connect_deadline_s: u32,
    /// Longest packet taken before authentication has succeeded, in bytes.
    #[serde(default = "listener_default::pre_auth_packet_bytes_max")]
    pub pre_auth_packet_bytes_max: u32,
    /// Connections the kernel keeps waiting for accept, per shard.
    #[serde(default = "listener_default::backlog")]
    pub backlog: u32,
    /// Path of the WebSocket endpoint; `ws` and `wss` only.
    #[serde(default = "listener_default::ws_path")]
    pub ws_path: String,
    /// Expect a PROXY protocol header (version 1 or 2) from the addresses in `proxy_trusted`.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Networks whose PROXY header is believed; connections from elsewhere are closed when `proxy_protocol` is on.
    #[serde(default)]
    pub proxy_trusted: Vec<Cidr>,
    /// Networks whose `X-Forwarded-For` header is believed; `ws` and `wss` only.
    #[serde(default)]
    pub trust_forwarded_for: Vec<Cidr>,
    /// `[listener.tls]`; `tls` and `wss` only, and required there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
}

mod listener_default {
    use alloc::string::String;

    pub(super) const fn mode() -> u32 {
        0o660
    }
    pub(super) const fn connections_max() -> u32 {
        1_000_000
    }
    pub(super) const fn connect_deadline_s() -> u32 {
        20
    }
    pub(super) const fn pre_auth_packet_bytes_max() -> u32 {
        64 << 10
    }
    pub(super) const fn backlog() -> u32 {
        1_024
    }
    pub(super) fn ws_path() -> String {
        String::from("/mqtt")
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl ListenerConfig {
    /// A listener with every optional key at its default and neither address nor TLS.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            bind: None,
            path: None,
            mode: listener_default::mode(),
            auth: Vec::new(),
            connections_max: listener_default::connections_max(),
            connections_per_ip_max: 0,
            connects_per_s_max: 0,
            connect_deadline_s: listener_default::connect_deadline_s(),
            pre_auth_packet_bytes_max: listener_default::pre_auth_packet_bytes_max(),
            backlog: listener_default::backlog(),
            ws_path: listener_default::ws_path(),
            proxy_protocol: false,
            proxy_trusted: Vec::new(),
            trust_forwarded_for: Vec::new(),
            tls: None,
        }
    }

    /// The listener a node without a file has for `protocol`: on loopback, for anonymous clients.
    fn loopback(protocol: Protocol) -> Self {
        let port = if protocol.is_websocket() { 8083 } else { 1883 };
        Self {
            bind: Some(SocketAddr::new(LOOPBACK, port)),
            auth: alloc::vec![AuthMethod::Anonymous],
            ..Self::new(protocol)
        }
    }

    /// Only this machine can reach the listener.
    pub fn is_local(&self) -> bool {
        self.protocol == Protocol::Unix || self.bind.is_some_and(|bind| bind.ip().is_loopback())
    }
}

/// `[listener.tls]`; paths are relative to the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM, leaf first; for clients that name no server or none of `sni`.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// CA certificates, PEM, that client certificates are verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    /// Whether clients present certificates.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Lowest protocol version.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// `[[listener.tls.sni]]`: more certificates, chosen by the server name the client asks for.
    #[serde(default)]
    pub sni: Vec<SniCertificate>,
}

/// `[[listener.tls.sni]]`; the names are those in the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SniCertificate {
    /// Certificate chain, PEM, leaf first.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

/// Whether clients present certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked, and verified if they present one.
    Optional,
    /// Without a valid one the handshake fails.
    Required,
}

/// Version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// Settings and quota of a tenant; the quota is a table within the tenant's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TenantConfig {
    /// Keys of `[tenant_defaults]` and `[tenant.NAME]`.
    #[serde(flatten)]
    pub settings: TenantSettings,
    /// Keys of `[tenant_defaults.quota]` and `[tenant.NAME.quota]`.
    pub quota: QuotaLimits,
}

/// An optional socket address whose absence is written as an empty string, since TOML has no null.
mod address_or_empty {
    use alloc::string::String;
    use core::net::SocketAddr;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_only_this_machine_is_served() {
        let config = NodeConfig::default();
        assert!(config.listener.iter().all(ListenerConfig::is_local));
        assert!(config.admin.bind.is_some_and(|bind| bind.ip().is_loopback()));
    }

    #[test]
    fn a_tenant_without_a_table_has_the_defaults() {
        let mut config = NodeConfig::default();
        config.tenant_defaults.quota.total_connections = 7;
        config.tenant.insert(String::from("acme"), TenantConfig::default());
        assert_eq!(config.tenant("other").quota.total_connections, 7);
        assert_eq!(config.tenant("acme").quota.total_connections, 0);
    }
}
