//! What one subscriber has received from one publisher: lost, duplicated and reordered messages, exactly, at no cost for
//! messages that come in order.

/// Ranges of missing sequences remembered per flow; behind them a late message counts as a duplicate.
const GAPS_MAX: usize = 4096;

/// Findings of a flow or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// Messages received, duplicates included.
    pub received: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received after a later one.
    pub reordered: u64,
    /// Not received although a later one was.
    pub gaps: u64,
    /// Messages nobody of this run has sent, or not to this subscriber.
    pub strays: u64,
}

impl Findings {
    /// Adds those of another flow.
    pub const fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.gaps += other.gaps;
        self.strays += other.strays;
    }
}

/// The messages of one publisher at one subscriber.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    next: u64,
    received: u64,
    /// Ranges that were skipped, ascending: first sequence and the one behind the last.
    gaps: Vec<(u64, u64)>,
    forgotten: u64,
    duplicates: u64,
    reordered: u64,
}

impl Flow {
    /// Message `sequence` has arrived. Says whether it is new.
    #[inline]
    pub fn record(&mut self, sequence: u64) -> bool {
        self.received += 1;
        if sequence == self.next {
            self.next += 1;
            return true;
        }
        self.record_out_of_order(sequence)
    }

    /// A message at a member of a shared group: which ones it gets and in what order is the broker's choice
    /// [MQTT5-4.6.0-6], so they are only counted. Loss and duplicates of the group show in the sum of its members.
    #[inline]
    pub const fn record_shared(&mut self) -> bool {
        self.received += 1;
        true
    }

    #[cold]
    fn record_out_of_order(&mut self, sequence: u64) -> bool {
        if sequence > self.next {
            if self.gaps.len() == GAPS_MAX {
                let (first, end) = self.gaps.remove(0);
                self.forgotten += end - first;
            }
            self.gaps.push((self.next, sequence));
            self.next = sequence + 1;
            return true;
        }
        let Some(index) = self.gaps.iter().position(|(first, end)| (*first..*end).contains(&sequence)) else {
            self.duplicates += 1;
            return false;
        };
        self.reordered += 1;
        let (first, end) = self.gaps[index];
        let parts = [(first, sequence), (sequence + 1, end)];
        self.gaps.splice(index..=index, parts.into_iter().filter(|(first, end)| first < end));
        true
    }

    /// What has been found so far.
    pub fn findings(&self) -> Findings {
        let gaps = self.gaps.iter().map(|(first, end)| end - first).sum::<u64>() + self.forgotten;
        Findings { received: self.received, duplicates: self.duplicates, reordered: self.reordered, gaps, strays: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_of(sequences: &[u64]) -> Findings {
        let mut flow = Flow::default();
        for sequence in sequences {
            flow.record(*sequence);
        }
        flow.findings()
    }

    #[test]
    fn messages_in_order_are_no_finding() {
        assert_eq!(findings_of(&[0, 1, 2, 3]), Findings { received: 4, ..Findings::default() });
    }

    #[test]
    fn a_skipped_message_is_a_gap_until_it_comes_late() {
        assert_eq!(findings_of(&[0, 3]), Findings { received: 2, gaps: 2, ..Findings::default() });
        assert_eq!(findings_of(&[0, 3, 2]), Findings { received: 3, gaps: 1, reordered: 1, ..Findings::default() });
        assert_eq!(findings_of(&[0, 3, 1, 2]), Findings { received: 4, reordered: 2, ..Findings::default() });
    }

    #[test]
    fn a_message_that_comes_again_is_a_duplicate_wherever_it_comes() {
        assert_eq!(findings_of(&[0, 1, 1, 0]), Findings { received: 4, duplicates: 2, ..Findings::default() });
        let late_twice = Findings { received: 5, duplicates: 1, reordered: 1, gaps: 1, strays: 0 };
        assert_eq!(findings_of(&[0, 4, 1, 1, 3]), Findings { reordered: 2, ..late_twice });
    }

    #[test]
    fn gaps_beyond_the_memory_of_a_flow_stay_counted() {
        let sequences: Vec<u64> = (0..GAPS_MAX as u64 + 10).map(|number| number * 2 + 1).collect();
        assert_eq!(findings_of(&sequences).gaps, GAPS_MAX as u64 + 10);
    }
}
