//! How long a suspect has to show that it lives: the shorter, the more independent witnesses there are (Lifeguard, 4.2).

use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use core::time::Duration;

/// What is left, in thousandths, of the way from the shortest to the longest suspicion with 0, 1, … further witnesses out of as many
/// as are expected: 1 − log(witnesses + 1) / log(expected + 1).
const LEFT: [[u32; 4]; 4] = [[0, 0, 0, 0], [1_000, 0, 0, 0], [1_000, 369, 0, 0], [1_000, 500, 208, 0]];

/// One suspicion.
#[derive(Debug)]
pub(crate) struct Suspicion {
    /// The one who raised it, and witnesses since.
    witnesses: Vec<NodeId>,
    /// How many further witnesses make it the shortest.
    expected: usize,
    since: Instant,
    shortest: Duration,
    longest: Duration,
}

impl Suspicion {
    /// `others`: who could be witnesses.
    pub(crate) fn new(
        from: NodeId,
        others: usize,
        factor: u32,
        (shortest, longest): (Duration, Duration),
        now: Instant,
    ) -> Self {
        let wanted = (factor.saturating_sub(2) as usize).min(LEFT.len() - 1);
        // Where there are too few to be waited for, one word is enough.
        let expected = if others < wanted { 0 } else { wanted };
        Self { witnesses: alloc::vec![from], expected, since: now, shortest, longest }
    }

    /// True if the witness is a new one whom it is worth telling others about.
    pub(crate) fn add_witness(&mut self, from: NodeId) -> bool {
        let is_news = self.witnesses.len() <= self.expected && !self.witnesses.contains(&from);
        if is_news {
            self.witnesses.push(from);
        }
        is_news
    }

    /// When the suspect is dead.
    pub(crate) fn deadline(&self) -> Instant {
        let left = LEFT[self.expected][(self.witnesses.len() - 1).min(self.expected)];
        self.since + self.shortest + self.longest.saturating_sub(self.shortest) * left / 1_000
    }

    /// This process did not run for so long: nobody could have told it anything.
    pub(crate) fn extend(&mut self, by: Duration) {
        self.since = self.since + by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    #[test]
    fn witnesses_shorten_it_and_each_counts_once() {
        let span = (Duration::from_secs(1), Duration::from_secs(6));
        let mut suspicion = Suspicion::new(NodeId(1), 10, 4, span, at(0));
        assert_eq!(suspicion.deadline(), at(6_000));
        assert!(!suspicion.add_witness(NodeId(1)));
        assert!(suspicion.add_witness(NodeId(2)));
        assert_eq!(suspicion.deadline(), at(2_845));
        assert!(!suspicion.add_witness(NodeId(2)) && suspicion.add_witness(NodeId(3)));
        assert_eq!(suspicion.deadline(), at(1_000));
        assert!(!suspicion.add_witness(NodeId(4)), "nobody needs to hear of a fourth");
        suspicion.extend(Duration::from_secs(5));
        assert_eq!(suspicion.deadline(), at(6_000));
    }

    #[test]
    fn where_nobody_else_could_be_a_witness_it_is_short() {
        let span = (Duration::from_secs(1), Duration::from_secs(6));
        assert_eq!(Suspicion::new(NodeId(1), 1, 4, span, at(0)).deadline(), at(1_000));
    }
}
