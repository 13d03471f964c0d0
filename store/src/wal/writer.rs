//! The writer thread: merges what all shards have queued into one write and one fdatasync, and tells each what is durable.
//!
//! It knows the span of every group's log, since the engine would panic on a hole: a batch is checked against the spans as it is
//! merged, and spans that a failed write had changed are put back.

use super::batch::{GroupId, Step, WalBatch};
use super::config::Durability;
use super::error::{WalError, is_no_space};
use super::port::{Lane, Token, WalEvent};
use super::shared::{Framing, Log, Shared};
use super::space::{Space, SpaceGauge};
use super::spans::{Spans, Verdict};
use raft_engine::{Command, LogBatch};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an idle writer sleeps before it looks at free space again, while there is enough of it and while there is not.
const LOOK_INTERVALS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(100));

/// A batch in work.
struct Taken {
    lane: Arc<Lane>,
    token: Token,
    batch: WalBatch,
}

/// The state of the thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Arc<Log>,
    gauge: SpaceGauge,
    looked: Instant,
    spans: Spans,
    lanes: Vec<Arc<Lane>>,
    taken: Vec<Taken>,
    refused: Vec<(Arc<Lane>, WalEvent)>,
    merged: LogBatch,
}

/// What merging counted.
#[derive(Default)]
struct Merged {
    entries: u64,
    entry_bytes: usize,
}

/// How a write ended.
enum Written {
    Done(usize),
    NoSpace,
    Dead,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, log: Arc<Log>, gauge: SpaceGauge, spans: Spans) -> Self {
        let (lanes, taken, refused) = Default::default();
        Self { shared, log, gauge, looked: Instant::now(), spans, lanes, taken, refused, merged: LogBatch::default() }
    }

    /// The thread. Ends when asked to and nothing is queued, or when the log is dead.
    pub(super) fn run(mut self) {
        self.publish_space();
        loop {
            self.take();
            if self.taken.is_empty() {
                if self.shared.is_stopping() {
                    return;
                }
                self.rest();
            } else {
                self.turn();
            }
            if self.shared.is_dead() {
                return;
            }
        }
    }

    /// Takes queued batches from all lanes, one from each in turn, up to the byte limit of a write.
    fn take(&mut self) {
        self.shared.lanes(&mut self.lanes);
        let mut bytes = 0;
        let mut any = true;
        while any && bytes < self.shared.config.turn_bytes {
            any = false;
            for lane in &self.lanes {
                let Some((token, batch)) = lane.submitted.pop() else { continue };
                any = true;
                bytes += batch.bytes();
                self.taken.push(Taken { lane: lane.clone(), token, batch });
            }
        }
    }

    fn rest(&mut self) {
        let interval = if self.shared.space() == Space::Short { LOOK_INTERVALS.1 } else { LOOK_INTERVALS.0 };
        let Self { shared, lanes, .. } = self;
        let has_work = || shared.is_stopping() || lanes.iter().any(|lane| !lane.submitted.is_empty());
        shared.writer.sleep(interval, has_work);
        self.look_if_due();
    }

    fn look_if_due(&mut self) {
        let due = if self.shared.space() == Space::Short { LOOK_INTERVALS.1 } else { LOOK_INTERVALS.0 };
        if self.looked.elapsed() >= due {
            self.looked = Instant::now();
            self.gauge.look();
            self.publish_space();
        }
    }

    fn publish_space(&self) {
        let space = self.gauge.state();
        self.shared.metrics.wal_space_free_bytes.set(self.gauge.free());
        self.shared.metrics.wal_space_short.set(u64::from(space == Space::Short));
        self.shared.set_space(space);
    }

    /// Writes what was taken, syncs, reports.
    fn turn(&mut self) {
        self.look_if_due();
        let counted = self.merge(true);
        let started = Instant::now();
        let mut written = self.write();
        if matches!(written, Written::NoSpace) {
            // The reserve was used up by others. Appends are refused, the rest must go through, however long that takes: a vote or
            // a compaction must not be forgotten.
            self.gauge.exhausted();
            self.publish_space();
            self.merge(false);
            written = self.write_until_there_is_space();
        }
        let Written::Done(bytes) = written else { return };
        let metrics = &self.shared.metrics;
        metrics.wal_write_micros.add(started.elapsed().as_micros() as u64);
        metrics.wal_write_bytes.add(bytes as u64);
        metrics.wal_writes.add(1);
        metrics.wal_write_batches.add(self.taken.len() as u64);
        metrics.wal_appended_entries.add(counted.entries);
        metrics.wal_append_bytes.add(counted.entry_bytes as u64);
        metrics.wal_refused_appends.add(self.refused.len() as u64);
        self.gauge.wrote(bytes as u64);
        self.publish_space();
        self.report();
    }

    /// Builds the engine's batch from what was taken; without appends if there is no space for any.
    fn merge(&mut self, appends: bool) -> Merged {
        self.merged = LogBatch::default();
        self.spans.roll_back();
        self.refused.clear();
        let mut counted = Merged::default();
        for Taken { lane, token, batch } in &self.taken {
            for step in &batch.steps {
                let refused = add_step(&mut self.merged, &mut self.spans, step, |bytes| {
                    if appends { self.gauge.admit(counted.entry_bytes, bytes) } else { Err(self.gauge.refusal()) }
                });
                match (refused, step) {
                    (Some((group, from, error)), _) => {
                        let event = WalEvent::Refused { token: *token, group, from, error };
                        self.refused.push((lane.clone(), event));
                    }
                    (None, Step::Append { entries, bytes, .. }) => {
                        counted.entries += entries.len() as u64;
                        counted.entry_bytes += bytes;
                    }
                    (None, _) => {}
                }
            }
        }
        counted
    }

    fn write(&mut self) -> Written {
        let sync = self.shared.config.durability == Durability::Fsync;
        let merged = &mut self.merged;
        let result = self.shared.guarded(&self.log, "writing or syncing", |log| log.write(merged, sync));
        match result {
            Some(Ok(bytes)) => Written::Done(bytes),
            Some(Err(error)) if is_no_space(&error) => Written::NoSpace,
            Some(Err(error)) => {
                self.shared.die(&format!("write-ahead log: writing failed: {error}"));
                Written::Dead
            }
            None => Written::Dead,
        }
    }

    fn write_until_there_is_space(&mut self) -> Written {
        loop {
            match self.write() {
                Written::NoSpace if self.shared.is_stopping() => {
                    self.shared.die("write-ahead log: no space to write a record before stopping");
                    return Written::Dead;
                }
                Written::NoSpace => std::thread::park_timeout(LOOK_INTERVALS.1),
                done_or_dead => return done_or_dead,
            }
            // The engine keeps a batch it could not write as it was; build it anew rather than rely on that.
            self.merge(false);
        }
    }

    /// Refusals first, then tokens, then one wake per lane.
    fn report(&mut self) {
        self.spans.commit();
        for (lane, event) in self.refused.drain(..) {
            lane.events.push(event);
        }
        for Taken { lane, token, batch } in &self.taken {
            lane.submitted_bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
            lane.durable.store(token.0, Ordering::Release);
        }
        self.taken.clear();
        for lane in &self.lanes {
            if lane.durable.load(Ordering::Relaxed) > lane.announced.load(Ordering::Relaxed) {
                lane.announced.store(lane.durable.load(Ordering::Relaxed), Ordering::Relaxed);
                (lane.wake)();
            }
        }
    }
}

/// Adds a step to the merged batch, or says which append was refused and why.
fn add_step(
    merged: &mut LogBatch,
    spans: &mut Spans,
    step: &Step,
    admit: impl FnOnce(usize) -> Result<(), WalError>,
) -> Option<(GroupId, u64, WalError)> {
    match step {
        Step::Append { group, entries, bytes } => {
            let from = super::batch::index_of(&entries[0]);
            let verdict = spans.check(*group, from);
            let verdict = if verdict == Verdict::Fits { admit(*bytes) } else { Err(WalError::Hole { from }) };
            if let Err(error) = verdict {
                spans.refuse(*group, from);
                return Some((*group, from, error));
            }
            spans.append(*group, from, entries.len() as u64);
            let added = merged.add_entries::<Framing>(group.0, entries);
            added.expect("a write is far below the engine's limit of 2 GiB, and encoding into memory does not fail");
        }
        Step::Put { group, record, value } => {
            let added = merged.put(group.0, record_key(record.0), value.clone());
            added.expect("our keys do not have the engine's internal prefix");
        }
        Step::Compact { group, first_kept } => {
            spans.compact(*group, *first_kept);
            merged.add_command(group.0, Command::Compact { index: *first_kept });
        }
        Step::Delete { group } => {
            spans.delete(*group);
            merged.add_command(group.0, Command::Clean);
        }
    }
    None
}

/// The engine's key of a record.
pub(super) fn record_key(record: u8) -> Vec<u8> {
    vec![b'r', record]
}
