//! The blocking side of the engine: jobs for the base, and who runs them.
//!
//! With threads, reads, commits and transfers have a thread each, so that no read waits for a checkpoint. In the simulator jobs wait until it
//! says [`JobRunner::step`].

use super::base::{Commit, KvBase, KvInstall, KvView, Page, Scan, SpaceId};
use super::error::KvError;
use super::overlay::Overlay;
use super::snapshot::KvSnapshot;
use super::transfer::{InstallStep, Transfer, install_piece, read_piece};
use crate::bed::Bed;
use crate::fatal::{Wake, panic_message};
use crossbeam_queue::SegQueue;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where a shard finds what is done. Bounded by what its spaces may have outstanding.
pub(super) struct Lane {
    pub(super) done: SegQueue<KvDone>,
    pub(super) wake: Wake,
}

/// What is to be done for a space.
pub(super) enum Work {
    Get { request: u64, key: Vec<u8> },
    Scan { request: u64, scan: Scan },
    Commit { overlay: Arc<Overlay>, applied: u64, meta: Arc<[u8]>, view: Option<u64> },
    Drop,
    ReadSnapshot { request: u64, snapshot: KvSnapshot, from: Vec<u8>, bytes_max: usize },
    Install { request: u64, step: InstallStep },
    Abandon { install: Box<dyn KvInstall> },
}

/// A job.
pub(super) struct Job {
    pub(super) space: SpaceId,
    pub(super) work: Work,
    /// Commits of the space that are finished; the answer to a read says how many it saw at least.
    pub(super) commits: Arc<AtomicU64>,
    pub(super) lane: Arc<Lane>,
}

/// A finished job, to be given to [`super::KvSpace::complete`] of its space.
pub struct KvDone {
    /// Whose it is. If that space was dropped meanwhile, so is this.
    pub space: SpaceId,
    /// Commits that were finished before it began; for a commit, itself included.
    pub(super) commits: u64,
    pub(super) answer: Answer,
}

impl KvDone {
    /// If it ends a [`super::KvShard::drop_space`]: how.
    pub fn dropped(&self) -> Option<Result<(), KvError>> {
        match &self.answer {
            Answer::Dropped { result } => Some(result.clone()),
            _ => None,
        }
    }
}

/// A view of the base after a commit, and the request that wanted it.
pub(super) type RequestedView = (u64, Box<dyn KvView>);

pub(super) enum Answer {
    Got { request: u64, result: Result<Option<Box<[u8]>>, KvError> },
    Scanned { request: u64, result: Result<Page, KvError> },
    Committed { result: Result<Option<RequestedView>, KvError>, took: Duration },
    Dropped { result: Result<(), KvError> },
    Transfer(Transfer),
}

impl Job {
    fn bench<'a>(&self, benches: &'a Benches) -> &'a Bench {
        match self.work {
            Work::Get { .. } | Work::Scan { .. } => &benches.reads,
            Work::Commit { .. } | Work::Drop => &benches.commits,
            Work::ReadSnapshot { .. } | Work::Install { .. } | Work::Abandon { .. } => &benches.transfers,
        }
    }

    fn run(self, base: &dyn KvBase) {
        let Self { space, work, commits, lane } = self;
        // Before the look at the base: what the answer shows is at least this new.
        let mut seen = commits.load(Ordering::Acquire);
        let answer = match work {
            Work::Get { request, key } => Answer::Got { request, result: guarded(|| base.get(space, &key)) },
            Work::Scan { request, scan } => Answer::Scanned { request, result: guarded(|| base.scan(space, &scan)) },
            Work::Commit { overlay, applied, meta, view } => {
                let started = Instant::now();
                let result = guarded(|| commit(base, space, &overlay, applied, &meta));
                if result.is_ok() {
                    seen = commits.fetch_add(1, Ordering::AcqRel) + 1;
                }
                let view = |()| guarded(|| view.map(|request| Ok((request, base.view(space)?))).transpose());
                Answer::Committed { result: result.and_then(view), took: started.elapsed() }
            }
            Work::Drop => Answer::Dropped { result: guarded(|| base.drop_space(space)) },
            Work::ReadSnapshot { request, mut snapshot, from, bytes_max } => {
                let result = guarded(|| read_piece(&mut snapshot, from, bytes_max));
                Answer::Transfer(Transfer::Read { request, snapshot, result })
            }
            Work::Install { request, step } => {
                let result = guarded(|| install_piece(base, space, step));
                Answer::Transfer(Transfer::Installed { request, result })
            }
            Work::Abandon { install } => return drop(install),
        };
        lane.done.push(KvDone { space, commits: seen, answer });
        (lane.wake)();
    }
}

fn commit(base: &dyn KvBase, space: SpaceId, overlay: &Overlay, applied: u64, meta: &[u8]) -> Result<(), KvError> {
    let changes = Box::new(overlay.range(b"", None));
    base.commit(space, Commit { changes, bytes: overlay.bytes(), applied, meta })
}

/// A base that panics has failed; the waiting shard must hear of it.
fn guarded<T>(run: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(KvError::Panicked(panic_message(&*panic).to_owned())))
}

/// A queue of jobs with one runner.
#[derive(Default)]
struct Bench {
    jobs: SegQueue<Job>,
    bed: Bed,
}

/// What runner and engine share.
#[derive(Default)]
struct Benches {
    reads: Bench,
    commits: Bench,
    transfers: Bench,
    stopping: AtomicBool,
}

/// Runs jobs, on threads of its own or step by step. Dropping it finishes what is queued.
pub struct JobRunner {
    benches: Arc<Benches>,
    base: Arc<dyn KvBase>,
    threads: Vec<JoinHandle<()>>,
}

impl JobRunner {
    /// Without threads: [`Self::step`] runs the jobs.
    pub(super) fn stepped(base: Arc<dyn KvBase>) -> Self {
        Self { benches: Arc::default(), base, threads: Vec::new() }
    }

    /// With a thread for reads, one for commits and one for transfers.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub(super) fn threads(base: Arc<dyn KvBase>) -> std::io::Result<Self> {
        let mut runner = Self::stepped(base);
        runner.start("kv-reader", |benches| &benches.reads)?;
        runner.start("kv-committer", |benches| &benches.commits)?;
        runner.start("kv-transfer", |benches| &benches.transfers)?;
        Ok(runner)
    }

    fn start(&mut self, name: &str, bench: fn(&Benches) -> &Bench) -> std::io::Result<()> {
        let (benches, base) = (self.benches.clone(), self.base.clone());
        let run = move || {
            let bench = bench(&benches);
            loop {
                while let Some(job) = bench.jobs.pop() {
                    job.run(&*base);
                }
                if benches.stopping.load(Ordering::Acquire) {
                    return;
                }
                let has_work = || !bench.jobs.is_empty() || benches.stopping.load(Ordering::Acquire);
                bench.bed.sleep(Duration::from_secs(60), has_work);
            }
        };
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// Where spaces put their jobs.
    pub(super) fn queue(&self) -> JobQueue {
        JobQueue { benches: self.benches.clone() }
    }

    /// Runs the oldest waiting job, reads first, transfers last. False if there is none. With threads there mostly is none.
    pub fn step(&self) -> bool {
        let Benches { reads, commits, transfers, .. } = &*self.benches;
        let job = [reads, commits, transfers].into_iter().find_map(|bench| bench.jobs.pop());
        let found = job.is_some();
        if let Some(job) = job {
            job.run(&*self.base);
        }
        found
    }

    /// Whether a job waits.
    #[cfg(feature = "simulation")]
    pub fn has_jobs(&self) -> bool {
        let Benches { reads, commits, transfers, .. } = &*self.benches;
        [reads, commits, transfers].into_iter().any(|bench| !bench.jobs.is_empty())
    }

    /// Runs the oldest waiting commit or drop, past reads that wait. False if there is none.
    pub fn step_commit(&self) -> bool {
        let job = self.benches.commits.jobs.pop();
        let found = job.is_some();
        if let Some(job) = job {
            job.run(&*self.base);
        }
        found
    }
}

impl Drop for JobRunner {
    fn drop(&mut self) {
        self.benches.stopping.store(true, Ordering::Release);
        self.benches.reads.bed.ring();
        self.benches.commits.bed.ring();
        self.benches.transfers.bed.ring();
        for thread in self.threads.drain(..) {
            // Jobs catch their panics; there is nobody left to tell of another.
            let _ended = thread.join();
        }
    }
}

/// The way in. Cheap to clone, one per space.
#[derive(Clone)]
pub(super) struct JobQueue {
    benches: Arc<Benches>,
}

impl JobQueue {
    pub(super) fn push(&self, job: Job) {
        let bench = job.bench(&self.benches);
        bench.jobs.push(job);
        bench.bed.ring();
    }
}
