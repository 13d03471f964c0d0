//! The leader's side of replication: what each peer is sent at the end of a turn, and what its answers mean.

use super::fetch::{FetchFor, next_fetch};
use super::leader::Leader;
use super::output::{Needs, Outgoing};
use super::progress::{Mode, Phase, Progress};
use super::{Group, State};
use crate::config::Config;
use crate::effect::{Effect, FetchId};
use crate::error::Violation;
use crate::log::Log;
use crate::message::{Body, Message, Round};
use crate::mutation::Mutation;
use crate::types::{Entry, Index, LogId, Term};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

/// What is needed to speak to peers, besides what is known about them.
struct Speaker<'a> {
    term: Term,
    now: Instant,
    round: Round,
    config: &'a Config,
    log: &'a Log,
    outgoing: &'a mut Vec<Outgoing>,
    events: &'a mut Vec<Effect>,
    fetches: &'a mut Vec<(FetchId, FetchFor)>,
    last_fetch: &'a mut FetchId,
    commit_unconfirmed: bool,
}

impl Group {
    /// Sends every peer what it lacks and may be sent.
    pub(super) fn replicate(&mut self) {
        if self.quiet || !matches!(self.state, State::Leader(_)) {
            return;
        }
        self.hand_over_if_ready();
        let falls_quiet = self.may_fall_quiet();
        let (mut speaker, leader) = self.speaker().expect("this is the leader");
        let speak = leader.beat || leader.wants_round;
        if speak || leader.asks_anew {
            leader.begin_round(speaker.now);
            speaker.round = leader.round;
        }
        leader.beat = false;
        for (to, peer) in &mut leader.peers {
            if !falls_quiet {
                speaker.feed(*to, peer);
            }
            if speak {
                speaker.heartbeat(*to, peer, falls_quiet);
            }
        }
        self.confirm_rounds();
        if falls_quiet {
            self.fall_quiet();
        }
    }

    fn speaker(&mut self) -> Option<(Speaker<'_>, &mut Leader)> {
        let commit_unconfirmed = self.is_planted(Mutation::CommitUnconfirmed);
        let State::Leader(leader) = &mut self.state else { return None };
        let speaker = Speaker {
            term: self.hard_state.term,
            now: self.now,
            round: leader.round,
            config: &self.config,
            log: &self.log,
            outgoing: &mut self.outgoing,
            events: &mut self.events,
            fetches: &mut self.fetches,
            last_fetch: &mut self.last_fetch,
            commit_unconfirmed,
        };
        Some((speaker, leader))
    }

    /// Sends entries that were fetched for a peer.
    pub(super) fn send_entries(&mut self, to: NodeId, entries: Vec<Entry>) {
        let Some((mut speaker, leader)) = self.speaker() else { return };
        let Some(peer) = leader.peers.get_mut(&to).filter(|peer| peer.mode == Mode::Stream) else { return };
        speaker.append(to, peer, entries);
    }

    /// A peer has answered `round`, which says that it lives and follows.
    pub(super) fn note_heard(&mut self, from: NodeId, round: Round) {
        let now = self.now;
        let Some(leader) = self.leader_state() else { return };
        let wakes = leader.quiet_round.is_some_and(|quiet| round >= quiet);
        let current = leader.round;
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        peer.heard = now;
        peer.acked = peer.acked.max(round.min(current));
        if wakes {
            self.wake();
        }
        self.confirm_rounds();
    }

    pub(super) fn handle_accepted(&mut self, from: NodeId, matched: Index, round: Round) -> Result<(), Violation> {
        if matches!(self.state, State::Leader(_)) && matched > self.log.last().index {
            return Err(Violation::ConfirmsBeyondLog { matched });
        }
        self.note_heard(from, round);
        let start = self.log.start().index;
        let Some(peer) = self.leader_state().and_then(|leader| leader.peers.get_mut(&from)) else { return Ok(()) };
        if peer.note_accepted(matched, start) {
            self.advance_commit();
        }
        Ok(())
    }

    pub(super) fn handle_rejected(&mut self, from: NodeId, at: Index, hint: LogId, round: Round) {
        self.note_heard(from, round);
        let agrees = self.log.last_not_above(hint.index.min(at), hint.term);
        let Some(leader) = self.leader_state() else { return };
        let Some(peer) = leader.peers.get_mut(&from).filter(|peer| round >= peer.asked_since) else { return };
        match peer.mode {
            Mode::Stream if at >= peer.matched => peer.probe(),
            Mode::Probe { .. } if at == peer.next.previous() => peer.retreat_to(at.min(agrees.index.next())),
            // An answer to what was sent before it was known better.
            Mode::Stream | Mode::Probe { .. } | Mode::Snapshot(_) => return,
        }
        // One lost or overtaken message of a stream has all behind it rejected. Each of these answers would begin the search
        // anew if they were not told apart from the answer to the next question, which is in a round of its own.
        peer.asked_since = Round(leader.round.0 + 1);
        leader.asks_anew = true;
    }

    pub(super) fn handle_heartbeat_reply(&mut self, from: NodeId, round: Round) {
        self.note_heard(from, round);
        let Some(peer) = self.leader_state().and_then(|leader| leader.peers.get_mut(&from)) else { return };
        match &mut peer.mode {
            Mode::Probe { asked } => *asked = false,
            Mode::Stream => peer.in_doubt = peer.next > peer.matched.next(),
            Mode::Snapshot(_) => {}
        }
    }
}

impl Speaker<'_> {
    /// Sends a peer what its mode allows.
    fn feed(&mut self, to: NodeId, peer: &mut Progress) {
        if peer.mode == Mode::Stream {
            self.stream(to, peer);
        }
        // Streaming may have found that the log no longer reaches back.
        match &mut peer.mode {
            Mode::Stream | Mode::Probe { asked: true } | Mode::Snapshot(Phase::Preparing | Phase::Offered(_)) => {}
            Mode::Probe { asked: false } => self.probe(to, peer),
            Mode::Snapshot(phase) => {
                let Phase::Wanted { not_before } = phase else { return };
                if not_before.is_none_or(|at| at <= self.now) {
                    *phase = Phase::Preparing;
                    self.events.push(Effect::PrepareSnapshot { to, at_least: self.log.start().index });
                }
            }
        }
    }

    /// Asks whether the logs agree before `next`, with entries if they are at hand.
    fn probe(&mut self, to: NodeId, peer: &mut Progress) {
        let last = self.log.last().index;
        let Some(prev) = self.prev(peer) else {
            peer.need_snapshot(None);
            return self.feed(to, peer);
        };
        let entries = self.log.slice(peer.next, last, self.config.message_bytes_max).unwrap_or_default();
        peer.mode = Mode::Probe { asked: true };
        peer.commit_sent = self.log.committed();
        self.say_append(to, prev, entries);
    }

    /// Sends everything the window has room for.
    fn stream(&mut self, to: NodeId, peer: &mut Progress) {
        let last = self.log.last().index;
        // Even with the window full: what fills it may be lost, and can then not be asked about any more.
        let Some(prev) = self.prev(peer) else { return peer.need_snapshot(None) };
        let mut silent = true;
        while peer.next <= last && !peer.is_full(self.config.inflight_messages_max, self.config.inflight_bytes_max) {
            let Some(entries) = self.log.slice(peer.next, last, self.config.message_bytes_max) else {
                self.fetch(to, peer, last);
                break;
            };
            self.append(to, peer, entries);
            silent = false;
        }
        let news = peer.commit_sent < self.log.committed().min(peer.next.previous());
        if silent && (news || peer.in_doubt) {
            peer.in_doubt = false;
            peer.commit_sent = self.log.committed();
            self.say_append(to, prev, Vec::new());
        }
    }

    /// What stands before the next entry for the peer; `None` if that is forgotten.
    fn prev(&self, peer: &Progress) -> Option<LogId> {
        let index = peer.next.previous();
        self.log.term_at(index).map(|term| LogId { term, index })
    }

    fn append(&mut self, to: NodeId, peer: &mut Progress, entries: Vec<Entry>) {
        let (Some(prev), Some(last)) = (self.prev(peer), entries.last().map(|entry| entry.id.index)) else { return };
        peer.note_sent(last, entries.iter().map(Entry::cost).sum());
        peer.commit_sent = self.log.committed();
        self.say_append(to, prev, entries);
    }

    fn say_append(&mut self, to: NodeId, prev: LogId, entries: Vec<Entry>) {
        let commit = self.log.committed();
        self.say(to, Body::Append { prev, entries, commit, round: self.round });
    }

    fn fetch(&mut self, to: NodeId, peer: &mut Progress, last: Index) {
        if peer.fetching.is_some() || peer.fetch_after.is_some_and(|at| at > self.now) {
            return;
        }
        let fetch = next_fetch(self.last_fetch);
        peer.fetching = Some(fetch);
        peer.fetch_after = None;
        self.fetches.retain(|(_, purpose)| *purpose != FetchFor::Peer(to));
        self.fetches.push((fetch, FetchFor::Peer(to)));
        let bytes_max = self.config.message_bytes_max;
        self.events.push(Effect::Fetch { fetch, first: peer.next, last, bytes_max });
    }

    fn heartbeat(&mut self, to: NodeId, peer: &mut Progress, quiesce: bool) {
        if let Mode::Snapshot(Phase::Offered(meta)) = &peer.mode {
            self.say(to, Body::SnapshotOffer { meta: meta.clone(), round: self.round });
        }
        let confirmed = if self.commit_unconfirmed { self.log.last().index } else { peer.matched };
        let commit = self.log.committed().min(confirmed);
        if peer.told.0 != commit {
            peer.told = (commit, self.round);
        }
        self.say(to, Body::Heartbeat { commit, round: self.round, quiesce });
    }

    fn say(&mut self, to: NodeId, body: Body) {
        let message = Message { term: self.term, body };
        self.outgoing.push(Outgoing { to, message, needs: Needs::HardState });
    }
}
