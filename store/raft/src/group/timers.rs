//! The deadlines of a group.

use bifro_core::time::Instant;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// Nothing was heard from a leader, or an election has come to nothing.
    Election,
    /// The leader must speak.
    Heartbeat,
    /// The leader must have heard from a quorum.
    CheckQuorum,
    /// Leadership was not taken over.
    Transfer,
    /// Entries that could not be read are asked for again.
    FetchAgain,
}

impl Timer {
    /// Every timer, in the order in which those due at once are served.
    pub(super) const ALL: [Self; 5] =
        [Self::CheckQuorum, Self::Transfer, Self::Heartbeat, Self::FetchAgain, Self::Election];
}

/// At most one deadline per purpose.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers([Option<Instant>; Timer::ALL.len()]);

impl Timers {
    /// Sets or moves a deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Removes a deadline.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Whether there is such a deadline.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// Removes the deadline if it has come; returns whether it had.
    pub(super) fn take_due(&mut self, timer: Timer, now: Instant) -> bool {
        let due = self.0[timer as usize].is_some_and(|at| at <= now);
        if due {
            self.clear(timer);
        }
        due
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }
}
