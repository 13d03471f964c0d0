//! Bandwidth limits of one connection (BifroMQ's InBoundBandWidth and OutBoundBandWidth) as two token buckets of one second.

use bifro_core::settings::TenantSettings;
use bifro_core::time::Instant;
use std::time::Duration;

/// A token bucket that may go into debt once: what has arrived cannot be refused, the next bytes wait.
#[derive(Debug)]
struct Bucket {
    /// 0 = unlimited.
    per_second: u64,
    tokens: i64,
    refilled_at: Instant,
}

impl Bucket {
    fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second, tokens: i64::try_from(per_second).unwrap_or(i64::MAX), refilled_at: now }
    }

    fn spend(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        if self.per_second == 0 {
            return None;
        }
        let full = i64::try_from(self.per_second).unwrap_or(i64::MAX);
        let elapsed = now.since(self.refilled_at).as_micros();
        let earned = u128::from(self.per_second) * elapsed / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(full);
            // Only the time that whole bytes took is spent, so that a slow rate earned in small steps stays the rate.
            let spent = u64::try_from(earned * 1_000_000 / u128::from(self.per_second)).unwrap_or(u64::MAX);
            self.refilled_at = self.refilled_at + Duration::from_micros(spent);
        }
        self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        let debt = u64::try_from(-self.tokens).ok().filter(|&debt| debt > 0)?;
        Some(Duration::from_micros(debt.saturating_mul(1_000_000) / self.per_second))
    }
}

/// Both directions of one connection.
#[derive(Debug)]
pub(crate) struct Shaper {
    inbound: Bucket,
    outbound: Bucket,
    /// Receiving is paused until then.
    pub(crate) receive_at: Option<Instant>,
    /// Sending is paused until then.
    pub(crate) send_at: Option<Instant>,
}

impl Shaper {
    /// A shaper, if the tenant's settings limit anything.
    pub(crate) fn new(settings: &TenantSettings, now: Instant) -> Option<Box<Self>> {
        let (inbound, outbound) = (settings.inbound_bytes_per_s_max, settings.outbound_bytes_per_s_max);
        (inbound != 0 || outbound != 0).then(|| {
            let (inbound, outbound) = (Bucket::new(inbound, now), Bucket::new(outbound, now));
            Box::new(Self { inbound, outbound, receive_at: None, send_at: None })
        })
    }

    /// Bytes have arrived. True if no more are to be read until [`Shaper::receive_at`], which stays set until whoever paused
    /// the reading takes it: bytes that were on their way then must not make the pause forgotten.
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) -> bool {
        if let Some(wait) = self.inbound.spend(bytes, now) {
            self.receive_at = Some(now + wait);
        }
        self.receive_at.is_some()
    }

    /// Bytes are handed to the ring; the next ones wait until [`Shaper::send_at`], if that is set.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        self.send_at = self.outbound.spend(bytes, now).map(|wait| now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_rate_earned_in_small_steps_is_still_the_rate() {
        let start = Instant::from_micros(1_000_000);
        let mut bucket = Bucket::new(100, start);
        assert!(bucket.spend(200, start).is_some());
        let steps = (1..=200).map(|step| bucket.spend(0, start + Duration::from_millis(step * 15)).is_some());
        assert_eq!(steps.filter(|waits| *waits).count(), 66, "a debt of 100 bytes takes a second");
    }

    #[test]
    fn a_connection_over_its_bandwidth_waits_for_as_long_as_its_debt_takes() {
        let settings = TenantSettings { inbound_bytes_per_s_max: 1000, ..TenantSettings::default() };
        let start = Instant::from_micros(1_000_000);
        let mut shaper = Shaper::new(&settings, start).expect("a limit is set");
        assert!(!shaper.received(1000, start), "a second's worth may come at once");
        assert!(shaper.received(500, start));
        assert_eq!(shaper.receive_at, Some(start + Duration::from_millis(500)));
        let later = start + Duration::from_millis(500);
        assert!(shaper.received(0, later), "the pause is taken back by whoever made it");
        assert_eq!(shaper.receive_at.take(), Some(later));
        assert!(!shaper.received(0, later));
        shaper.sent(1 << 20, start);
        assert_eq!(shaper.send_at, None, "the other direction is unlimited");
        assert!(Shaper::new(&TenantSettings::default(), start).is_none());
    }
}
