//! What every bifro-uring crate shares: identities, time, randomness, limits, the owned [`message::Message`], tenant settings,
//! metric cells, typed events, plugin traits and the ports behind which the broker's stateful services live.
//!
//! Nothing here reads a clock, a file or the environment: the crate is `no_std` so that Cargo enforces it.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client;
pub mod config;
pub mod delivered;
pub mod event;
pub mod ids;
pub mod inquiry;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod nodes;
pub mod origins;
pub mod plugin;
pub mod ports;
pub mod ranges;
pub mod rng;
pub mod roles;
pub mod settings;
pub mod tenant;
pub mod time;
