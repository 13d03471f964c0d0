//! The underlay cluster: who is there, over QUIC, without a registry.
//!
//! [`Underlay`] drives [`bifro_swim::Swim`] on a thread of its own with a tokio runtime, off the data cores: membership costs a kilobyte a
//! second, and a shard that hangs must not keep its node from saying so. What others need to know is in [`View`], replaced whenever
//! something happens.
//!
//! ```text
//!   bifro-swim ── effects ──► links ── QUIC datagrams (probes, gossip), one stream per table ──► peers
//!       ▲                       │
//!       └────── messages ◄──────┘      secret: every connection proves it over the TLS exporter;
//!                                      certificates, if there are any, are of the cluster's CA at both ends
//! ```
//! Files in the data directory: [`identity`] has the number of starts and the peers to look for at the next one.
mod agent;
mod error;
mod frame;
pub mod identity;
mod links;
mod view;

pub use agent::{Handle, Settings, Underlay};
pub use bifro_net::links::{Certificates, Secret};
pub use error::UnderlayError;
pub use view::{UnderlayMetrics, View, ViewCell};
