//! How shards talk: one bounded lock-free queue per ordered pair, and a bell per shard that is rung only while the shard
//! is parked.
//!
//! A full queue never blocks a turn: what does not fit waits, in order, in a list local to the sender
//! ([`MeshEnd::overflow_len`] counts it, the owner's memory budget bounds it). Two shards with both queues full therefore
//! cannot deadlock: each keeps draining while it keeps sending.
//!
//! No wake-up is lost, because both sides announce before they look (sequentially consistent fences between):
//! - message: the sender pushes, then looks at the receiver's parked flag; the receiver sets the flag, then looks at its
//!   inboxes;
//! - room: a sender with overflow, or one that waits for a receiver which is behind, sets the pair's `starved` flag, then looks
//!   at the queue; the receiver pops, and once it has caught up ([`CAUGHT_UP`]) looks at the flag.

use crate::ring::Waker;
use bifro_core::ids::ShardId;
use crossbeam_queue::ArrayQueue;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// Messages taken from one peer before the next has its turn.
const DRAIN_CHUNK: usize = 32;
/// A receiver is behind if more messages than this wait for it in a queue, or half the queue if that is less.
const BEHIND: usize = 64;
/// A receiver that was behind has caught up when no more messages than this wait in the queue.
const CAUGHT_UP: usize = 16;

/// Whether a shard sleeps, and how to wake it. Alone on its cache lines: peers read it on every flush.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Parked {
    flag: AtomicBool,
    waker: OnceLock<Waker>,
}

/// Rings for one shard: wakes it if it is parked, else costs a fence and a load.
#[derive(Clone, Debug)]
pub struct Bell {
    shards: Arc<[Parked]>,
    shard: ShardId,
}

impl Bell {
    /// Wakes the shard if it is parked. Whatever it is to find must have been written before.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        let parked = self.parked();
        // One ringer per sleep is enough: whoever clears the flag pays for the system call.
        if parked.flag.load(Ordering::Relaxed)
            && parked.flag.swap(false, Ordering::SeqCst)
            && let Some(waker) = parked.waker.get()
        {
            waker.wake();
        }
    }

    fn parked(&self) -> &Parked {
        &self.shards[self.shard.index()]
    }
}

/// The queue from one shard to another.
#[derive(Debug)]
struct Lane<M> {
    queue: ArrayQueue<M>,
    /// The sender has overflow, or waits for the receiver to catch up, and wants to hear of it.
    starved: AtomicBool,
}

impl<M> Lane<M> {
    fn is_behind(&self) -> bool {
        self.queue.len() > BEHIND.min(self.queue.capacity() / 2)
    }

    fn has_caught_up(&self) -> bool {
        self.queue.len() <= CAUGHT_UP.min(self.queue.capacity() / 4)
    }
}

/// A shard's outgoing side of a lane.
#[derive(Debug)]
struct Outgoing<M> {
    overflow: VecDeque<M>,
    bell: Bell,
    /// Something was pushed since the last flush.
    touched: bool,
}

/// One shard's end of the mesh. Made on the main thread, then owned by its shard.
#[derive(Debug)]
pub struct MeshEnd<M> {
    shard: ShardId,
    /// All lanes, the one from `a` to `b` at `a * shards + b`.
    lanes: Arc<[Lane<M>]>,
    outgoing: Vec<Outgoing<M>>,
    /// Messages in all overflow lists.
    overflow_len: usize,
    /// Peer the next drain starts with.
    next_peer: usize,
}

/// Makes the ends for `shards` shards. Every pair of shards gets a queue of `capacity` messages, allocated at once:
/// `shards² × capacity × size_of::<M>()` bytes in all.
///
/// # Panics
/// If `shards` or `capacity` is zero.
pub fn mesh<M: Send>(shards: u16, capacity: usize) -> Vec<MeshEnd<M>> {
    assert!(shards > 0);
    let count = usize::from(shards);
    let parked: Arc<[Parked]> = (0..count).map(|_| Parked::default()).collect();
    let lane = || Lane { queue: ArrayQueue::new(capacity), starved: AtomicBool::new(false) };
    let lanes: Arc<[Lane<M>]> = (0..count * count).map(|_| lane()).collect();
    let outgoing =
        |to| Outgoing { overflow: VecDeque::new(), bell: Bell { shards: parked.clone(), shard: to }, touched: false };
    let end = |shard: ShardId| MeshEnd {
        shard,
        lanes: lanes.clone(),
        outgoing: (0..shards).map(|to| outgoing(ShardId(to))).collect(),
        overflow_len: 0,
        next_peer: 0,
    };
    (0..shards).map(|shard| end(ShardId(shard))).collect()
}

impl<M: Send> MeshEnd<M> {
    /// The shard this end belongs to.
    pub const fn shard(&self) -> ShardId {
        self.shard
    }

    /// Says how this shard is woken. Messages sent before simply wait.
    ///
    /// # Panics
    /// At the second call.
    pub fn set_waker(&self, waker: Waker) {
        self.bell().parked().waker.set(waker).expect("a shard has one ring");
    }

    /// This shard's bell, for foreign threads.
    pub fn bell(&self) -> Bell {
        self.outgoing[self.shard.index()].bell.clone()
    }

    /// Sends without ever blocking; `to` may be this shard itself. The peer is woken by the next [`Self::flush`].
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn send(&mut self, to: ShardId, message: M) {
        let lane = self.shard.index() * self.outgoing.len() + to.index();
        let outgoing = &mut self.outgoing[to.index()];
        let rest = if outgoing.overflow.is_empty() { self.lanes[lane].queue.push(message) } else { Err(message) };
        match rest {
            Ok(()) => outgoing.touched = true,
            Err(message) => {
                outgoing.overflow.push_back(message);
                self.overflow_len += 1;
            }
        }
    }

    /// Moves overflow to queues that have room and wakes the peers that got something and sleep. Once per turn.
    pub fn flush(&mut self) {
        let first = self.shard.index() * self.outgoing.len();
        for (to, outgoing) in self.outgoing.iter_mut().enumerate() {
            let lane = &self.lanes[first + to];
            while let Some(message) = outgoing.overflow.pop_front() {
                if let Err(message) = lane.queue.push(message) {
                    outgoing.overflow.push_front(message);
                    break;
                }
                self.overflow_len -= 1;
                outgoing.touched = true;
            }
            if std::mem::take(&mut outgoing.touched) && to != self.shard.index() {
                outgoing.bell.ring();
            }
        }
    }

    /// Takes at most `max` messages, a few from each peer in turn, and appends them to `out`.
    pub fn drain(&mut self, max: usize, out: &mut Vec<(ShardId, M)>) {
        let peers = self.outgoing.len();
        let end = out.len() + max;
        let mut idle = 0;
        while idle < peers && out.len() < end {
            let peer = self.next_peer;
            self.next_peer = (peer + 1) % peers;
            idle = if self.drain_peer(peer, DRAIN_CHUNK.min(end - out.len()), out) { 0 } else { idle + 1 };
        }
    }

    /// True if the peer had anything.
    fn drain_peer(&self, peer: usize, max: usize, out: &mut Vec<(ShardId, M)>) -> bool {
        let lane = &self.lanes[peer * self.outgoing.len() + self.shard.index()];
        if lane.queue.is_empty() {
            return false;
        }
        let from = self.outgoing[peer].bell.shard;
        out.extend(std::iter::from_fn(|| lane.queue.pop()).take(max).map(|message| (from, message)));
        fence(Ordering::SeqCst);
        if lane.starved.load(Ordering::Relaxed) && lane.has_caught_up() && lane.starved.swap(false, Ordering::SeqCst) {
            self.outgoing[peer].bell.ring();
        }
        true
    }

    /// Messages that wait in this end for room in a queue.
    pub const fn overflow_len(&self) -> usize {
        self.overflow_len
    }

    /// Whether a peer has much to do already of what this shard sent it.
    pub fn is_peer_behind(&self) -> bool {
        let first = self.shard.index() * self.outgoing.len();
        self.overflow_len > 0 || self.lanes[first..first + self.outgoing.len()].iter().any(Lane::is_behind)
    }

    /// Announces that this shard is about to sleep. False, and not announced, if it must not: a message is waiting, overflow
    /// could move or, if it is waited for peers that are behind, none is any more. After true, look at every [`Inlet`] once
    /// more, then park, then call [`Self::unpark`].
    ///
    /// # Panics
    /// If no waker was set.
    pub fn prepare_park(&mut self, waits_for_peers: bool) -> bool {
        let parked = self.outgoing[self.shard.index()].bell.parked();
        assert!(parked.waker.get().is_some(), "nobody could wake this shard");
        parked.flag.store(true, Ordering::SeqCst);
        let (own, peers) = (self.shard.index(), self.outgoing.len());
        let lanes = &self.lanes[own * peers..(own + 1) * peers];
        for (lane, outgoing) in lanes.iter().zip(&self.outgoing) {
            if !outgoing.overflow.is_empty() || (waits_for_peers && lane.is_behind()) {
                lane.starved.store(true, Ordering::SeqCst);
            }
        }
        fence(Ordering::SeqCst);
        let inbox = (0..peers).any(|peer| !self.lanes[peer * peers + own].queue.is_empty());
        let room = self.overflow_len > 0
            && lanes.iter().zip(&self.outgoing).any(|(lane, out)| !out.overflow.is_empty() && !lane.queue.is_full());
        let caught_up = waits_for_peers && !self.is_peer_behind();
        let stays_awake = inbox || room || caught_up;
        if stays_awake {
            self.unpark();
        }
        !stays_awake
    }

    /// Takes the announcement back: peers need not ring any more.
    pub fn unpark(&self) {
        self.outgoing[self.shard.index()].bell.parked().flag.store(false, Ordering::SeqCst);
    }
}

/// What an [`Inlet`] and its senders share.
#[derive(Debug)]
struct InletShared<M> {
    queue: ArrayQueue<M>,
    bell: OnceLock<Bell>,
}

/// A shard's mailbox for threads that are not shards (admin, password hashing).
#[derive(Debug)]
pub struct Inlet<M> {
    shared: Arc<InletShared<M>>,
}

/// The sending side of an [`Inlet`], for any number of threads.
#[derive(Debug)]
pub struct InletSender<M> {
    shared: Arc<InletShared<M>>,
}

impl<M> Clone for InletSender<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// Makes a mailbox for `capacity` messages.
///
/// # Panics
/// If `capacity` is zero.
pub fn inlet<M: Send>(capacity: usize) -> (InletSender<M>, Inlet<M>) {
    let shared = Arc::new(InletShared { queue: ArrayQueue::new(capacity), bell: OnceLock::new() });
    (InletSender { shared: shared.clone() }, Inlet { shared })
}

impl<M: Send> InletSender<M> {
    /// Sends and wakes the shard if it sleeps.
    ///
    /// # Errors
    /// Returns the message if the mailbox is full.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.shared.queue.push(message)?;
        if let Some(bell) = self.shared.bell.get() {
            bell.ring();
        }
        Ok(())
    }
}

impl<M: Send> Inlet<M> {
    /// Says whose mailbox this is. Before the shard's first park; messages sent before simply wait.
    ///
    /// # Panics
    /// At the second call.
    pub fn attach(&self, bell: Bell) {
        self.shared.bell.set(bell).expect("a mailbox belongs to one shard");
    }

    /// Whether nothing waits. To be asked between [`MeshEnd::prepare_park`] and parking.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Takes the oldest message.
    pub fn pop(&self) -> Option<M> {
        self.shared.queue.pop()
    }
}

#[cfg(test)]
mod tests;
