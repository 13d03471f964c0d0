//! Shards, mesh, the network ring, listener stages and the MQTT driver.

pub mod any_server;
pub mod broker;
pub mod clock;
pub mod cores;
pub mod limiter;
pub mod links;
pub mod mesh;
#[cfg(test)]
#[path = "../../tests/fixtures/recorded.rs"]
mod recorded;
pub mod ring;
pub mod stage;
pub mod wheel;
