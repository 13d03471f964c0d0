//! Raft without I/O: [`Group`] is one replica of one group, [`Multi`] all replicas of a shard with their messages joined
//! per peer.
//!
//! Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (cited as Raft), and Ongaro's
//! dissertation "Consensus: Bridging Theory and Practice" (cited as dissertation).
//!
//! # How a host drives a group
//! Feed any number of inputs (`handle_*`, and the commands `propose`, `read_index`, `change_membership`,
//! `transfer_leadership`, `offer_snapshot`, `compact`), then end the turn with [`Group::poll_effects`] and carry out what
//! comes, in order. One turn makes at most one write to the log and one append per peer, so whoever feeds more per turn
//! batches more. Afterwards [`Group::next_timeout`] says when [`Group::handle_timeout`] is due; `None` means that only an
//! input can change anything.
//!
//! `now` must not go back between calls.
//!
//! # Durability is data
//! [`Effect::Persist`] numbers each write; [`Effect::Send`] names the write that must be durable before the message may
//! leave. The host keeps the message until then ([`Outbox`] does that), and reports [`Group::handle_durable`]. A leader sends
//! its entries to its peers at once, and counts itself only when its own log is durable. Entries are handed out to be applied
//! only when they are committed *and* durable here, so a checkpoint of the state machine never gets ahead of the log.
//!
//! # How a replica goes and comes back
//! A replica that was removed from its group goes for good in one of two ways. By itself, when [`Group::is_removed`] says so. Or told by the
//! host of a leader whose members are committed and do not include it, if the newest members in its own log are from an earlier entry than
//! those: otherwise it has been added again, or knows better. It leaves [`Group::tombstone`], made durable together with the removal of log
//! and checkpoint. The next replica of the group on this node starts from that, and only once that is durable; it is made when a leader or a
//! candidate speaks to it ([`Refusal::NoReplica`]), for nobody else may know yet that the node is a member.
//!
//! # The single-voter group
//! It votes for itself in its first turn, leads when that vote is durable, commits whenever its log is durable, answers reads
//! at once, and has no timer.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod effect;
mod error;
mod group;
pub mod limits;
mod log;
mod membership;
mod message;
mod multi;
mod mutation;
mod types;

pub use config::Config;
pub use effect::{Effect, FetchId, LogWrite, Role};
pub use error::{ChangeError, FetchError, ForceError, ProposeError, ReadError, RestoreError, TransferError, Violation};
pub use group::{Group, Identity, Restored};
pub use membership::{Membership, Poll};
pub use message::{Body, Message, Round};
pub use multi::{Batch, Beat, BeatReply, Multi, Outbox, Refusal};
#[cfg(feature = "mutations")]
pub use mutation::Mutation;
pub use types::{Entry, EntryKind, HardState, Index, LogId, ReadId, SnapshotMeta, Term, WriteId};
