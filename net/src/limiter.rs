//! Admission of connections: how many a listener holds, how many of them one address has, and how fast new ones come.
//!
//! One [`ConnLimiter`] per listener, shared by all shards through an `Arc`. It is touched when a connection is accepted,
//! identified or closed, never on the data path: two atomic counters and one of 64 small locked tables.
//!
//! Invariants: every count is held by a [`ConnPermit`] and given back when it is dropped, so counts cannot leak; the table of
//! addresses holds no entry without a live permit, so its size is bounded by the number of connections.

use bifro_core::time::Instant;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// Locked parts of the address table: far more than shards that accept at one moment.
const STRIPES: usize = 64;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A listener's limits; 0 = unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnLimits {
    /// Open connections.
    pub connections_max: u32,
    /// Open connections of one IPv4 address or one IPv6 /64 network.
    pub per_address_max: u32,
    /// Connections accepted per second, in the long run.
    pub accepts_per_s_max: u32,
    /// Connections accepted at once beyond that rate, after a quiet time; at least 1.
    pub accept_burst: u32,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ConnRefusal {
    /// The listener has all the connections it may have.
    #[error("listener has its maximum of connections")]
    Connections,
    /// The client's address has all the connections it may have.
    #[error("address has its maximum of connections")]
    PerAddress,
    /// Connections come faster than allowed.
    #[error("connections come too fast")]
    Rate,
}

/// Counts of one listener.
#[derive(Debug)]
pub struct ConnLimiter {
    connections_max: AtomicU32,
    per_address_max: AtomicU32,
    accepts_per_s_max: AtomicU32,
    accept_burst: AtomicU32,
    open: AtomicU32,
    /// Token bucket as one number (GCRA): the moment, in nanoseconds, at which the bucket will be full again.
    full_at: AtomicU64,
    stripe_of: RandomState,
    by_address: [Mutex<HashMap<AddressKey, u32>>; STRIPES],
}

/// An admitted connection's share of the counts. Dropping it gives everything back.
#[derive(Debug)]
#[must_use = "the connection counts only as long as its permit lives"]
pub struct ConnPermit {
    limiter: Arc<ConnLimiter>,
    address: Option<AddressKey>,
}

/// What counts as one address: the upper half of an IPv6 address, as one subscriber usually has all of a /64, and of an IPv4
/// address that of its 6to4 network (RFC 3056), which is the same subscriber's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AddressKey(NonZeroU64);

/// Stands for `::/64`, the loopback's network; nobody's address begins with multicast's reserved bits.
const LOOPBACK_KEY: NonZeroU64 = NonZeroU64::MAX;

/// Upper 16 bits of 6to4 addresses.
const SIX_TO_FOUR: u64 = 0x2002 << 48;

impl From<IpAddr> for AddressKey {
    fn from(ip: IpAddr) -> Self {
        let upper = match ip.to_canonical() {
            IpAddr::V4(ip) => SIX_TO_FOUR | u64::from(ip.to_bits()) << 16,
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        Self(NonZeroU64::new(upper).unwrap_or(LOOPBACK_KEY))
    }
}

impl ConnLimiter {
    /// A limiter with nothing admitted yet.
    pub fn new(limits: &ConnLimits) -> Self {
        let limiter = Self {
            connections_max: AtomicU32::default(),
            per_address_max: AtomicU32::default(),
            accepts_per_s_max: AtomicU32::default(),
            accept_burst: AtomicU32::default(),
            open: AtomicU32::default(),
            full_at: AtomicU64::default(),
            stripe_of: RandomState::new(),
            by_address: std::array::from_fn(|_| Mutex::default()),
        };
        limiter.set_limits(limits);
        limiter
    }

    /// Replaces the limits. Connections beyond the new ones stay; new ones are refused until there is room.
    pub fn set_limits(&self, limits: &ConnLimits) {
        self.connections_max.store(limits.connections_max, Ordering::Relaxed);
        self.per_address_max.store(limits.per_address_max, Ordering::Relaxed);
        self.accepts_per_s_max.store(limits.accepts_per_s_max, Ordering::Relaxed);
        self.accept_burst.store(limits.accept_burst, Ordering::Relaxed);
    }

    /// Connections admitted and not yet closed.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Admits a connection accepted at `now`. Give `None` for the address if it is only known later (a unix socket, a proxy's
    /// connection) and call [`ConnPermit::identify`] then.
    ///
    /// # Errors
    /// The limit that is reached; nothing is counted then.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> Result<ConnPermit, ConnRefusal> {
        let maximum = self.connections_max.load(Ordering::Relaxed);
        if !raise(&self.open, maximum) {
            return Err(ConnRefusal::Connections);
        }
        // From here on the permit's drop gives back what has been counted.
        let mut permit = ConnPermit { limiter: Arc::clone(self), address: None };
        if let Some(ip) = address {
            permit.identify(ip)?;
        }
        // Last, so that an address beyond its own limit does not use up the rate of the others.
        if self.take_token(now) { Ok(permit) } else { Err(ConnRefusal::Rate) }
    }

    fn take_token(&self, now: Instant) -> bool {
        let rate = u64::from(self.accepts_per_s_max.load(Ordering::Relaxed));
        if rate == 0 {
            return true;
        }
        let now = now.as_micros().saturating_mul(1_000);
        let interval = NANOS_PER_SECOND / rate;
        let burst = u64::from(self.accept_burst.load(Ordering::Relaxed)).max(1);
        let taken = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(interval);
            (next - now <= interval.saturating_mul(burst)).then_some(next)
        });
        taken.is_ok()
    }

    fn count_address(&self, key: AddressKey) -> bool {
        let maximum = self.per_address_max.load(Ordering::Relaxed);
        let mut table = self.stripe(key);
        let count = table.entry(key).or_default();
        let room = maximum == 0 || *count < maximum;
        *count += u32::from(room);
        // An entry made just now has room, as a maximum of 0 means none.
        room
    }

    fn release_address(&self, key: AddressKey) {
        if let Entry::Occupied(mut entry) = self.stripe(key).entry(key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn stripe(&self, key: AddressKey) -> MutexGuard<'_, HashMap<AddressKey, u32>> {
        let stripe = (self.stripe_of.hash_one(key) % STRIPES as u64) as usize;
        // Counts are changed in one step: they are right even if a holder panicked.
        self.by_address[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnPermit {
    /// Counts the connection for the client's real address, once a PROXY header or `X-Forwarded-For` has told it; the address
    /// it was counted for before is relieved.
    ///
    /// # Errors
    /// [`ConnRefusal::PerAddress`] if that address has no room; the connection then counts as before and is to be closed.
    pub fn identify(&mut self, ip: IpAddr) -> Result<(), ConnRefusal> {
        let key = AddressKey::from(ip);
        if self.address == Some(key) {
            return Ok(());
        }
        if !self.limiter.count_address(key) {
            return Err(ConnRefusal::PerAddress);
        }
        if let Some(previous) = self.address.replace(key) {
            self.limiter.release_address(previous);
        }
        Ok(())
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        if let Some(key) = self.address {
            self.limiter.release_address(key);
        }
        self.limiter.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one more unless there are `maximum` already; 0 = unlimited.
fn raise(count: &AtomicU32, maximum: u32) -> bool {
    let raised = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        (maximum == 0 || count < maximum).then_some(count + 1)
    });
    raised.is_ok()
}

#[cfg(test)]
mod tests;
