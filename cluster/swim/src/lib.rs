//! SWIM membership without I/O: who is in the cluster, who has failed, and how everybody gets to know.
//!
//! Sources: Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership Protocol" (cited as
//! SWIM); Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection" (cited as Lifeguard).
//!
//! # How a host drives it
//! Feed any number of inputs ([`Swim::handle_message`], [`Swim::handle_timeout`] and the commands), then carry out what
//! [`Swim::poll_effect`] yields, in order. [`Swim::next_timeout`] says when [`Swim::handle_timeout`] is due. What has arrived is to
//! be fed before a timeout that is due: a process that was stopped must not take its own silence for that of others.
//!
//! `now` must not go back between calls. Clocks of different nodes are never compared.
//!
//! # Identity
//! A node keeps its [`NodeId`](bifro_core::ids::NodeId) in its data directory, with the number of times it was started. Its [`Incarnation`] has that
//! number first, so what a process says is newer than everything said by or about its predecessors, whatever its address. A second process with
//! the same identity makes the older of the two end ([`Event::Superseded`]). A node that was expelled has nothing newer to say: it ends when it hears of it
//! ([`Event::Expelled`]).
//!
//! # What spreads how
//! News travel as [`Rumour`]s, piggybacked on probes and in gossip of their own, each a number of times that grows with the logarithm
//! of the cluster. What gossip has missed, the exchange of whole tables mends; it begins with a digest, so that in a quiet cluster its cost
//! does not depend on the cluster's size.
//!
//! # Healing never ends
//! Seeds that are no members and members that have died are asked for ever, more and more rarely, up to [`Config::heal_interval_max`]. Two halves of a
//! cluster that have declared each other dead meet again through the first such message: everybody who hears that it is dead says that it is not.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod effect;
mod gossip;
mod heal;
pub mod limits;
mod member;
mod merge;
mod message;
mod probe;
#[cfg(test)]
#[path = "../../../tests/fixtures/recorded.rs"]
mod recorded;
mod suspicion;
mod swim;
#[cfg(test)]
mod tests;
pub mod wire;

pub use config::Config;
pub use effect::{Effect, Event};
pub use member::{Announcement, Answer, Health, Incarnation, Load, Member, Order, Status};
pub use message::{Body, Message, Report, Rumour};
pub use swim::{Peer, Swim};
