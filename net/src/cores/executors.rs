//! One glommio executor per shard, each on its own thread, with the shard's work in a task queue of its own.
//!
//! glommio's preemption timer is kept out of the way (see [`PREEMPT`]): the network loop itself lets other tasks run about
//! every millisecond, in [`crate::ring::Ring::park`]. A task in another queue must likewise bound how long it runs between
//! two awaits, `yield_if_needed` only acts after [`PREEMPT`].
//!
//! All executors are made before any work starts, so that a machine that cannot carry them is told so before anything
//! listens. A panic anywhere on a shard ends the process: a node that lost a shard must not look alive.

use crate::ring::explain;
use bifro_core::ids::ShardId;
use glommio::{Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares};
use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Exit status after a panic on a shard: `EX_SOFTWARE` of sysexits.
pub const SHARD_PANIC_EXIT_CODE: i32 = 70;

/// Memory each executor registers for its file I/O: glommio needs half a MiB, its default of ten exceeds common limits
/// of lockable memory.
const IO_MEMORY_BYTES: usize = 512 << 10;
/// When glommio's preemption timer fires, at the earliest.
///
/// If a thread is descheduled between arming that timer and looking for work until the timer expires, glommio 0.9 takes
/// the expiry for a lack of work and goes to sleep, runnable tasks or not (glommio/glommio#53, fixed but not released). At
/// 2 ms a loaded machine runs into that several times a second; hence no `Latency::Matters` anywhere.
const PREEMPT: Duration = Duration::from_millis(100);
/// The longest such a sleep can last all the same: any glommio timer ends it.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Shares of the network queue; other queues are weighed against it.
const NET_SHARES: usize = 1000;

/// How to run the shards.
#[derive(Clone, Debug)]
pub struct ExecutorsConfig {
    /// Shards, at least one.
    pub shards: u16,
    /// One CPU per shard, or None to let them float; see [`super::pinning`].
    pub pin: Option<Vec<usize>>,
    /// Threads are called `{name}-{shard}`.
    pub name: String,
}

/// Why no shard was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The configuration contradicts itself.
    #[error("{shards} shards cannot be pinned to {cpus} CPUs")]
    Pinning {
        /// Shards asked for.
        shards: u16,
        /// CPUs listed for them.
        cpus: usize,
    },
    /// No thread.
    #[error("cannot start the thread of shard {}: {source}", shard.0)]
    Thread {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: io::Error,
    },
    /// No executor.
    #[error("cannot start the executor of shard {}: {reason}", shard.0)]
    Executor {
        /// The shard.
        shard: ShardId,
        /// Why, with what to change.
        reason: String,
    },
}

/// The running shards.
#[derive(Debug)]
pub struct Executors {
    threads: Vec<JoinHandle<()>>,
}

impl Executors {
    /// Waits until the work of every shard has ended.
    pub fn join(self) {
        for thread in self.threads {
            // A panic on a shard ends the process before its thread ends.
            let _ = thread.join();
        }
    }
}

/// Starts the executors and, once all stand, runs `make(shard)` to completion on each.
///
/// # Errors
/// If a thread or an executor cannot be made; then no work has started.
pub fn spawn_executors<F, W>(config: &ExecutorsConfig, make: F) -> Result<Executors, SpawnError>
where
    F: Fn(ShardId) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + 'static,
{
    let cpus = config.pin.as_ref().map_or(usize::from(config.shards), Vec::len);
    if config.shards == 0 || cpus != usize::from(config.shards) {
        return Err(SpawnError::Pinning { shards: config.shards, cpus });
    }
    let make = Arc::new(make);
    let (ready, answers) = channel();
    let mut threads = Vec::new();
    let mut starts = Vec::new();
    for shard in (0..config.shards).map(ShardId) {
        let (start, started) = channel();
        let (builder, make, ready) = (builder(config, shard), make.clone(), ready.clone());
        let work = move || run(shard, builder, &ready, &started, &*make);
        let thread = Builder::new().name(format!("{}-{}", config.name, shard.0)).spawn(work);
        threads.push(thread.map_err(|source| SpawnError::Thread { shard, source })?);
        starts.push(start);
    }
    drop(ready);
    // Each thread answers once; if one fails, dropping `starts` sends the others home.
    for answer in answers.iter().take(threads.len()) {
        answer?;
    }
    for start in starts {
        // A thread that is gone has ended the process.
        let _ = start.send(());
    }
    Ok(Executors { threads })
}

fn builder(config: &ExecutorsConfig, shard: ShardId) -> LocalExecutorBuilder {
    let placement = config.pin.as_ref().map_or(Placement::Unbound, |cpus| Placement::Fixed(cpus[shard.index()]));
    LocalExecutorBuilder::new(placement)
        .name(&config.name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        // Blocking work must not compete with the shard for its CPU.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
}

/// The life of a shard's thread.
fn run<W: Future<Output = ()> + 'static>(
    shard: ShardId,
    builder: LocalExecutorBuilder,
    ready: &Sender<Result<(), SpawnError>>,
    started: &Receiver<()>,
    make: &(impl Fn(ShardId) -> W + ?Sized),
) {
    let executor = match catch_unwind(AssertUnwindSafe(|| builder.make())) {
        Ok(Ok(executor)) => executor,
        Ok(Err(error)) => {
            let error = io::Error::from(error);
            let reason = format!("{error}: {}", explain(&error));
            let _ = ready.send(Err(SpawnError::Executor { shard, reason }));
            return;
        }
        Err(panic) => {
            let _ = ready.send(Err(SpawnError::Executor { shard, reason: reason(&*panic).to_owned() }));
            return;
        }
    };
    // If the other side is gone, another shard failed: nothing was started.
    if ready.send(Ok(())).is_err() || started.recv().is_err() {
        return;
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&executor, make(shard)))) {
        let reason = reason(&*panic);
        tracing::error!(shard = shard.0, reason, "a shard panicked; the process ends");
        eprintln!("shard {} panicked: {reason}; the process ends", shard.0);
        std::process::exit(SHARD_PANIC_EXIT_CODE);
    }
}

/// Ends sleeps that should not be; see [`PREEMPT`].
async fn heartbeat() {
    loop {
        glommio::timer::sleep(HEARTBEAT).await;
    }
}

/// Runs `work` in the network queue. The future given to `run` itself is in no queue, so it only waits.
fn work(executor: &LocalExecutor, work: impl Future<Output = ()> + 'static) {
    executor.run(async move {
        let queue = glommio::executor().create_task_queue(Shares::Static(NET_SHARES), Latency::NotImportant, "net");
        glommio::spawn_local(heartbeat()).detach();
        glommio::spawn_local_into(work, queue).expect("the queue was just made").await;
    });
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}
