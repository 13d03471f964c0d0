//! Shards, mesh, the network ring, listener stages and the MQTT driver.

pub mod limiter;
pub mod stage;
