//! What all nodes share: time, network, chance, and the invariants that watch them.

use crate::disk::Checkpoint;
use crate::invariants::Checks;
use crate::network::Network;
use crate::options::{Options, Settings, Weather};
use crate::queue::Queue;
use crate::replica::Ticket;
use crate::report::Report;
use crate::trace::Trace;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_raft::{Batch, FetchId, Index, LogId, SnapshotMeta};

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A batch arrives.
    Deliver { from: usize, to: usize, batch: Batch },
    /// Something that a node set going is done; forgotten if the node has crashed since.
    Node { node: usize, boot: u64, input: Input },
    /// A node starts again.
    Start { node: usize },
    /// A client acts: begins an operation, or tries again.
    Client(Ticket),
    /// The next fault.
    Fault,
    /// The operator does something: members, leaderships, checkpoints.
    Operate,
    /// The underlay looks who is alive.
    Underlay,
    /// The episode's faults end.
    Heal,
    /// Clients begin nothing new.
    Settle,
    /// Everything must be well.
    Judge,
}

/// Something that a node set going is done.
#[derive(Debug)]
pub(crate) enum Input {
    /// The earliest deadline has come.
    Wake,
    /// The disk has synced.
    Synced,
    /// Entries can be applied.
    Applied { range: RangeId, life: u64 },
    /// Old entries were read.
    Fetched { range: RangeId, life: u64, fetch: FetchId, first: Index, last: Index, bytes_max: usize },
    /// A snapshot for a peer can be made.
    SnapshotPrepared { range: RangeId, life: u64, to: NodeId, at_least: Index },
    /// A snapshot has come over the network.
    SnapshotFetched { range: RangeId, life: u64, from: NodeId, meta: SnapshotMeta },
    /// A checkpoint is durable.
    Checkpointed { range: RangeId, life: u64, checkpoint: Box<Checkpoint> },
    /// A replica that was removed from its group can go.
    Bury { range: RangeId, life: u64 },
}

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The command made this version, at this place of the log.
    Written { version: u64, id: LogId },
    /// The key has this version and hash.
    Read { version: u64 },
    /// Neither done nor to be done by this attempt.
    Lost,
}

/// Everything but the nodes and the clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) settings: Settings,
    pub(crate) weather: Weather,
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) rng: Prng,
    pub(crate) checks: Vec<Checks>,
    pub(crate) trace: Trace,
    pub(crate) report: Report,
    pub(crate) answers: Vec<(Ticket, Answer)>,
    /// Reads asked for, to give each a name of its own.
    pub(crate) reads: u64,
}

impl World {
    /// The invariants of a group.
    pub(crate) fn checks(&mut self, range: RangeId) -> &mut Checks {
        &mut self.checks[range.0 as usize]
    }

    /// Tells what happens, if that is wanted.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        if self.options.narrate_from.is_some_and(|from| now.0 >= from * 1_000_000) {
            eprintln!("{now}: {}", what());
        }
    }
}
