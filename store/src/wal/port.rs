//! A shard's end of the log. Owned by one shard; no call blocks.

use super::batch::{GroupId, WalBatch, WalEntry};
use super::error::WalError;
use super::reader::ReadRequest;
use super::shared::Shared;
use super::space::Space;
use crate::fatal::Wake;
use crossbeam_queue::{ArrayQueue, SegQueue};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Numbers the batches of one port, from 1 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What the log tells a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum WalEvent {
    /// All batches of this port up to the token are durable, except for what [`WalEvent::Refused`] said before.
    Durable {
        /// The last of them.
        token: Token,
    },
    /// An append was not written; the log of the group is as it was before. Everything else in its batch was written. Appends of
    /// the group that would leave a hole are refused likewise, until one begins at `from` or below.
    Refused {
        /// The batch.
        token: Token,
        /// The group.
        group: GroupId,
        /// First index of the append.
        from: u64,
        /// Why.
        error: WalError,
    },
    /// Answers [`WalPort::read`].
    Entries {
        /// As given.
        request: u64,
        /// As given.
        group: GroupId,
        /// The beginning of the range asked for: at least one entry, and as many as fit the byte limit.
        result: Result<Vec<WalEntry>, WalError>,
    },
    /// The group's old entries keep log files from being cleared: checkpoint it and compact. Every port is told, and told again at
    /// the next round.
    Pinned {
        /// The group.
        group: GroupId,
    },
    /// Whether new proposals are welcome has changed.
    SpaceChanged(Space),
}

/// What a port and the log's threads share.
pub(super) struct Lane {
    /// Towards the writer.
    pub(super) submitted: ArrayQueue<(Token, WalBatch)>,
    /// Bytes in there.
    pub(super) submitted_bytes: AtomicUsize,
    /// The last durable token. Stored after the refusals it covers are in `events`.
    pub(super) durable: AtomicU64,
    /// The last durable token the shard was woken for; the writer's own.
    pub(super) announced: AtomicU64,
    /// Towards the shard. Bounded by what the shard itself has outstanding (refusals by its queue, entries by its reads), by the
    /// number of groups per purge round, and by the changes of space, ten a second at most.
    pub(super) events: SegQueue<WalEvent>,
    pub(super) wake: Wake,
    /// The port is gone.
    pub(super) closed: AtomicBool,
}

impl Lane {
    fn new(batches: usize, wake: Wake) -> Self {
        Self {
            submitted: ArrayQueue::new(batches),
            submitted_bytes: AtomicUsize::new(0),
            durable: AtomicU64::new(0),
            announced: AtomicU64::new(0),
            events: SegQueue::new(),
            wake,
            closed: AtomicBool::new(false),
        }
    }

    /// Tells the shard something and wakes it.
    pub(super) fn tell(&self, event: WalEvent) {
        if !self.closed.load(Ordering::Relaxed) {
            self.events.push(event);
            (self.wake)();
        }
    }
}

/// A shard's handle of the log.
pub struct WalPort {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    submitted: Token,
    durable: Token,
    reads: usize,
}

impl WalPort {
    pub(super) fn new(shared: Arc<Shared>, wake: Wake) -> Self {
        let lane = Arc::new(Lane::new(shared.config.queue_batches, wake));
        shared.add_lane(lane.clone());
        Self { shared, lane, submitted: Token(0), durable: Token(0), reads: 0 }
    }

    /// Hands over a batch. Batches of a port are written in order.
    ///
    /// # Errors
    /// The batch itself, if the queue's limit of batches or bytes is reached or the log has failed: keep it, stop proposing, and
    /// try again after the next [`WalEvent::Durable`].
    pub fn submit(&mut self, batch: WalBatch) -> Result<Token, WalBatch> {
        let queued = self.lane.submitted_bytes.load(Ordering::Relaxed);
        let over = queued > 0 && queued + batch.bytes() > self.shared.config.queue_bytes;
        if over || self.shared.is_dead() {
            return Err(batch);
        }
        let (token, bytes) = (Token(self.submitted.0 + 1), batch.bytes());
        // Counted first: the writer subtracts as soon as it sees the batch.
        self.lane.submitted_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Err((_, batch)) = self.lane.submitted.push((token, batch)) {
            self.lane.submitted_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(batch);
        }
        self.submitted = token;
        self.shared.writer.ring();
        Ok(token)
    }

    /// Asks for entries `range` of a group, as many as fit `bytes_max` but at least one. False if too many reads are outstanding.
    /// What is still queued for writing is not found; the owner has it in memory.
    pub fn read(&mut self, request: u64, group: GroupId, range: Range<u64>, bytes_max: usize) -> bool {
        if self.reads >= self.shared.config.reads_max || self.shared.is_dead() {
            return false;
        }
        self.reads += 1;
        self.shared.reads.push(ReadRequest { lane: self.lane.clone(), request, group, range, bytes_max });
        self.shared.reader.ring();
        true
    }

    /// Appends what has happened to `out`; at most one [`WalEvent::Durable`], the last.
    pub fn poll(&mut self, out: &mut Vec<WalEvent>) {
        // Read before the events: the refusals that the token covers are then among them.
        let durable = Token(self.lane.durable.load(Ordering::Acquire));
        while let Some(event) = self.lane.events.pop() {
            if matches!(event, WalEvent::Entries { .. }) {
                self.reads -= 1;
            }
            out.push(event);
        }
        if durable > self.durable {
            self.durable = durable;
            out.push(WalEvent::Durable { token: durable });
        }
    }

    /// Whether [`Self::poll`] would find nothing. To be asked after announcing a park and before parking.
    pub fn is_quiet(&self) -> bool {
        self.lane.events.is_empty() && self.lane.durable.load(Ordering::Acquire) == self.durable.0
    }

    /// Whether new proposals are welcome. A load.
    pub fn space(&self) -> Space {
        self.shared.space()
    }

    /// The last token given out.
    pub fn submitted(&self) -> Token {
        self.submitted
    }

    /// The last token reported durable.
    pub fn durable(&self) -> Token {
        self.durable
    }
}

impl Drop for WalPort {
    fn drop(&mut self) {
        self.lane.closed.store(true, Ordering::Release);
    }
}
