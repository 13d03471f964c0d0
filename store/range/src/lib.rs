//! The state machines of dist, inbox, retain and session dict, without I/O.
//!
//! Each machine is the whole state of one service on one partition. A call takes `now` and a request, changes the state and
//! appends effects; who carries the effects out, over which mesh or log, is the business of the crate above. Nothing here
//! reads a clock or iterates over a hash table to decide an order, so equal inputs give equal effects.
//!
//! | machine | owns | partitioned by |
//! |---|---|---|
//! | [`dict::OwnerTable`] | who owns a client id, who waits for it | tenant, client id |
//! | [`dist::RoutePartition`] | routes, and which shards have asked for matches | tenant, first topic level |
//! | [`dist::MatchCache`] | what one shard remembers of the partitions' answers | nothing: one per shard |
//! | [`inbox::InboxTable`] | persistent sessions | tenant, client id |
//! | [`retain::RetainTable`] | retained messages | tenant, topic |
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod changes;
mod deadlines;
pub mod dict;
pub mod dist;
pub mod inbox;
mod key;
pub mod limits;
pub mod record;
pub mod retain;
mod slots;

pub use key::{ReplyTo, TenantKey, TenantKeyRef};
