//! Shards, mesh, the network ring, listener stages and the MQTT driver.

pub mod cores;
pub mod mesh;
pub mod ring;
pub mod wheel;
