//! What a simulation of the services is asked to do, and its fault model: settings drawn once for a run, weather anew for every episode.

use crate::options::pick;
use bifro_core::rng::Prng;
use std::time::Duration;

/// How much of an episode has faults.
pub const FAULTY: Duration = Duration::from_secs(40);

/// So long after healing everybody is to know that everybody lives: who was lost for long is asked only so often (bifro-swim's
/// `heal_interval_max` is 15 s).
pub const MEMBERS_WITHIN: Duration = Duration::from_secs(20);

/// So long after healing every range is to have one leader, whom everybody knows.
pub const LED_WITHIN: Duration = Duration::from_secs(30);

/// So long after healing clients begin nothing new.
pub const CLIENTS_GO_ON: Duration = Duration::from_secs(32);

/// So long after healing every publish is to be answered, every message that was owed received, and no queue to hold anything.
pub const DRAINED_WITHIN: Duration = Duration::from_secs(45);

/// Virtual length of an episode.
pub const EPISODE: Duration = Duration::from_secs(90);

/// Shards of a node at most.
pub const SHARDS_MAX: u64 = 2;

/// What to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Episodes, of [`EPISODE`] each.
    pub episodes: u64,
    /// Kinds of fault that are left out.
    pub without: Vec<Kind>,
    /// From this virtual second on, everything that happens is told on standard error.
    pub narrate_from: Option<u64>,
    /// A mistake to plant on every shard.
    #[cfg(feature = "mutations")]
    pub mutation: Option<bifro_store::services::Mutation>,
}

impl Options {
    /// Everything, on so many nodes and for so long.
    pub const fn new(nodes: usize, episodes: u64) -> Self {
        Self {
            nodes,
            episodes,
            without: Vec::new(),
            narrate_from: None,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Processes end at any moment, with what their disk has by then, and start again.
    Crashes,
    /// Links are cut: one direction, one pair, everything around a node, or the cluster in two.
    Cuts,
    /// A cut that comes and goes every other second.
    Flaps,
    /// A process stands still for up to 20 s.
    Freezes,
    /// One shard of a process stands still; its underlay does not.
    Stalls,
    /// Datagrams of the underlay are lost and late.
    Loss,
    /// Disks take up to seconds for a write.
    Disks,
    /// Clocks are minutes apart.
    Clocks,
}

impl Kind {
    /// Every kind, with its name on the command line.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Crashes, "crashes"),
        (Self::Cuts, "cuts"),
        (Self::Flaps, "flaps"),
        (Self::Freezes, "freezes"),
        (Self::Stalls, "stalls"),
        (Self::Loss, "loss"),
        (Self::Disks, "disks"),
        (Self::Clocks, "clocks"),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).expect("every kind has a name").1
    }
}

/// What holds for a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ranges: u16,
    pub(crate) subscribers: usize,
    /// Between two things that a subscriber does, on average.
    pub(crate) subscriber_pace: Duration,
    pub(crate) publishers: usize,
    /// Of them, members of groups and nothing else.
    pub(crate) members: usize,
    /// Clients without a session.
    pub(crate) listeners: usize,
    /// Publishes a publisher has under way at most.
    pub(crate) window: usize,
    /// Between two publishes of a publisher, on average.
    pub(crate) pace: Duration,
    /// Bytes of changes at which a range asks for a checkpoint.
    pub(crate) overlay_bytes: usize,
    /// Entries that stay in the log behind a checkpoint.
    pub(crate) kept_entries: u64,
    /// Bytes of a piece of a snapshot.
    pub(crate) chunk_bytes: usize,
}

impl Settings {
    /// Draws them. Small limits make rare paths frequent.
    pub(crate) fn drawn(rng: &mut Prng) -> Self {
        Self {
            ranges: 1 + rng.below(5) as u16,
            // Where few listen, a node that misses one of them sends nothing to where it is.
            subscribers: 1 + rng.below(8) as usize,
            subscriber_pace: Duration::from_millis(pick(rng, &[250, 900])),
            publishers: 2 + rng.below(3) as usize,
            members: rng.below(5) as usize,
            listeners: rng.below(4) as usize,
            window: pick(rng, &[1, 4, 16]),
            pace: Duration::from_millis(pick(rng, &[40, 120, 400])),
            overlay_bytes: pick(rng, &[2 << 10, 16 << 10, 1 << 20]),
            kept_entries: pick(rng, &[4, 64, 1_024]),
            chunk_bytes: pick(rng, &[256, 4 << 10, 512 << 10]),
        }
    }
}

/// What an episode is like.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) kinds: Vec<Kind>,
    /// Between two faults, on average.
    pub(crate) pace: Duration,
    /// Of the network between nodes, for datagrams; what links carry is late like them, and neither lost nor out of order.
    pub(crate) network: crate::options::Weather,
    /// A write to the log takes up to this.
    pub(crate) sync: Duration,
    /// A job of the engine takes up to this.
    pub(crate) job: Duration,
    /// A shard begins its turn up to this after there is something to do.
    pub(crate) turn: Duration,
    /// Between client and node.
    pub(crate) client: Duration,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn fair() -> Self {
        Self {
            kinds: Vec::new(),
            pace: Duration::MAX,
            network: crate::options::Weather::fair(),
            sync: Duration::from_micros(400),
            job: Duration::from_micros(500),
            turn: Duration::from_micros(100),
            client: Duration::from_micros(300),
        }
    }

    /// Draws an episode's weather.
    pub(crate) fn drawn(rng: &mut Prng, options: &Options) -> Self {
        let mut kinds = Vec::new();
        for (kind, _) in Kind::ALL {
            if rng.below(100) < 55 && !options.without.contains(&kind) {
                kinds.push(kind);
            }
        }
        let (loss, duplicates, stragglers) = (pick(rng, &[20, 150]), pick(rng, &[0, 20]), pick(rng, &[0, 10]));
        let lossy = |count| if kinds.contains(&Kind::Loss) { count } else { 0 };
        let network = crate::options::Weather {
            loss: lossy(loss),
            duplicates: lossy(duplicates),
            stragglers: lossy(stragglers),
            ordered: false,
            delay: Duration::from_micros(pick(rng, &[100, 1_000, 10_000])),
            jitter: Duration::from_micros(pick(rng, &[200, 5_000, 40_000])),
            ..crate::options::Weather::fair()
        };
        Self {
            pace: Duration::from_millis(pick(rng, &[700, 2_000, 6_000])),
            network,
            sync: Duration::from_micros(pick(rng, &[500, 5_000, 30_000])),
            job: Duration::from_micros(pick(rng, &[500, 20_000, 200_000])),
            turn: Duration::from_micros(pick(rng, &[50, 1_000, 10_000])),
            client: Duration::from_micros(pick(rng, &[300, 5_000, 50_000])),
            kinds,
        }
    }

    /// Whether such things happen.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}
