//! Snapshots for peers, on the leader: made when Raft asks for one, kept while the peer fetches it piece by piece.

use super::entry::read_meta;
use super::frame::Part;
use super::shard::Host;
use crate::kv::{KvError, KvSnapshot, Pair};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;
use bifro_raft::LogId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An offer nobody asks about for this long is dropped: a snapshot keeps old files of the base alive. Who comes later is told so, and
/// Raft asks for another.
const OFFER_KEPT: Duration = Duration::from_secs(60);

/// What one range has for its peers.
#[derive(Default)]
pub(super) struct Offers {
    /// Who needs one.
    wanted: BTreeSet<NodeId>,
    /// A checkpoint that will show one is on its way.
    is_making: bool,
    made: BTreeMap<NodeId, Offer>,
}

struct Offer {
    last: LogId,
    /// Away while a piece is read.
    snapshot: Option<KvSnapshot>,
    used_at: Instant,
}

/// A piece being read.
pub(super) struct Reading {
    range: RangeId,
    to: NodeId,
    last: LogId,
    from: Vec<u8>,
}

impl Offers {
    fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.made.is_empty()
    }
}

impl Host {
    /// A peer's log ends before this one begins.
    pub(super) fn want_snapshot(&mut self, id: RangeId, to: NodeId) {
        if let Some(range) = self.ranges.get_mut(&id) {
            range.offers.wanted.insert(to);
            self.offering.insert(id);
        }
    }

    /// When a snapshot that has to wait may be tried.
    pub(super) fn next_offer(&self) -> Option<Instant> {
        let waiting = self.offering.iter().filter_map(|id| self.ranges.get(id));
        let waiting = waiting.filter(|range| !range.offers.wanted.is_empty() && !range.space.is_checkpointing());
        waiting.map(|range| range.checkpoint_at).min()
    }

    /// Begins the snapshots that are wanted, and drops those that have served.
    pub(super) fn drive_offers(&mut self, now: Instant) {
        for id in self.offering.iter().copied().collect::<Vec<_>>() {
            let (Some(range), Some(group)) = (self.ranges.get_mut(&id), self.multi.group(id)) else {
                self.offering.remove(&id);
                continue;
            };
            let lacks = |node: NodeId, last: LogId| group.matched(node).is_some_and(|matched| matched < last.index);
            let fresh = |offer: &Offer| now.since(offer.used_at) < OFFER_KEPT;
            range.offers.made.retain(|node, offer| lacks(*node, offer.last) && fresh(offer));
            if range.offers.is_idle() {
                self.offering.remove(&id);
            } else if !range.offers.wanted.is_empty() && !range.offers.is_making && range.checkpoint_at <= now {
                // One at a time. It contains all that is applied, so it reaches at least to where the log begins.
                range.offers.is_making = range.snapshot(0);
            }
        }
    }

    /// The snapshot is made: it is the first one's who wanted it.
    pub(super) fn offer(&mut self, now: Instant, id: RangeId, snapshot: KvSnapshot) {
        let Some(range) = self.ranges.get_mut(&id) else { return };
        range.offers.is_making = false;
        let Some(meta) = read_meta(snapshot.meta()) else {
            return (self.fatal)(&format!("{id}: the checkpoint just made has a damaged record"));
        };
        // Nobody wants it if the reign that did is over.
        let Some(to) = range.offers.wanted.pop_first() else { return };
        let offer = Offer { last: meta.last, snapshot: Some(snapshot), used_at: now };
        range.offers.made.insert(to, offer);
        self.with_group(id, |group| group.offer_snapshot(now, to, meta));
    }

    /// The checkpoint that was to show a snapshot failed.
    pub(super) fn withdraw(&mut self, now: Instant, id: RangeId) {
        let Some(range) = self.ranges.get_mut(&id) else { return };
        if std::mem::take(&mut range.offers.is_making) {
            for to in std::mem::take(&mut range.offers.wanted) {
                self.with_group(id, |group| group.handle_snapshot_unavailable(now, to));
            }
        }
    }

    /// A peer asks for a piece.
    pub(super) fn serve(&mut self, now: Instant, id: RangeId, to: NodeId, last: LogId, from: Vec<u8>) {
        let offer = self.ranges.get_mut(&id).and_then(|range| range.offers.made.get_mut(&to));
        let Some(offer) = offer.filter(|offer| offer.last == last) else {
            return self.say(to, id, &Part::NoSnapshot { last });
        };
        offer.used_at = now;
        // While a piece is read, another request is the same one again.
        let Some(snapshot) = offer.snapshot.take() else { return };
        self.last_request += 1;
        let bytes_max = self.replication.chunk_bytes;
        self.kv.read_snapshot(crate::kv::SpaceId(id.0), self.last_request, snapshot, from.clone(), bytes_max);
        self.reading.insert(self.last_request, Reading { range: id, to, last, from });
    }

    /// A piece was read.
    pub(super) fn served(&mut self, request: u64, snapshot: KvSnapshot, result: Result<Vec<Pair>, KvError>) {
        let Some(Reading { range: id, to, last, from }) = self.reading.remove(&request) else { return };
        let made = self.ranges.get_mut(&id).map(|range| &mut range.offers.made);
        let Some(offer) = made.and_then(|made| made.get_mut(&to)).filter(|offer| offer.last == last) else { return };
        match result {
            Ok(pairs) => {
                let next = snapshot.next_key().map(<[u8]>::to_vec);
                offer.snapshot = Some(snapshot);
                self.say(to, id, &Part::Chunk { last, from, pairs, next });
            }
            Err(error) => {
                tracing::error!(range = %id, %to, %error, "a snapshot for a peer cannot be read; another one is made");
                if let Some(range) = self.ranges.get_mut(&id) {
                    range.offers.made.remove(&to);
                }
                self.say(to, id, &Part::NoSnapshot { last });
            }
        }
    }
}
