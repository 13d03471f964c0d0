//! `[cluster]`: the other nodes.

use super::LOOPBACK;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// `[cluster]`: how nodes find each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Address to listen on for other nodes (UDP).
    pub bind: SocketAddr,
    /// Address at which other nodes reach this one; none: `bind`.
    pub advertise: Option<SocketAddr>,
    /// Whom to ask to be let in, `host:port`.
    pub seeds: Vec<String>,
    /// File with what all nodes of the cluster know and nobody else.
    pub secret_file: Option<String>,
    /// Time from one probe of another node to the next, in milliseconds.
    pub probe_interval_ms: u32,
    /// How long a node is dead before others take its place, in seconds.
    pub eviction_grace_s: u32,
    /// `[cluster.tls]`: certificates that nodes show each other; none: nobody's are verified.
    pub tls: Option<ClusterTlsConfig>,
}

/// `[cluster.tls]`: all three are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTlsConfig {
    /// PEM file of the CA that issues the nodes' certificates; several during a change.
    pub ca: String,
    /// PEM file with this node's certificate chain, its own first.
    pub certificate: String,
    /// PEM file with this node's private key.
    pub key: String,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(LOOPBACK, 7946),
            advertise: None,
            seeds: Vec::new(),
            secret_file: None,
            probe_interval_ms: 200,
            eviction_grace_s: 60,
            tls: None,
        }
    }
}
