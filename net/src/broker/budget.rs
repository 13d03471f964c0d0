//! The shard's memory budget and what follows from being over it.
//!
//! | level | of the budget | what happens |
//! |---|---|---|
//! | relaxed | below 50 % | connections may buffer up to the configured high-water mark |
//! | tight | from 50 % | the mark shrinks to [`TIGHT_HIGH_WATER_BYTES`]: slow QoS 0 subscribers lose messages earlier |
//! | starved | transit memory from 75 % | connections that publish are paused until it is below 60 % again |
//! | exhausted | from 100 % | CONNECT is refused (0x97, 3.x: 3), and so is storing for offline sessions and retaining |

use bifro_core::metrics::ShardMetrics;

/// High-water mark of a connection while the budget is tight, in bytes.
pub(crate) const TIGHT_HIGH_WATER_BYTES: usize = 64 << 10;

/// Memory counted on one shard.
#[derive(Debug)]
pub(crate) struct Budget {
    budget_bytes: u64,
    high_water_bytes: usize,
    /// Held by connections: write buffers, partial packets, queued messages.
    held_bytes: u64,
    /// On the way: waiting for a match, for room in the mesh.
    moving_bytes: u64,
    /// Stored: inboxes, retained messages, and changes on their way to the disk.
    stored_bytes: u64,
}

impl Budget {
    pub(crate) const fn new(budget_bytes: u64, high_water_bytes: usize) -> Self {
        assert!(budget_bytes > 0, "the configuration refuses an empty budget");
        Self { budget_bytes, high_water_bytes, held_bytes: 0, moving_bytes: 0, stored_bytes: 0 }
    }

    /// Replaces what one connection is counted with.
    pub(crate) fn recount(&mut self, accounted: &mut u32, held: u64) {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        self.held_bytes = self.held_bytes - u64::from(*accounted) + u64::from(held);
        *accounted = held;
    }

    /// Notes what is on the way and what is stored, once per turn.
    pub(crate) fn observe(&mut self, moving_bytes: u64, metrics: &ShardMetrics) {
        self.moving_bytes = moving_bytes;
        self.stored_bytes =
            metrics.inbox_resident_bytes.read() + metrics.retained_bytes.read() + metrics.store_held_bytes.read();
        metrics.write_buffer_bytes.set(self.held_bytes);
        metrics.memory_used_bytes.set(self.used_bytes());
    }

    /// # Panics
    /// If connections are not counted with what they hold.
    #[cfg(test)]
    pub(crate) fn validate(&self, held_bytes: u64) {
        assert_eq!(self.held_bytes, held_bytes);
    }

    const fn used_bytes(&self) -> u64 {
        self.held_bytes + self.moving_bytes + self.stored_bytes
    }

    const fn transit_percent(&self) -> u64 {
        (self.held_bytes + self.moving_bytes) * 100 / self.budget_bytes
    }

    /// The mark over which a connection gets no more QoS 0.
    pub(crate) fn high_water_bytes(&self) -> usize {
        let tight = self.used_bytes() >= self.budget_bytes / 2;
        if tight { self.high_water_bytes.min(TIGHT_HIGH_WATER_BYTES) } else { self.high_water_bytes }
    }

    /// Publishers are to be paused.
    pub(crate) const fn is_starved(&self) -> bool {
        self.transit_percent() >= 75
    }

    /// Paused publishers may go on.
    pub(crate) const fn is_relieved(&self) -> bool {
        self.transit_percent() < 60
    }

    /// Nothing more is taken in.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.used_bytes() >= self.budget_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_table() {
        let metrics = ShardMetrics::default();
        let mut budget = Budget::new(1000 << 20, 1 << 20);
        let mut accounted = 0;
        budget.recount(&mut accounted, 499 << 20);
        assert_eq!(budget.high_water_bytes(), 1 << 20);
        budget.recount(&mut accounted, 500 << 20);
        assert_eq!(budget.high_water_bytes(), TIGHT_HIGH_WATER_BYTES);
        assert!(!budget.is_starved());
        budget.observe(250 << 20, &metrics);
        assert!(budget.is_starved() && !budget.is_exhausted());
        metrics.inbox_resident_bytes.set(250 << 20);
        budget.observe(250 << 20, &metrics);
        assert!(budget.is_exhausted());
        budget.recount(&mut accounted, 0);
        assert!(budget.is_relieved(), "what is stored does not hold publishers back");
    }
}
