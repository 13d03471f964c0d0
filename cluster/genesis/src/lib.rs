//! The genesis of a cluster without I/O: all nodes agree, once and for ever, on one [`ClusterGenesis`].
//!
//! Source: Lamport, "Paxos Made Simple" (cited as Paxos). The nodes at the addresses of the static seed list are the acceptors, each of
//! them may propose, and every node learns. Nothing is decided that a majority of the list has not accepted, so two halves that start
//! apart never make two clusters, and whoever proposes may crash at any point: what it may have brought about, the next one finds.
//!
//! ```text
//!             no majority heard ┌──────────┐ a majority of the seeds knows of no cluster, nor does this one
//!                     ┌────────►│  Asking  ├──────────────┐
//!                     │         └─────┬────┘              ▼
//!                     │               │            ┌───────────┐ majority promised, and all  ┌───────────┐
//!                     │               │            │ Preparing ├─── or waited long enough ──►│ Accepting │
//!                     │               │            └─────┬─────┘                             └──┬─────┬──┘
//!                     └── refused, another's turn, late ─┴──────────────────────────────────────┘     │ majority accepted
//!                          somebody knows the cluster ▼                                               ▼
//!   known at start ──► Confirming ── another says the same, or nobody anything ──────────────────► Settled
//! ```
//!
//! # How a host drives it
//! Tell where each seed is ([`Founding::set_seat`]), feed questions and replies of others and call [`Founding::handle_timeout`] when
//! [`Founding::next_timeout`] has come. Carry out what [`Founding::poll_effect`] yields **in order**: nothing after an [`Effect::Keep`]
//! may leave before what it holds is on the disk. `now` must not go back. Once settled, the machine still answers questions.
//!
//! # What it relies on
//! - The seed list is the same on all nodes that are to found a cluster.
//! - A node does not lose what it was told to keep. One that starts with an empty directory while the cluster is being made counts as
//!   another acceptor, although it has forgotten its predecessor's promises.
//! - A seed that stands for several addresses has no vote: which node it means may differ from one look-up to the next.
//!
//! A node that has data of a life by itself knows a decided value: its own. Where it meets another decided value, it is told by
//! [`Effect::Conflict`].
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod founding;
mod ledger;
pub mod limits;
mod message;
#[cfg(test)]
#[path = "../../../tests/fixtures/recorded.rs"]
mod recorded;
mod seats;
#[cfg(test)]
mod tests;
pub mod wire;

pub use config::Config;
pub use founding::{Draft, Effect, Founding};
pub use ledger::{Ballot, ClusterGenesis, Ledger, Vote};
pub use message::{Answer, Question, Reply};
pub use seats::{Seat, Waiting};
