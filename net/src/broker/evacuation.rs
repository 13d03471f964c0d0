//! A node that is to go sends its clients to other nodes: no new ones are taken, those that are there leave at a bounded rate, so that the
//! others are not overrun. Unlike the end of the process ([`super::drain`]) it has no deadline, and can be called off.

use super::Broker;
use bifro_core::ids::Slot;
use bifro_core::ports::Services;
use bifro_core::time::Instant;
use bifro_mqtt::reason::Reason;
use std::time::Duration;

/// Places of the connection table that are looked at in one turn.
const PLACES_PER_TURN: u32 = 4_096;
/// What may be made up for in one turn, if the shard has not turned for long.
const BURST: Duration = Duration::from_millis(100);
/// Credit for one client: what a rate of one a second earns in a second, counted in microseconds.
const CLIENT: u64 = 1_000_000;

/// Sending the clients of one shard elsewhere.
#[derive(Debug)]
pub(super) struct Evacuation {
    per_s: u32,
    earned_at: Instant,
    credit: u64,
    /// The place that is looked at next.
    place: u32,
}

impl Evacuation {
    const fn new(now: Instant, per_s: u32) -> Self {
        Self { per_s, earned_at: now, credit: CLIENT, place: 0 }
    }

    fn earn(&mut self, now: Instant) {
        let most = (BURST.as_micros() as u64 * u64::from(self.per_s)).max(CLIENT);
        let elapsed = u64::try_from(now.since(self.earned_at).as_micros()).unwrap_or(u64::MAX);
        self.credit = elapsed.saturating_mul(self.per_s.into()).saturating_add(self.credit).min(most);
        self.earned_at = now;
    }

    /// The next place of `bound` to look at, if anybody may be told to go.
    fn next(&mut self, bound: u32) -> Option<u32> {
        let place = if self.place < bound { self.place } else { 0 };
        self.place = place + 1;
        (self.credit >= CLIENT).then_some(place)
    }

    const fn spend(&mut self) {
        self.credit -= CLIENT;
    }
}

impl<S: Services> Broker<S> {
    /// The node is to go, or is not.
    pub(super) fn set_draining(&mut self, is_draining: bool) {
        if !is_draining {
            self.evacuation = None;
        } else if self.evacuation.is_none() {
            let per_s = (self.settings.drain_per_s / u32::from(self.settings.shards)).max(1);
            self.evacuation = Some(Evacuation::new(self.now, per_s));
        }
    }

    /// Refuses a client that has not been admitted yet. False if it may come.
    pub(super) fn turn_away(&mut self, slot: Slot) -> bool {
        let is_new = self.conns.get(slot).is_some_and(|conn| !conn.session.is_connected());
        if self.evacuation.is_none() || !is_new {
            return false;
        }
        self.send_elsewhere(slot);
        true
    }

    /// Tells the next few clients to go.
    pub(super) fn continue_evacuation(&mut self) {
        let bound = self.conns.bound();
        let Some(evacuation) = &mut self.evacuation else { return };
        evacuation.earn(self.now);
        for _ in 0..bound.min(PLACES_PER_TURN) {
            let Some(place) = self.evacuation.as_mut().and_then(|evacuation| evacuation.next(bound)) else { break };
            let slot = self.conns.at(place);
            let connected = |slot: &Slot| self.conns.get(*slot).is_some_and(|conn| conn.session.is_connected());
            if let Some(slot) = slot.filter(connected) {
                self.evacuation.iter_mut().for_each(Evacuation::spend);
                self.metrics.drained.add(1);
                self.send_elsewhere(slot);
            }
        }
        self.settle();
    }

    fn send_elsewhere(&mut self, slot: Slot) {
        self.with_session(slot, |session, cx, out| session.close(cx, Reason::USE_ANOTHER_SERVER, None, out));
    }

    /// Whether there are clients left to be told.
    pub(super) fn is_evacuating(&self) -> bool {
        self.evacuation.is_some() && self.conns.len() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_at_the_stated_rate_however_often_it_is_asked() {
        let start = Instant::from_micros(1_000_000);
        for step_ms in [1, 10, 70] {
            let mut evacuation = Evacuation::new(start, 500);
            let mut told = 0;
            for step in 0..(10_000 / step_ms) {
                evacuation.earn(start + Duration::from_millis(step * step_ms));
                while evacuation.next(1_000_000).is_some() {
                    evacuation.spend();
                    told += 1;
                }
            }
            assert!((4_930..=5_001).contains(&told), "{told} in steps of {step_ms} ms");
        }
    }

    #[test]
    fn places_are_looked_at_one_after_the_other_and_nothing_is_saved_up() {
        let start = Instant::from_micros(1_000_000);
        let mut evacuation = Evacuation::new(start, 20);
        assert_eq!([evacuation.next(2), evacuation.next(2), evacuation.next(2)], [Some(0), Some(1), Some(0)]);
        evacuation.spend();
        assert_eq!(evacuation.next(2), None);
        evacuation.earn(start + Duration::from_secs(3_600));
        assert_eq!(evacuation.credit, 2 * CLIENT);
    }
}
