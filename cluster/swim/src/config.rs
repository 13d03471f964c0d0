//! All timings.

use core::time::Duration;

/// Timings and multipliers of [`crate::Swim`]. The defaults find a killed process in under 2 s in a cluster of three and in under 4 s in one of a hundred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time from one probe to the next; SWIM's protocol period. A probe without an answer by its end has failed.
    pub probe_interval: Duration,
    /// How long a direct answer may take before others are asked to probe.
    pub probe_timeout: Duration,
    /// How many others are asked.
    pub indirect_probes: usize,
    /// Time from one round of gossip to the next, if there is any.
    pub gossip_interval: Duration,
    /// To how many members each round goes.
    pub gossip_fanout: usize,
    /// A rumour is passed on this many times the decimal logarithm of the cluster's size.
    pub retransmit_factor: u32,
    /// A suspect has this many probe intervals, times the decimal logarithm of the cluster's size, to show that it lives, at least.
    pub suspicion_factor: u32,
    /// The longest suspicion, of which few others are witness, in multiples of the shortest.
    pub suspicion_max_factor: u32,
    /// Time from one exchange of tables with somebody to the next.
    pub sync_interval: Duration,
    /// How soon somebody lost is asked again at first.
    pub heal_interval: Duration,
    /// How soon somebody lost is asked again after many attempts.
    pub heal_interval_max: Duration,
    /// How long a member is dead before it is evicted, that is, before what it kept is to be kept elsewhere.
    pub eviction_grace: Duration,
    /// How long a member that left is remembered, so that old news do not bring it back.
    pub departure_memory: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_millis(80),
            indirect_probes: 3,
            gossip_interval: Duration::from_millis(100),
            gossip_fanout: 3,
            retransmit_factor: 4,
            suspicion_factor: 4,
            suspicion_max_factor: 6,
            sync_interval: Duration::from_secs(10),
            heal_interval: Duration::from_millis(500),
            heal_interval_max: Duration::from_secs(15),
            eviction_grace: Duration::from_secs(60),
            departure_memory: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// How often a rumour is passed on in a cluster of `members`.
    pub(crate) fn transmissions(&self, members: usize) -> u32 {
        self.retransmit_factor * (magnitude(members) / 1_000 + 1)
    }

    /// The shortest and the longest suspicion in a cluster of `members`.
    pub(crate) fn suspicion(&self, members: usize) -> (Duration, Duration) {
        let shortest = self.probe_interval * self.suspicion_factor * magnitude(members).max(1_000) / 1_000;
        (shortest, shortest * self.suspicion_max_factor)
    }
}

/// The decimal logarithm in thousandths, interpolated between powers of two.
fn magnitude(members: usize) -> u32 {
    let members = u64::try_from(members).unwrap_or(u64::MAX).max(1);
    let exponent = members.ilog2();
    let fraction = ((members - (1 << exponent)) * 1_000) >> exponent;
    (u32::try_from(fraction).unwrap_or(1_000) + exponent * 1_000) * 301 / 1_000
}
