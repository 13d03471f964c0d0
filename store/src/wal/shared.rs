//! What the log's threads and ports share, and how the threads sleep.

use super::batch::{WalEntry, index_of};
use super::config::WalConfig;
use super::files::LogFiles;
use super::metrics::WalMetrics;
use super::port::{Lane, WalEvent};
use super::reader::ReadRequest;
use super::space::Space;
use crate::bed::Bed;
use crate::fatal::{Fatal, panic_message};
use crossbeam_queue::SegQueue;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Engine, MessageExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How the engine finds the index of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing;

impl MessageExt for Framing {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        index_of(entry)
    }
}

/// The engine on our files.
pub(super) type Log = Engine<LogFiles>;

/// One per log: what its threads and its ports have in common.
pub(super) struct Shared {
    pub(super) config: WalConfig,
    pub(super) metrics: Arc<WalMetrics>,
    pub(super) writer: Bed,
    pub(super) reader: Bed,
    pub(super) purger: Bed,
    /// Bounded by the ports' own limits.
    pub(super) reads: SegQueue<ReadRequest>,
    /// Locked when a port comes, and by the writer once per turn; never by a shard at work.
    lanes: Mutex<Vec<Arc<Lane>>>,
    short: AtomicBool,
    stopping: AtomicBool,
    dead: AtomicBool,
    fatal: Fatal,
}

impl Shared {
    pub(super) fn new(config: WalConfig, fatal: Fatal) -> Self {
        Self {
            config,
            metrics: Arc::default(),
            writer: Bed::default(),
            reader: Bed::default(),
            purger: Bed::default(),
            reads: SegQueue::new(),
            lanes: Mutex::default(),
            short: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            fatal,
        }
    }

    pub(super) fn add_lane(&self, lane: Arc<Lane>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }

    /// The lanes as of now; those of closed ports go once they are empty.
    pub(super) fn lanes(&self, out: &mut Vec<Arc<Lane>>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| !lane.closed.load(Ordering::Acquire) || !lane.submitted.is_empty());
        out.clear();
        out.extend(lanes.iter().cloned());
    }

    /// Tells every port.
    pub(super) fn tell_all(&self, event: &WalEvent) {
        let mut lanes = Vec::new();
        self.lanes(&mut lanes);
        lanes.iter().for_each(|lane| lane.tell(event.clone()));
    }

    pub(super) fn space(&self) -> Space {
        if self.short.load(Ordering::Relaxed) { Space::Short } else { Space::Ample }
    }

    /// Tells the ports if it is news.
    pub(super) fn set_space(&self, space: Space) {
        let short = space == Space::Short;
        if self.short.swap(short, Ordering::Relaxed) != short {
            self.tell_all(&WalEvent::SpaceChanged(space));
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks the threads to finish what is queued and end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Rung even if they are about to sleep: they look at the flag before.
        [&self.writer, &self.reader, &self.purger].into_iter().for_each(Bed::ring);
    }

    /// The log cannot be trusted any more.
    pub(super) fn die(&self, reason: &str) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            (self.fatal)(reason);
        }
    }

    /// Runs engine code that panics when the device fails. `None` if it did; the process is then as good as dead.
    pub(super) fn guarded<T>(&self, log: &Log, doing: &str, run: impl FnOnce(&Log) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| run(log))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.die(&format!("write-ahead log: {doing} failed: {}", panic_message(&*panic)));
                None
            }
        }
    }
}

/// Entries as read; their indexes must follow each other from `from` on.
pub(super) fn checked(stored: Vec<BytesValue>, from: u64) -> Result<Vec<WalEntry>, String> {
    let check = |(message, index): (BytesValue, u64)| {
        let entry = WalEntry::from_stored(message).map_err(str::to_owned)?;
        let found = entry.index();
        if found == index { Ok(entry) } else { Err(format!("entry {found} where {index} belongs")) }
    };
    stored.into_iter().zip(from..).map(check).collect()
}
