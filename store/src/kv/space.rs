//! A range's key-value space as its shard sees it: two layers in memory over the base, which is read and written elsewhere.
//!
//! ```text
//!   put, delete ─► active overlay          lookup, get, scan: active, then frozen, then base
//!                      │ checkpoint: freeze
//!                      ▼
//!                  frozen overlay ── commit with applied index, on the committer ──► base
//!                      │ committed: dropped, the log may be compacted
//!                      ▼
//!                    (gone)
//! ```
//! Invariant: what a reader sees is the state after the last `put` or `delete` before its answer was completed. A base read that began
//! before the commit whose frozen layer has been dropped by now would miss that layer: it is asked again.

use super::base::{Page, Scan, SpaceId, SpaceState};
use super::error::KvError;
use super::jobs::{Answer, Job, JobQueue, KvDone, Lane, RequestedView, Work};
use super::merge::merge;
use super::metrics::KvMetrics;
use super::overlay::Overlay;
use super::snapshot::KvSnapshot;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Limits of a space.
#[derive(Clone, Debug)]
pub struct SpaceLimits {
    /// Bytes of the active overlay at which [`KvSpace::wants_checkpoint`] asks for a checkpoint. What comes after is still taken: the
    /// log has it already. The owner holds proposals back at twice this.
    pub overlay_bytes: usize,
    /// Reads of the base that may be outstanding; at it further ones are refused.
    pub reads_max: usize,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        Self { overlay_bytes: 32 << 20, reads_max: 256 }
    }
}

/// What memory knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot<'a> {
    /// Its value.
    Found(&'a [u8]),
    /// It is not there.
    Absent,
    /// The base must be asked: [`KvSpace::get`].
    Cold,
}

/// What came of a finished job.
pub enum Outcome {
    /// Answers [`KvSpace::get`].
    Got {
        /// As given.
        request: u64,
        /// The value at this moment.
        value: Option<Box<[u8]>>,
    },
    /// Answers [`KvSpace::scan`].
    Scanned {
        /// As given.
        request: u64,
        /// The pairs at this moment.
        page: Page,
    },
    /// A checkpoint is durable: the log may be compacted up to and including `applied`.
    Checkpointed {
        /// The index.
        applied: u64,
        /// If it was asked for by [`KvSpace::snapshot`]: the request and the view.
        snapshot: Option<(u64, KvSnapshot)>,
    },
    /// The base had changed under a read; it was asked again.
    Again,
    /// A read (then with its request) or a checkpoint failed. After a failed checkpoint the frozen layer is kept, and
    /// [`KvSpace::checkpoint`] tries it again. After anything but [`KvError::NoSpace`] and [`KvError::Corrupt`] the process should end.
    Failed {
        /// The read's request.
        request: Option<u64>,
        /// Why.
        error: KvError,
    },
}

/// The layer that is being committed.
struct Frozen {
    overlay: Arc<Overlay>,
    applied: u64,
    meta: Arc<[u8]>,
    is_running: bool,
}

/// A read that waits for the base.
enum Read {
    Get(Vec<u8>),
    Scan(Scan),
}

/// A space. Owned by one shard; no call blocks.
pub struct KvSpace {
    id: SpaceId,
    limits: SpaceLimits,
    active: Overlay,
    applied: u64,
    frozen: Option<Frozen>,
    base: SpaceState,
    /// Shared with the jobs.
    commits: Arc<AtomicU64>,
    /// Commits whose frozen layer has been dropped here.
    commits_seen: u64,
    reads: HashMap<u64, Read>,
    queue: JobQueue,
    lane: Arc<Lane>,
    metrics: Arc<KvMetrics>,
}

impl KvSpace {
    pub(super) fn new(
        id: SpaceId,
        base: SpaceState,
        limits: SpaceLimits,
        queue: JobQueue,
        lane: Arc<Lane>,
        metrics: Arc<KvMetrics>,
    ) -> Self {
        let applied = base.applied;
        let (commits, reads, active) = Default::default();
        Self { id, limits, active, applied, frozen: None, base, commits, commits_seen: 0, reads, queue, lane, metrics }
    }

    /// Which space.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// Index of the last log entry whose writes are in: replay begins at the next.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Index up to which the base has everything.
    pub fn checkpointed(&self) -> u64 {
        self.base.applied
    }

    /// The owner's record of the last checkpoint.
    pub fn meta(&self) -> &[u8] {
        &self.base.meta
    }

    /// Whether the frozen layer or the base may have the key.
    fn is_below(&self, key: &[u8]) -> bool {
        match self.frozen.as_ref().and_then(|frozen| frozen.overlay.find(key)) {
            Some(in_frozen) => in_frozen.is_some(),
            None => self.base.is_inhabited,
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let below = self.is_below(key);
        self.active.put(key, value, below);
        self.metrics.kv_writes.add(1);
    }

    /// Sets a key that the caller knows to be absent (a fresh sequence number, say): if it is deleted before the next checkpoint, the
    /// base never hears of it. A wrong claim brings an old value back when the key is deleted.
    pub fn put_new(&mut self, key: &[u8], value: &[u8]) {
        debug_assert!(!matches!(self.lookup(key), Hot::Found(_)), "the key is there");
        self.active.put(key, value, false);
        self.metrics.kv_writes.add(1);
    }

    /// Deletes a key, whether it is there or not.
    pub fn delete(&mut self, key: &[u8]) {
        let below = self.is_below(key);
        if self.active.delete(key, below) {
            self.metrics.kv_annihilated.add(1);
        }
        self.metrics.kv_writes.add(1);
    }

    /// Says that all writes of the log up to `index` are in.
    ///
    /// # Panics
    /// If the index goes back.
    pub fn set_applied(&mut self, index: u64) {
        assert!(index >= self.applied, "{}: applied goes from {} back to {index}", self.id, self.applied);
        self.applied = index;
    }

    /// Bytes of both layers in memory.
    pub fn overlay_bytes(&self) -> usize {
        self.active.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.overlay.bytes())
    }

    /// Whether the active layer has reached its limit and no checkpoint is on its way.
    pub fn wants_checkpoint(&self) -> bool {
        self.active.bytes() >= self.limits.overlay_bytes && !self.is_checkpointing()
    }

    /// Whether a checkpoint is on its way.
    pub fn is_checkpointing(&self) -> bool {
        self.frozen.as_ref().is_some_and(|frozen| frozen.is_running)
    }

    /// Whether no job of the space is outstanding: it may be dropped, and opened again.
    pub fn is_settled(&self) -> bool {
        self.reads.is_empty() && !self.is_checkpointing()
    }

    /// What memory knows of a key.
    pub fn lookup(&self, key: &[u8]) -> Hot<'_> {
        let in_frozen = || self.frozen.as_ref().and_then(|frozen| frozen.overlay.find(key));
        match self.active.find(key).or_else(in_frozen) {
            Some(Some(value)) => Hot::Found(value),
            Some(None) => Hot::Absent,
            None if !self.base.is_inhabited => Hot::Absent,
            None => Hot::Cold,
        }
    }

    /// What memory has of a range: the whole truth if the base has nothing there, which the caller may know (keys above all that were
    /// ever checkpointed), or which holds for every range while nothing was checkpointed.
    pub fn scan_overlay(&self, scan: &Scan) -> Page {
        merge(self.layers(), Page::default(), scan)
    }

    /// Whether the base holds nothing, so that [`Self::scan_overlay`] is the whole truth.
    pub fn is_all_hot(&self) -> bool {
        !self.base.is_inhabited
    }

    fn layers(&self) -> [Option<&Overlay>; 2] {
        [Some(&self.active), self.frozen.as_ref().map(|frozen| &*frozen.overlay)]
    }

    /// Asks for a key's value; [`Outcome::Got`] answers. False if too many reads are outstanding, or the request's number is.
    pub fn get(&mut self, request: u64, key: Vec<u8>) -> bool {
        self.ask(request, Read::Get(key))
    }

    /// Asks for a page; [`Outcome::Scanned`] answers. False if too many reads are outstanding, or the request's number is.
    pub fn scan(&mut self, request: u64, scan: Scan) -> bool {
        self.ask(request, Read::Scan(scan))
    }

    fn ask(&mut self, request: u64, read: Read) -> bool {
        if self.reads.len() >= self.limits.reads_max || self.reads.contains_key(&request) {
            return false;
        }
        self.metrics.kv_cold_reads.add(1);
        self.push_read(request, &read);
        self.reads.insert(request, read);
        true
    }

    fn push_read(&self, request: u64, read: &Read) {
        let work = match read {
            Read::Get(key) => Work::Get { request, key: key.clone() },
            Read::Scan(scan) => Work::Scan { request, scan: scan.clone() },
        };
        self.push(work);
    }

    fn push(&self, work: Work) {
        self.queue.push(Job { space: self.id, work, commits: self.commits.clone(), lane: self.lane.clone() });
    }

    /// Begins a checkpoint of everything applied so far, with a small record of the owner's. [`Outcome::Checkpointed`] answers, or
    /// [`Outcome::Failed`]. False if one is running. After a failed one, what was frozen then is tried again, with its own index and
    /// record.
    pub fn checkpoint(&mut self, meta: &[u8]) -> bool {
        self.begin(meta, None)
    }

    /// As [`Self::checkpoint`], and then opens a view of it for a transfer.
    pub fn snapshot(&mut self, request: u64, meta: &[u8]) -> bool {
        self.begin(meta, Some(request))
    }

    fn begin(&mut self, meta: &[u8], view: Option<u64>) -> bool {
        if self.is_checkpointing() {
            return false;
        }
        let (active, applied) = (&mut self.active, self.applied);
        let frozen = self.frozen.get_or_insert_with(|| {
            let overlay = Arc::new(std::mem::take(active));
            Frozen { overlay, applied, meta: meta.into(), is_running: true }
        });
        frozen.is_running = true;
        let (overlay, applied, meta) = (frozen.overlay.clone(), frozen.applied, frozen.meta.clone());
        self.push(Work::Commit { overlay, applied, meta, view });
        true
    }

    /// Takes in a finished job of this space.
    ///
    /// # Panics
    /// If it belongs to another space, or is the end of a drop or of a step of a transfer.
    pub fn complete(&mut self, done: KvDone) -> Outcome {
        assert_eq!(done.space, self.id);
        let is_stale = done.commits < self.commits_seen;
        match done.answer {
            Answer::Got { request, result } => self.complete_get(request, result, is_stale),
            Answer::Scanned { request, result } => self.complete_scan(request, result, is_stale),
            Answer::Committed { result, took } => {
                self.metrics.kv_checkpoint_micros.add(took.as_micros() as u64);
                self.complete_commit(result, done.commits)
            }
            Answer::Dropped { .. } => unreachable!("a dropped space is not here any more"),
            Answer::Transfer(_) => unreachable!("transfers are their owner's business"),
        }
    }

    fn complete_get(&mut self, request: u64, result: Result<Option<Box<[u8]>>, KvError>, is_stale: bool) -> Outcome {
        let Some(Read::Get(key)) = self.reads.remove(&request) else {
            unreachable!("the jobs answer what was asked, once");
        };
        let value = match self.lookup(&key) {
            Hot::Found(value) => Some(Box::from(value)),
            Hot::Absent => None,
            Hot::Cold if is_stale => return self.ask_again(request, Read::Get(key)),
            Hot::Cold => match result {
                Ok(value) => value,
                Err(error) => return self.failed_read(request, error),
            },
        };
        Outcome::Got { request, value }
    }

    fn complete_scan(&mut self, request: u64, result: Result<Page, KvError>, is_stale: bool) -> Outcome {
        let Some(Read::Scan(scan)) = self.reads.remove(&request) else {
            unreachable!("the jobs answer what was asked, once");
        };
        match result {
            Ok(_) if is_stale => self.ask_again(request, Read::Scan(scan)),
            Ok(base) => Outcome::Scanned { request, page: merge(self.layers(), base, &scan) },
            Err(error) => self.failed_read(request, error),
        }
    }

    fn ask_again(&mut self, request: u64, read: Read) -> Outcome {
        self.metrics.kv_cold_reads_again.add(1);
        self.push_read(request, &read);
        self.reads.insert(request, read);
        Outcome::Again
    }

    fn failed_read(&self, request: u64, error: KvError) -> Outcome {
        if matches!(error, KvError::Corrupt { .. }) {
            self.metrics.kv_corruptions.add(1);
        }
        Outcome::Failed { request: Some(request), error }
    }

    fn complete_commit(&mut self, result: Result<Option<RequestedView>, KvError>, commits: u64) -> Outcome {
        let frozen = self.frozen.as_mut().expect("a commit is of a frozen layer");
        frozen.is_running = false;
        // A commit may have succeeded and the view after it failed; then the layer is in the base, too, and stays until the next.
        let view = match result {
            Ok(view) => view,
            Err(error) => {
                self.metrics.kv_checkpoint_failures.add(1);
                return Outcome::Failed { request: None, error };
            }
        };
        let Frozen { overlay, applied, meta, .. } = self.frozen.take().expect("just seen");
        self.commits_seen = commits;
        self.base.is_inhabited |= overlay.range(b"", None).any(|(_, value)| value.is_some());
        self.base.applied = applied;
        self.base.meta = meta.to_vec();
        self.metrics.kv_checkpoints.add(1);
        self.metrics.kv_checkpoint_bytes.add(overlay.bytes() as u64);
        self.metrics.kv_checkpoint_keys.add(overlay.len() as u64);
        let snapshot = view.map(|(request, view)| (request, KvSnapshot::new(view)));
        Outcome::Checkpointed { applied, snapshot }
    }

    /// Asks for the space's removal from the base.
    pub(super) fn push_drop(&self) {
        self.push(Work::Drop);
    }
}
