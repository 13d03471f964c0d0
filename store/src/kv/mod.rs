//! The key-value engine under ranges: per range a write-back overlay in memory above a base that blocks.
//!
//! - The Raft log is the overlay's log: nothing is synced here but checkpoints, and after a crash the log is replayed from
//!   [`KvSpace::applied`] on.
//! - A checkpoint freezes the overlay and commits it with its applied index as one atomic, synced batch on another thread; only
//!   [`Outcome::Checkpointed`] lets the log be compacted.
//! - A key that comes and goes between two checkpoints ([`KvSpace::put_new`], then [`KvSpace::delete`]) never reaches the base.
//! - The shard asks memory ([`KvSpace::lookup`]); what memory does not know is asked of a thread and answered later.
//! - Every record has a checksum over its key and value, verified at every read: [`KvError::Corrupt`].
//!
//! ```text
//! shard: KvSpace (active, frozen) ── jobs ──► reader, committer, transfer thread ──► KvBase: FjallBase | MemoryBase
//!          ▲                                             │
//!          └── complete(KvDone) ◄── KvShard::poll ◄──────┘ and a wake
//! ```
//! [`conformance`] is what a base must do, as code. The example `storage` measures what a checkpoint costs.

mod base;
pub mod conformance;
mod error;
mod fjall_base;
mod jobs;
mod memory;
mod merge;
mod metrics;
mod overlay;
mod record;
mod snapshot;
mod space;
mod transfer;

pub use base::{Change, Commit, KvBase, KvInstall, KvView, Page, Pair, Scan, SpaceId, SpaceState};
pub use error::KvError;
pub use fjall_base::{FjallBase, FjallConfig};
pub use jobs::{JobRunner, KvDone};
pub use memory::MemoryBase;
pub use metrics::KvMetrics;
pub use snapshot::KvSnapshot;
pub use space::{Hot, KvSpace, Outcome, SpaceLimits};
pub use transfer::{InstallStep, Transfer};

use crate::fatal::Wake;
use crossbeam_queue::SegQueue;
use jobs::{JobQueue, Lane};
use std::sync::Arc;

/// The engine of a node: a base and who runs its jobs. Dropped after the shards; finishes what is queued.
pub struct KvEngine {
    base: Arc<dyn KvBase>,
    runner: JobRunner,
}

impl KvEngine {
    /// With threads for the jobs.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(base: Arc<dyn KvBase>) -> std::io::Result<Self> {
        Ok(Self { runner: JobRunner::threads(base.clone())?, base })
    }

    /// Without threads, for the simulator: [`Self::runner`] steps.
    pub fn stepped(base: Arc<dyn KvBase>) -> Self {
        Self { runner: JobRunner::stepped(base.clone()), base }
    }

    /// Who runs the jobs.
    pub fn runner(&self) -> &JobRunner {
        &self.runner
    }

    /// All spaces with the states of their last checkpoints. From memory.
    ///
    /// # Errors
    /// What the base says.
    pub fn spaces(&self) -> Result<Vec<(SpaceId, SpaceState)>, KvError> {
        self.base.spaces()
    }

    /// Begins to replace a space by a snapshot from a peer. Blocking, so on the transfer's own thread. Before
    /// [`KvInstall::finish`] the owner sees to it that no checkpoint of the space is running and applies nothing; afterwards it drops
    /// its [`KvSpace`] and opens the space again.
    ///
    /// # Errors
    /// What the base says.
    pub fn install(&self, space: SpaceId) -> Result<Box<dyn KvInstall>, KvError> {
        self.base.install(space)
    }

    /// A shard's end. `wake` is called whenever [`KvShard::poll`] has something new.
    pub fn shard(&self, wake: Wake, limits: SpaceLimits) -> KvShard {
        let lane = Arc::new(Lane { done: SegQueue::new(), wake });
        let (base, queue) = (self.base.clone(), self.runner.queue());
        KvShard { base, queue, lane, limits, metrics: Arc::default() }
    }
}

/// A shard's end of the engine.
pub struct KvShard {
    base: Arc<dyn KvBase>,
    queue: JobQueue,
    lane: Arc<Lane>,
    limits: SpaceLimits,
    metrics: Arc<KvMetrics>,
}

impl KvShard {
    /// Opens a space, which begins empty and at applied index 0 if the base does not know it. From memory: does not block.
    ///
    /// # Errors
    /// What the base says.
    pub fn open(&self, id: SpaceId) -> Result<KvSpace, KvError> {
        let state = self.base.state(id)?;
        let (queue, lane, metrics) = (self.queue.clone(), self.lane.clone(), self.metrics.clone());
        Ok(KvSpace::new(id, state, self.limits.clone(), queue, lane, metrics))
    }

    /// Removes a space from the base, after what it has queued. Answers for it that come later are for nobody; an id is not to be
    /// opened again before a [`KvDone`] with [`KvDone::dropped`] has come for it.
    pub fn drop_space(&self, space: KvSpace) {
        space.push_drop();
    }

    /// Appends finished jobs to `out`, each for [`KvSpace::complete`] of its space.
    pub fn poll(&self, out: &mut Vec<KvDone>) {
        out.extend(std::iter::from_fn(|| self.lane.done.pop()));
    }

    /// Whether [`Self::poll`] would find nothing. To be asked after announcing a park and before parking.
    pub fn is_quiet(&self) -> bool {
        self.lane.done.is_empty()
    }

    /// Its figures.
    pub fn metrics(&self) -> Arc<KvMetrics> {
        self.metrics.clone()
    }
}

#[cfg(test)]
mod tests;
