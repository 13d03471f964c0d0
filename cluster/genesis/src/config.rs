//! All timings.

use core::time::Duration;

/// Timings of [`crate::Founding`]. None of them bears on what is decided, only on how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// From one question to a seed to the same question again.
    pub ask_interval: Duration,
    /// A seed that was not heard for so long is not there.
    pub freshness: Duration,
    /// Nodes that hear a majority at the same moment begin to propose within this time, so that one is first.
    pub spread: Duration,
    /// How long a proposer waits at most for the seeds that are not needed for a majority: whoever promises is a founder.
    pub gather: Duration,
    /// How long each step of a proposal may take the first time. Doubled with each failure, a few times: disks may be slow.
    pub patience: Duration,
    /// How long a node that has promised another to accept its proposal leaves it time.
    pub courtesy: Duration,
    /// How long a node that knows its cluster waits at most for another to say the same.
    pub confirm: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ask_interval: Duration::from_millis(400),
            freshness: Duration::from_secs(3),
            spread: Duration::from_millis(200),
            gather: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            courtesy: Duration::from_secs(2),
            confirm: Duration::from_secs(1),
        }
    }
}
