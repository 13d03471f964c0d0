//! The pace of draining: all sessions are told to go within a share of the time there is, at an even rate, but never slower
//! than a few at a time, so that a small node does not use up its deadline.

use bifro_core::time::Instant;
use std::ops::Range;
use std::time::Duration;

/// Share of the time until the deadline in which every session is to have been told.
const SHARE_PERCENT: u32 = 80;
/// Sessions told per step at least.
const STEP_MIN: u64 = 64;
/// Length of a step.
const STEP: Duration = Duration::from_millis(10);

/// Ending all sessions of a shard within a deadline.
#[derive(Debug)]
pub(crate) struct Drain {
    begun: Instant,
    /// When the last session should have been told.
    until: Instant,
    deadline: Instant,
    /// The connections below this have been told.
    told: u32,
    announced: bool,
}

impl Drain {
    pub(crate) fn new(now: Instant, within: Duration) -> Self {
        let until = now + within * SHARE_PERCENT / 100;
        Self { begun: now, until, deadline: now + within, told: 0, announced: false }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The connections to tell now, of those below `bound`; each is named once.
    pub(crate) fn advance(&mut self, now: Instant, bound: u32) -> Range<u32> {
        let elapsed = now.since(self.begun).as_micros();
        let even = u128::from(bound) * elapsed / self.until.since(self.begun).as_micros().max(1);
        let least = (elapsed / STEP.as_micros() + 1) * u128::from(STEP_MIN);
        let target = u32::try_from(even.max(least)).unwrap_or(u32::MAX).min(bound).max(self.told);
        std::mem::replace(&mut self.told, target)..target
    }

    /// This shard has no connections any more. True if its peers have to be told.
    pub(crate) const fn announce(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(1_000_000);

    #[test]
    fn many_sessions_are_told_at_an_even_rate_however_often_it_is_asked() {
        let mut drain = Drain::new(START, Duration::from_secs(100));
        let mut told = 0;
        for step in 0..=80_000 {
            let range = drain.advance(START + Duration::from_millis(step), 1_000_000);
            assert_eq!(range.start, told);
            told = range.end;
            assert!(range.len() <= 77, "{} at {step}", range.len());
        }
        assert_eq!(told, 1_000_000, "all have been told after four fifths of the time");
    }

    #[test]
    fn a_few_sessions_are_told_at_once() {
        let mut drain = Drain::new(START, Duration::from_secs(100));
        assert_eq!(drain.advance(START, 10), 0..10);
        assert_eq!(drain.advance(START, 10), 10..10);
        assert!(drain.announce() && !drain.announce());
    }
}
