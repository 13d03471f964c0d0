//! The broker's services on the shards: the volatile implementation of the ports.
//!
//! The state machines are bifro-range's; this crate places them on shards and carries their effects between them.

pub mod volatile;
