//! The virtual clock and what is going to happen: events in the order of their time, those of one moment in the order in which
//! they were scheduled.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A moment of virtual time: microseconds since the simulation began. Not what any node's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Time from `earlier` to here, zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs.as_micros() as u64)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Events to come. Time goes on as they are taken out.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now: Moment,
    scheduled: BinaryHeap<Scheduled<E>>,
    sequence: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Moment,
    sequence: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Nothing to come, at the beginning of time.
    pub(crate) fn new() -> Self {
        Self { now: Moment(0), scheduled: BinaryHeap::new(), sequence: 0 }
    }

    /// The time of the event taken out last.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// Schedules an event; one in the past happens now.
    pub(crate) fn at(&mut self, at: Moment, event: E) {
        self.sequence += 1;
        self.scheduled.push(Scheduled { at: at.max(self.now), sequence: self.sequence, event });
    }

    /// Schedules an event so much later than now.
    pub(crate) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Takes out the next event.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let next = self.scheduled.pop()?;
        assert!(next.at >= self.now, "time does not go back");
        self.now = next.at;
        Some(next.event)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    /// The heap's greatest is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_scheduled() {
        let mut queue = Queue::new();
        [(5, 'c'), (3, 'a'), (5, 'd'), (4, 'b')].into_iter().for_each(|(at, event)| queue.at(Moment(at), event));
        let order: String = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.now(), Moment(5));
    }
}
