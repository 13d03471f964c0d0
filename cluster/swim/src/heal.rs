//! Addresses where a member was or should be, asked for ever: more and more rarely, and never all at once.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use core::net::SocketAddr;
use core::time::Duration;

#[derive(Debug)]
struct Attempt {
    due: Instant,
    delay: Duration,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    attempts: BTreeMap<SocketAddr, Attempt>,
    next: Option<Instant>,
}

impl Healing {
    /// Asks exactly these from now on: those that are new at once, the others when they are due.
    pub(crate) fn set(&mut self, wanted: &BTreeSet<SocketAddr>, now: Instant, first: Duration) {
        self.attempts.retain(|address, _| wanted.contains(address));
        for &address in wanted {
            self.attempts.entry(address).or_insert(Attempt { due: now, delay: first });
        }
        self.next = self.attempts.values().map(|attempt| attempt.due).min();
    }

    pub(crate) const fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Whom to ask now.
    pub(crate) fn due(&mut self, now: Instant, most: Duration, rng: &mut Prng) -> Vec<SocketAddr> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let due = self.attempts.iter_mut().filter(|(_, attempt)| attempt.due <= now);
        let due = due.map(|(&address, attempt)| {
            // Half of it at random, so that those who were cut off together do not ask together.
            let jitter = rng.below(u64::try_from(attempt.delay.as_micros() / 2).unwrap_or(u64::MAX));
            attempt.due = now + attempt.delay / 2 + Duration::from_micros(jitter);
            attempt.delay = (attempt.delay * 2).min(most);
            address
        });
        let due = due.collect();
        self.next = self.attempts.values().map(|attempt| attempt.due).min();
        due
    }

    pub(crate) fn len(&self) -> usize {
        self.attempts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_at_once_then_more_and_more_rarely_and_never_stops() {
        let (first, most) = (Duration::from_millis(500), Duration::from_secs(4));
        let address: SocketAddr = "127.0.0.1:7946".parse().expect("an address");
        let (mut healing, mut rng, mut now) = (Healing::default(), Prng::new(1), Instant::default());
        healing.set(&[address].into(), now, first);
        let mut gaps = Vec::new();
        for _ in 0..100 {
            assert_eq!(healing.due(now, most, &mut rng), [address]);
            assert!(healing.due(now, most, &mut rng).is_empty());
            let next = healing.next_due().expect("it never gives up");
            gaps.push(next.since(now));
            now = next;
            healing.set(&[address].into(), now, first);
        }
        assert!(gaps[0] < first && gaps[99] >= most / 2 && gaps[99] <= most, "{gaps:?}");
        healing.set(&[].into(), now, first);
        assert_eq!((healing.next_due(), healing.len()), (None, 0));
    }
}
