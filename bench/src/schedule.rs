//! When an open loop means to send: fixed times, kept whether or not the broker keeps up, so that a stall shows in the
//! latency of every message it delayed (no coordinated omission).

/// The times at which one publisher sends, in nanoseconds since the run began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
}

impl Schedule {
    /// Publisher `index` of `publishers` that send `rate` messages a second together: they take turns.
    pub fn new(start_ns: u64, rate: f64, index: u32, publishers: u32) -> Self {
        let turn_ns = 1e9 / rate;
        let offset_ns = (turn_ns * f64::from(index)) as u64;
        Self { start_ns: start_ns + offset_ns, interval_ns: turn_ns * f64::from(publishers) }
    }

    /// When message `sequence` is due.
    #[inline]
    pub fn intended_ns(&self, sequence: u64) -> u64 {
        self.start_ns + (self.interval_ns * sequence as f64) as u64
    }

    /// How many messages are due at `now_ns`.
    #[inline]
    pub fn due(&self, now_ns: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let mut due = ((now_ns - self.start_ns) as f64 / self.interval_ns) as u64 + 1;
        // Division and multiplication round differently: the intended times decide.
        while due > 0 && self.intended_ns(due - 1) > now_ns {
            due -= 1;
        }
        while self.intended_ns(due) <= now_ns {
            due += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_take_turns_at_the_common_rate() {
        let schedules: Vec<Schedule> = (0..4).map(|index| Schedule::new(1_000, 1000.0, index, 4)).collect();
        let times: Vec<u64> = (0..2).flat_map(|seq| schedules.iter().map(move |s| s.intended_ns(seq))).collect();
        let expected: Vec<u64> = (0..8).map(|turn| 1_000 + turn * 1_000_000).collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn what_is_due_agrees_with_the_intended_times() {
        let schedule = Schedule::new(5, 30_011.0, 3, 7);
        for sequence in 0..10_000 {
            let at = schedule.intended_ns(sequence);
            assert_eq!(schedule.due(at), sequence + 1);
            assert_eq!(schedule.due(at - 1), sequence);
        }
    }

    #[test]
    fn a_stall_does_not_move_the_times() {
        let schedule = Schedule::new(0, 1000.0, 0, 1);
        assert_eq!(schedule.due(3_000_000_000), 3001);
        assert_eq!(schedule.intended_ns(3000), 3_000_000_000);
    }
}
