//! Old entries, which are no longer in memory and are read back by the host.

use super::timers::Timer;
use super::{Group, State};
use crate::effect::{Effect, FetchId};
use crate::error::FetchError;
use crate::types::Entry;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

/// What old entries are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchFor {
    /// To be applied here.
    Apply,
    /// To be sent to a peer.
    Peer(NodeId),
}

impl Group {
    /// Old entries, in answer to [`Effect::Fetch`]: from the first that was wanted, without gaps, at least one.
    ///
    /// # Panics
    /// If they are not entries of this log: the host has verified their checksums, so it mistakes one log for another.
    pub fn handle_fetched(&mut self, now: Instant, fetch: FetchId, result: Result<Vec<Entry>, FetchError>) {
        self.advance(now);
        let Some(at) = self.fetches.iter().position(|(id, _)| *id == fetch) else { return };
        let (_, purpose) = self.fetches.swap_remove(at);
        if let Ok(entries) = &result {
            let ours = |entry: &Entry| self.log.term_at(entry.id.index).is_none_or(|term| term == entry.id.term);
            assert!(entries.iter().all(ours), "old entries are those of this log");
        }
        match (purpose, result) {
            (FetchFor::Apply, Ok(entries)) => self.hand_out(entries),
            (FetchFor::Apply, Err(_)) => self.timers.set(Timer::FetchAgain, self.now + self.config.heartbeat),
            (FetchFor::Peer(node), result) => self.send_fetched(node, fetch, result),
        }
    }

    /// Hands out committed entries to be applied, a batch at a time.
    pub(super) fn hand_out_appliable(&mut self) {
        let (first, last) = (self.log.handed_out().next(), self.log.appliable());
        let waiting = self.log.applied() < self.log.handed_out() || self.timers.is_set(Timer::FetchAgain);
        if first > last || waiting || self.installing.is_some() {
            return;
        }
        if let Some(entries) = self.log.slice(first, last, self.config.apply_bytes_max) {
            self.hand_out(entries);
        } else if !self.fetches.iter().any(|(_, purpose)| *purpose == FetchFor::Apply) {
            let fetch = next_fetch(&mut self.last_fetch);
            self.fetches.push((fetch, FetchFor::Apply));
            self.events.push(Effect::Fetch { fetch, first, last, bytes_max: self.config.apply_bytes_max });
        }
    }

    /// Hands out entries if they are the next ones; what was fetched may have been overtaken by a snapshot.
    fn hand_out(&mut self, entries: Vec<Entry>) {
        let next = self.log.handed_out().next();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        if first.id.index == next && last.id.index <= self.log.appliable() && self.installing.is_none() {
            self.log.mark_handed_out(last.id.index);
            self.events.push(Effect::Apply { entries });
        }
    }

    fn send_fetched(&mut self, node: NodeId, fetch: FetchId, result: Result<Vec<Entry>, FetchError>) {
        let (now, wait) = (self.now, self.config.heartbeat);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(peer) = leader.peers.get_mut(&node).filter(|peer| peer.fetching == Some(fetch)) else { return };
        peer.fetching = None;
        match result {
            Ok(entries) => {
                if entries.first().is_some_and(|first| first.id.index == peer.next) {
                    self.send_entries(node, entries);
                }
            }
            Err(FetchError::Compacted) => peer.need_snapshot(None),
            // The next heartbeat's answer leads here again.
            Err(FetchError::Failed) => peer.fetch_after = Some(now + wait),
        }
    }
}

/// A name for the next request.
pub(super) fn next_fetch(last: &mut FetchId) -> FetchId {
    *last = FetchId(last.0 + 1);
    *last
}
