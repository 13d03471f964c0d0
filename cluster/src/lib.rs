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
//! A node comes in two steps. Its [`Entrance`] opens the port and finds out what the cluster is, as [`bifro_genesis::Founding`] has it, while nobody
//! is a member: the storage cannot be opened before. Then it [joins](Entrance::join). Members of different clusters do not talk with each
//! other, whatever secret they share.
//!
//! Files in the data directory: [`identity`] has the number of starts, the peers to look for at the next one, and whether the node is to go.
mod agent;
mod entrance;
mod error;
mod founding;
mod frame;
mod hello;
pub mod identity;
mod links;
mod orders;
#[cfg(test)]
#[path = "../../tests/fixtures/recorded.rs"]
mod recorded;
mod seeds;
mod view;

pub use agent::{Handle, RangesDone, Settings, Underlay};
pub use bifro_net::links::{Certificates, Secret};
pub use entrance::{Entrance, Place};
pub use error::{FoundingError, UnderlayError};
pub use founding::{Founding, Keep};
pub use view::{UnderlayMetrics, View, ViewCell};
