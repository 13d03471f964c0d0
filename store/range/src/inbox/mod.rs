//! Persistent sessions of one partition: subscriptions, queue, QoS 2 state, will and expiry.
//!
//! ```text
//!              attach                    detach (expiry > 0)
//!   (none) ────────────► attached ──────────────────────────────► detached
//!                         ▲  │  ▲        attach, no clean start      │ │
//!                         │  │  └─────────────────────────────────────┘ │
//!                         │  │ detach (expiry 0), discard                │ expiry, discard, attach with clean start
//!                         │  └───────────────► ended ◄───────────────────┘
//!                         └─ attach again: a new epoch, the old owner is fenced off
//! ```
//! Invariants:
//! - A session has at most one owner. Every attach takes a new epoch; a request with an older one changes nothing.
//! - A message that was stored for a session stays until its owner commits it, it expires before its delivery began, a
//!   named overflow rule drops it (counted), or the session ends.
//! - What a session has taken of its tenant's quotas is given back when it ends, to the byte.
//! - A subscription's place in its session is never used again, so an answer about a route cannot concern its successor.

mod books;
mod effect;
mod insert;
mod load;
mod queue;
mod reign;
mod rest;
mod session;
mod subscriptions;
mod table;
#[cfg(test)]
mod tests;

pub use effect::InboxEffect;
pub use load::Loader;
pub use table::{InboxTable, OwnerRef, Totals};

use bifro_core::message::Message;

/// Bytes one queued message counts with in its inbox and in the tenant's quota, whether it is in memory or rests.
pub const fn queued_bytes(message: &Message) -> u64 {
    message.footprint_bytes() as u64 + crate::limits::QUEUED_OVERHEAD_BYTES
}
