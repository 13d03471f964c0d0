//! The messages of one session, in the order they were stored [MQTT-4.6.0-6] [MQTT5-4.6.0-5].
//!
//! What nobody waits for rests: its record is kept, the message itself is not in memory, and is fetched when its turn comes ([`super::rest`]).

use super::queued_bytes;
use crate::dist::RouteFilter;
use crate::limits::QUEUED_OVERHEAD_BYTES;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::InboxSeq;
use bifro_core::message::QoS;
use bifro_core::ports::{InHand, InboxMessage};
use bifro_core::time::{Instant, earlier};
use smallvec::SmallVec;

/// The shared groups through which a message came; empty for most.
pub(super) type SharedSources = SmallVec<[Arc<RouteFilter>; 1]>;

/// How far the delivery of a queued message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not handed to anybody.
    Waiting,
    /// Handed to the live owner, who has not said yet that it is done.
    Pushed,
    /// Sent to the client over a connection that is gone: has to be sent again with the same packet id, so neither expiry
    /// nor overflow touches it.
    Sent,
}

/// Where the payload of a queued message is at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// Nowhere: it is forgotten with the process.
    Nowhere,
    /// With its place in the queue.
    Inline,
    /// In a record of its own with this number, since several sessions have it.
    Shared(u64),
}

/// The part of a queued message that memory can do without.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) message: InboxMessage,
    pub(super) shared: SharedSources,
}

#[derive(Debug)]
pub(super) struct Queued {
    /// None: it rests.
    pub(super) carried: Option<Box<Carried>>,
    pub(super) stored: Stored,
    expiry_at: Option<Instant>,
    /// What it counts with.
    bytes: u32,
    pub(super) qos: QoS,
    pub(super) stage: Stage,
    /// PUBREC has arrived for it: what is sent again is PUBREL.
    pub(super) held: bool,
}

/// The messages of a queue that rest.
#[derive(Debug, Default)]
struct Resting {
    count: usize,
    /// What memory is spared.
    bytes: u64,
    /// None rests below.
    from: u64,
}

impl Resting {
    fn add(&mut self, seq: InboxSeq, queued: &Queued) {
        self.from = if self.count == 0 { seq.0 } else { self.from.min(seq.0) };
        self.count += 1;
        self.bytes += queued.spared_bytes();
    }

    fn remove(&mut self, queued: &Queued) {
        self.count -= 1;
        self.bytes -= queued.spared_bytes();
    }
}

/// Invariants: no entry below `cursor` waits; `waiting`, `waiting_qos0`, `resting` and `bytes` count what `entries` holds.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: BTreeMap<InboxSeq, Queued>,
    /// Where the search for the next message to push begins.
    cursor: u64,
    next: u64,
    waiting: usize,
    waiting_qos0: BTreeSet<InboxSeq>,
    resting: Resting,
    bytes: u64,
    /// No waiting message expires before this.
    expiry_hint: Option<Instant>,
}

impl Queue {
    /// The place of the first message that waits, or of the next that is stored.
    pub(super) fn first_waiting(&self) -> InboxSeq {
        let mut rest = self.entries.range(InboxSeq(self.cursor)..);
        let first = rest.find(|(_, queued)| queued.stage == Stage::Waiting);
        first.map_or(InboxSeq(self.next), |(&seq, _)| seq)
    }

    /// Places that are given out from now on begin here, if not beyond.
    pub(super) fn skip_to(&mut self, first: InboxSeq) {
        self.next = self.next.max(first.0);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that are in memory.
    pub(super) const fn resident_bytes(&self) -> u64 {
        self.bytes - self.resting.bytes
    }

    /// Something waits, so a newer message must wait behind it.
    pub(super) const fn has_backlog(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn entry(&self, seq: InboxSeq) -> Option<&Queued> {
        self.entries.get(&seq)
    }

    /// Notes that PUBREC has arrived; false if that was known, or there is no such message of QoS 2.
    pub(super) fn hold(&mut self, seq: InboxSeq) -> bool {
        let queued = self.entries.get_mut(&seq).filter(|queued| queued.qos == QoS::ExactlyOnce);
        queued.is_some_and(|queued| !core::mem::replace(&mut queued.held, true))
    }

    /// Everything with its place, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InboxSeq, &Queued)> {
        self.entries.iter().map(|(&seq, queued)| (seq, queued))
    }

    /// Everything, in order.
    pub(super) fn drain(self) -> impl Iterator<Item = (InboxSeq, Queued)> {
        self.entries.into_iter()
    }

    pub(super) fn store(&mut self, message: InboxMessage, shared: SharedSources, stored: Stored) -> InboxSeq {
        let seq = InboxSeq(self.next);
        self.put(seq, message, shared, stored);
        seq
    }

    /// Puts a message in its place, behind all others.
    pub(super) fn put(&mut self, seq: InboxSeq, mut message: InboxMessage, shared: SharedSources, stored: Stored) {
        self.next = seq.0 + 1;
        message.seq = Some(seq);
        let (qos, expiry_at, bytes) = (message.qos, message.message.view().expiry_at, queued_bytes(&message.message));
        self.bytes += bytes;
        self.expiry_hint = earlier(self.expiry_hint, expiry_at);
        self.count_waiting(seq, qos);
        let carried = Some(Box::new(Carried { message, shared }));
        let bytes = u32::try_from(bytes).expect("a message has less than 4 GiB");
        let queued = Queued { carried, stored, expiry_at, bytes, qos, stage: Stage::Waiting, held: false };
        self.entries.insert(seq, queued);
    }

    /// Hands out waiting messages until `window` are outstanding; adds to `expired` what it found to be so [MQTT5-3.3.2-5].
    ///
    /// Two messages outstanding never have the same packet identifier.
    pub(super) fn push(
        &mut self,
        now: Instant,
        window: usize,
        messages: &mut Vec<InboxMessage>,
        expired: &mut Vec<(InboxSeq, Queued)>,
    ) {
        let oldest = self.entries.first_key_value().map_or(0, |(seq, _)| seq.0);
        // Places of two leaders are far apart.
        let is_near = |seq: &InboxSeq| seq.0 - oldest < u64::from(InboxSeq::PACKET_IDS);
        while self.waiting > 0 && self.entries.len() - self.waiting < window {
            let mut rest = self.entries.range(InboxSeq(self.cursor)..);
            let found = rest.find(|(_, queued)| queued.stage == Stage::Waiting).map(|(&seq, _)| seq);
            let Some(seq) = found.filter(|seq| is_near(seq) || self.has_own_packet_id(*seq)) else { break };
            let Some(queued) = self.entries.get_mut(&seq) else { break };
            if is_expired(queued, now) {
                self.cursor = seq.0 + 1;
                expired.extend(self.remove(seq).map(|queued| (seq, queued)));
                continue;
            }
            let Some(carried) = &queued.carried else { break };
            self.cursor = seq.0 + 1;
            queued.stage = Stage::Pushed;
            messages.push(carried.message.clone());
            self.waiting -= 1;
            self.waiting_qos0.remove(&seq);
        }
    }

    pub(super) fn remove(&mut self, seq: InboxSeq) -> Option<Queued> {
        let queued = self.entries.remove(&seq)?;
        self.bytes -= u64::from(queued.bytes);
        if queued.carried.is_none() {
            self.resting.remove(&queued);
        }
        if queued.stage == Stage::Waiting {
            self.waiting -= 1;
            self.waiting_qos0.remove(&seq);
        }
        Some(queued)
    }

    /// Drops the oldest QoS 0 message that waits. One that was pushed stays: dropping it here would not stop it, but would
    /// let ever more be pushed.
    pub(super) fn evict_oldest_qos0(&mut self) -> Option<Queued> {
        let seq = *self.waiting_qos0.first()?;
        self.remove(seq)
    }

    /// Takes out waiting messages that have expired [MQTT5-3.3.2-5]. Looks at the queue only if one may have.
    pub(super) fn purge_expired(&mut self, now: Instant, expired: &mut Vec<(InboxSeq, Queued)>) {
        if self.expiry_hint.is_none_or(|hint| hint > now) {
            return;
        }
        let due: Vec<InboxSeq> = (self.entries.iter())
            .filter(|(_, queued)| queued.stage == Stage::Waiting && is_expired(queued, now))
            .map(|(&seq, _)| seq)
            .collect();
        for seq in due {
            expired.extend(self.remove(seq).map(|queued| (seq, queued)));
        }
        let later = |queued: &Queued| queued.expiry_at.filter(|&at| at > now);
        self.expiry_hint = self.entries.values().filter_map(later).min();
    }

    /// The owner has gone: what it was pushed waits again, except what it had sent to the client.
    pub(super) fn rewind(&mut self, sent: impl Iterator<Item = InboxSeq>) {
        self.waiting = 0;
        self.waiting_qos0.clear();
        for queued in self.entries.values_mut() {
            queued.stage = Stage::Waiting;
        }
        for seq in sent {
            if let Some(queued) = self.entries.get_mut(&seq) {
                queued.stage = Stage::Sent;
            }
        }
        self.cursor = self.entries.first_key_value().map_or(self.next, |(seq, _)| seq.0);
        for (&seq, queued) in &self.entries {
            if queued.stage == Stage::Waiting {
                self.waiting += 1;
                if queued.qos == QoS::AtMostOnce {
                    self.waiting_qos0.insert(seq);
                }
                self.expiry_hint = earlier(self.expiry_hint, queued.expiry_at);
            }
        }
    }

    /// Messages that wait and are in memory.
    pub(super) const fn carried_waiting(&self) -> usize {
        self.waiting.saturating_sub(self.resting.count)
    }

    /// Lets go of a message that waits, if its record is enough to have it again.
    pub(super) fn rest(&mut self, seq: InboxSeq) {
        if let Some(queued) = self.entries.get_mut(&seq)
            && queued.let_go()
        {
            self.resting.add(seq, queued);
        }
    }

    /// Lets go of all messages that wait.
    pub(super) fn rest_all(&mut self) {
        if self.carried_waiting() == 0 {
            return;
        }
        for (&seq, queued) in &mut self.entries {
            if queued.let_go() {
                self.resting.add(seq, queued);
            }
        }
    }

    /// A message that rested is here again. Nothing happens if it has gone meanwhile.
    pub(super) fn wake(&mut self, seq: InboxSeq, carried: Carried) {
        let Some(queued) = self.entries.get_mut(&seq).filter(|queued| queued.carried.is_none()) else { return };
        queued.carried = Some(Box::new(carried));
        self.resting.remove(queued);
    }

    /// Whether a message rests.
    pub(super) fn rests(&self, seq: InboxSeq) -> bool {
        self.entries.get(&seq).is_some_and(|queued| queued.carried.is_none())
    }

    /// The first message that rests, if fewer than `ahead` that do not are to be pushed before it. `None` else.
    pub(super) fn next_resting(&mut self, ahead: usize) -> Option<InboxSeq> {
        if self.resting.count == 0 {
            return None;
        }
        let mut rest = self.entries.range(InboxSeq(self.resting.from)..);
        let seq = rest.find(|(_, queued)| queued.carried.is_none()).map(|(&seq, _)| seq)?;
        self.resting.from = seq.0;
        let before = self.entries.range(InboxSeq(self.cursor.min(seq.0))..seq);
        (before.filter(|(_, queued)| queued.stage == Stage::Waiting).take(ahead).count() < ahead).then_some(seq)
    }

    /// One beyond the last place.
    pub(super) const fn end(&self) -> InboxSeq {
        InboxSeq(self.next)
    }

    /// The owner goes on with what it has in hand, and is done with what else was pushed to it, which is taken out. The rest waits.
    pub(super) fn reclaim(&mut self, in_hand: &InHand) -> Vec<(InboxSeq, Queued)> {
        let held: BTreeSet<InboxSeq> = in_hand.seqs.iter().copied().collect();
        let pushed = self.entries.range(..in_hand.next).map(|(&seq, _)| seq);
        let done: Vec<InboxSeq> = pushed.filter(|seq| !held.contains(seq)).collect();
        let done = done.into_iter().filter_map(|seq| self.remove(seq).map(|queued| (seq, queued))).collect();
        self.rewind(core::iter::empty());
        for seq in &held {
            if let Some(queued) = self.entries.get_mut(seq) {
                queued.stage = Stage::Pushed;
                self.waiting -= 1;
                self.waiting_qos0.remove(seq);
            }
        }
        done
    }

    /// Whether no message outstanding has the packet identifier of this one, which is behind them.
    fn has_own_packet_id(&self, seq: InboxSeq) -> bool {
        self.entries.range(..InboxSeq(self.cursor)).all(|(other, _)| other.packet_id() != seq.packet_id())
    }

    fn count_waiting(&mut self, seq: InboxSeq, qos: QoS) {
        self.waiting += 1;
        if qos == QoS::AtMostOnce {
            self.waiting_qos0.insert(seq);
        }
    }

    /// # Panics
    /// If an invariant does not hold.
    pub(super) fn validate(&self) {
        let waits = |queued: &Queued| queued.stage == Stage::Waiting;
        assert_eq!(self.waiting, self.entries.values().filter(|queued| waits(queued)).count());
        assert!(self.entries.range(..InboxSeq(self.cursor)).all(|(_, queued)| !waits(queued)));
        assert_eq!(self.bytes, self.entries.values().map(|queued| u64::from(queued.bytes)).sum::<u64>());
        let resting: Vec<_> = self.entries.iter().filter(|(_, queued)| queued.carried.is_none()).collect();
        assert_eq!(self.resting.count, resting.len());
        assert_eq!(self.resting.bytes, resting.iter().map(|(_, queued)| queued.spared_bytes()).sum::<u64>());
        assert!(resting.iter().all(|(seq, queued)| waits(queued) && seq.0 >= self.resting.from));
        let qos0 = self.entries.iter().filter(|(_, queued)| waits(queued) && queued.qos == QoS::AtMostOnce);
        assert!(qos0.map(|(seq, _)| seq).eq(self.waiting_qos0.iter()));
    }
}

impl Queued {
    /// Lets go of the message, if it waits and its record is enough to have it again. What came through a shared group is kept: if the session
    /// ends, another member is to have it, at once.
    fn let_go(&mut self) -> bool {
        let is_idle = self.stage == Stage::Waiting && self.stored != Stored::Nowhere;
        is_idle && self.carried.take_if(|carried| carried.shared.is_empty()).is_some()
    }

    /// Memory that is spared while it rests.
    fn spared_bytes(&self) -> u64 {
        u64::from(self.bytes) - QUEUED_OVERHEAD_BYTES
    }
}

fn is_expired(queued: &Queued, now: Instant) -> bool {
    queued.expiry_at.is_some_and(|at| at <= now)
}
