//! What a simulation is asked to do, and the fault model: a run draws its settings once and its weather anew for every episode,
//! so that some episodes are wild, some have one kind of fault only, and together they have all of them.

use bifro_core::rng::Prng;
use bifro_raft::Config;
use std::time::Duration;

/// Virtual length of an episode: faults for [`FAULTY`], then none until its end, by when everything must be well again.
pub const EPISODE: Duration = Duration::from_secs(60);

/// How much of an episode has faults.
pub const FAULTY: Duration = Duration::from_secs(45);

/// After healing, clients go on for this long and then begin nothing new.
pub const CLIENTS_GO_ON: Duration = Duration::from_secs(3);

/// The liveness bound: so long after healing every group has one leader, every command and read is answered, and all members have
/// equal states.
pub const HEALED_WITHIN: Duration = Duration::from_secs(12);

/// What to simulate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes of the cluster; each has a replica of some of the groups.
    pub nodes: usize,
    /// Episodes, of one virtual minute each.
    pub minutes: u64,
    /// Kinds of fault that are left out.
    pub without: Vec<Kind>,
    /// From this virtual second on, everything that happens is told on standard error.
    pub narrate_from: Option<u64>,
    /// A mistake to plant in every replica.
    #[cfg(feature = "mutations")]
    pub mutation: Option<bifro_raft::Mutation>,
}

impl Options {
    /// Everything, on so many nodes and for so long.
    pub fn new(nodes: usize, minutes: u64) -> Self {
        Self {
            nodes,
            minutes,
            without: Vec::new(),
            narrate_from: None,
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }
}

/// A kind of fault or of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Batches are lost, duplicated, reordered, some by seconds.
    Loss,
    /// Links are cut, in one direction or both; the cluster is parted.
    Cuts,
    /// Links hold back what they are given, and let it all go at once.
    Clogs,
    /// Nodes crash, at any time or exactly at a step of persisting, and start again.
    Crashes,
    /// Disks are slow or full.
    Disks,
    /// Clocks drift; where no lease rests on them they drift far and jump.
    Clocks,
    /// Nodes stand still for a while.
    Freezes,
    /// Members come, go, and change their roles.
    Changes,
    /// Leadership is handed over.
    Transfers,
    /// Checkpoints are taken and logs compacted.
    Compaction,
}

impl Kind {
    /// Every kind, with its name on the command line.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Loss, "loss"),
        (Self::Cuts, "cuts"),
        (Self::Clogs, "clogs"),
        (Self::Crashes, "crashes"),
        (Self::Disks, "disks"),
        (Self::Clocks, "clocks"),
        (Self::Freezes, "freezes"),
        (Self::Changes, "changes"),
        (Self::Transfers, "transfers"),
        (Self::Compaction, "compaction"),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).expect("every kind has a name").1
    }
}

/// What holds for a whole run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) groups: u64,
    /// A client's rest between an answer and its next operation, at most.
    pub(crate) think: Duration,
    /// How many of a hundred operations are reads.
    pub(crate) reads_percent: u64,
    /// Bytes added to commands, at most.
    pub(crate) filler: u64,
}

impl Settings {
    /// Draws them. Small limits make rare paths frequent; not so small that a replica which begins with nothing cannot catch up within
    /// [`HEALED_WITHIN`].
    pub(crate) fn drawn(rng: &mut Prng) -> Self {
        let config = Config {
            quiesce_after: pick(rng, &[None, Some(Duration::from_millis(500)), Some(Duration::from_secs(3))]),
            lease_reads: rng.below(2) == 0,
            pending_entries_max: pick(rng, &[8, 1_000]),
            pending_bytes_max: pick(rng, &[1 << 10, 1 << 20]),
            inflight_messages_max: pick(rng, &[1, 4, 64]),
            inflight_bytes_max: pick(rng, &[1 << 10, 4 << 20]),
            message_bytes_max: pick(rng, &[600, 4 << 10, 512 << 10]),
            tail_bytes_max: pick(rng, &[0, 2 << 10, 1 << 20]),
            apply_bytes_max: pick(rng, &[1 << 10, 4 << 20]),
            ..Config::DEFAULT
        };
        Self {
            config,
            groups: 1 + rng.below(3),
            think: Duration::from_millis(pick(rng, &[100, 300, 1_500])),
            reads_percent: pick(rng, &[10, 40, 70]),
            filler: pick(rng, &[0, 60, 400]),
        }
    }
}

/// What an episode is like.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) kinds: Vec<Kind>,
    /// Between two faults, on average.
    pub(crate) pace: Duration,
    /// Between two operations of the operator, on average.
    pub(crate) operations: Duration,
    /// Batches lost of a thousand.
    pub(crate) loss: u64,
    /// Batches duplicated of a thousand.
    pub(crate) duplicates: u64,
    /// Batches of a thousand that arrive seconds later.
    pub(crate) stragglers: u64,
    /// Links keep the order, except for stragglers, as connections do.
    pub(crate) ordered: bool,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// A sync takes up to this.
    pub(crate) sync: Duration,
    /// Applying takes up to this; zero: it is done within the turn.
    pub(crate) apply: Duration,
    /// Old entries cannot always be read, nor snapshots be made or fetched.
    pub(crate) fails: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn fair() -> Self {
        Self {
            kinds: Vec::new(),
            pace: Duration::MAX,
            operations: Duration::MAX,
            loss: 0,
            duplicates: 0,
            stragglers: 0,
            ordered: true,
            delay: Duration::from_micros(100),
            jitter: Duration::from_micros(200),
            sync: Duration::from_micros(400),
            apply: Duration::ZERO,
            fails: false,
        }
    }

    /// Draws an episode's weather.
    pub(crate) fn drawn(rng: &mut Prng, options: &Options) -> Self {
        let mut kinds = Vec::new();
        for (kind, _) in Kind::ALL {
            if rng.below(100) < 60 && !options.without.contains(&kind) {
                kinds.push(kind);
            }
        }
        let (loss, duplicates, stragglers) = (pick(rng, &[0, 20, 150]), pick(rng, &[0, 20]), pick(rng, &[0, 5, 20]));
        let lossy = |count| if kinds.contains(&Kind::Loss) { count } else { 0 };
        Self {
            pace: Duration::from_millis(pick(rng, &[400, 1_500, 5_000])),
            operations: Duration::from_millis(pick(rng, &[300, 1_000, 4_000])),
            loss: lossy(loss),
            duplicates: lossy(duplicates),
            stragglers: lossy(stragglers),
            ordered: rng.below(2) == 0,
            delay: Duration::from_micros(pick(rng, &[100, 1_000, 20_000])),
            jitter: Duration::from_micros(pick(rng, &[200, 5_000, 60_000])),
            sync: Duration::from_micros(pick(rng, &[500, 5_000, 50_000])),
            apply: Duration::from_micros(pick(rng, &[0, 0, 10_000])),
            fails: rng.below(2) == 0,
            kinds,
        }
    }

    /// Whether such things happen.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// One of these, each as likely.
pub(crate) fn pick<T: Copy>(rng: &mut Prng, choices: &[T]) -> T {
    choices[rng.below(choices.len() as u64) as usize]
}

/// A duration below this one.
pub(crate) fn within(rng: &mut Prng, most: Duration) -> Duration {
    Duration::from_micros(rng.below(most.as_micros() as u64 + 1))
}

/// A duration around this one: between a tenth and about twice.
pub(crate) fn around(rng: &mut Prng, mean: Duration) -> Duration {
    mean / 10 + within(rng, mean * 9 / 5)
}
