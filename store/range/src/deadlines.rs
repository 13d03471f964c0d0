//! Deadlines in order of time, ties in order of key, so that equal inputs fire in equal order.

use alloc::collections::BTreeSet;
use bifro_core::time::Instant;

/// A set of (time, key) pairs. Whoever sets a deadline remembers it, and clears exactly that one.
#[derive(Debug)]
pub(crate) struct Deadlines<K> {
    ordered: BTreeSet<(Instant, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self { ordered: BTreeSet::new() }
    }
}

impl<K: Ord> Deadlines<K> {
    pub(crate) fn set(&mut self, at: Instant, key: K) {
        self.ordered.insert((at, key));
    }

    pub(crate) fn clear(&mut self, at: Instant, key: K) {
        self.ordered.remove(&(at, key));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|&(at, _)| at)
    }

    /// Takes out the earliest deadline that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.pop_first()
    }

    /// Takes out the earliest deadline.
    pub(crate) fn pop_first(&mut self) -> Option<K> {
        self.ordered.pop_first().map(|(_, key)| key)
    }
}
