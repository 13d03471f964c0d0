//! The broker's services on the shards, and the storage under them.
//!
//! - [`wal`] and [`kv`] keep what must outlive a process; [`data_dir`] guards the directory they share. They run on plain threads and
//!   know no executor: a shard hands work over by bounded queues and is woken by a callback.
//! - [`volatile`] implements the ports in memory. The state machines are bifro-range's; it places them on shards and carries their
//!   effects between them.

mod bed;
pub mod data_dir;
pub mod fatal;
pub mod host;
pub mod kv;
//pub mod volatile;
pub mod wal;
