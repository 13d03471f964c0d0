//! The broker's services on the shards, and the storage under them.
//!
//! - [`wal`] and [`kv`] keep what must outlive a process; [`data_dir`] guards the directory they share. They run on plain threads and
//!   know no executor: a shard hands work over by bounded queues and is woken by a callback.
//! - [`host`] runs the Raft groups of a shard over both.
//! - [`services`] implements the ports. The state machines are bifro-range's; it places them on shards, carries their effects between them,
//!   and holds back what depends on changes that are not durable.

mod bed;
pub mod data_dir;
pub mod fatal;
pub mod host;
pub mod kv;
#[cfg(test)]
#[path = "../../tests/fixtures/recorded.rs"]
mod recorded;
pub mod services;
pub mod wal;
