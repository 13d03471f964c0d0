//! Shards, mesh, the network ring, listener stages and the MQTT driver.
