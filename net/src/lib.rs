//! Shards, mesh, the network ring, listener stages and the MQTT driver.

pub mod ring;
