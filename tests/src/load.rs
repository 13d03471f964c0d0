//! Many connections on one thread: a [`Swarm`] of non-blocking sockets over epoll that speaks with the broker's own codec,
//! and on top of it publishers and subscribers that keep a [`crate::history::History`] ([`World`]).
//!
//! # Invariants
//! - A key of a swarm names one connection for ever; it is not reused.
//! - Everything a handler sends leaves before the turn ends, as far as the socket takes it; the rest follows when it does.
//! - Nothing is random that was not seeded.

mod link;
mod publisher;
mod subscriber;
mod swarm;
mod world;

pub use link::Sender;
pub use publisher::Publisher;
pub use subscriber::{Subscriber, Subscription};
pub use swarm::{Incoming, Swarm, version_of};
pub use world::World;

use std::time::Duration;

/// The first seed of a test: the one in `BIFRO_SEED`, or a fixed one.
///
/// # Panics
/// If the variable is not a number.
pub fn seed() -> u64 {
    std::env::var("BIFRO_SEED").map_or(0x5eed, |text| text.parse().expect("BIFRO_SEED is a number"))
}

/// How long soaking tests go on beyond their first round: `BIFRO_SOAK_SECONDS`, by default not at all.
///
/// # Panics
/// If the variable is not a number.
pub fn soak() -> Duration {
    let text = std::env::var("BIFRO_SOAK_SECONDS").ok();
    Duration::from_secs(text.map_or(0, |text| text.parse().expect("BIFRO_SOAK_SECONDS is a number")))
}

/// Runs `round` with seed after seed until the soaking time is over, at least once.
pub fn for_each_seed(mut round: impl FnMut(u64)) {
    let (start, mut seed) = (std::time::Instant::now(), seed());
    loop {
        round(seed);
        if start.elapsed() >= soak() {
            return;
        }
        seed += 1;
    }
}
