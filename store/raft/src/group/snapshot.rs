//! Snapshots, as far as the protocol is concerned: offered, being fetched, installed, failed. How the bytes travel, in which
//! chunks and how fast, is between the hosts; the receiver fetches, so it can resume.

use super::Group;
use super::members::MemberHistory;
use super::progress::{Mode, Phase};
use crate::effect::Effect;
use crate::message::{Body, Round};
use crate::types::{LogId, SnapshotMeta};
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

impl Group {
    /// A snapshot for a peer is available here, in answer to [`Effect::PrepareSnapshot`]. The peer is told until it has it;
    /// the host keeps it until the peer has fetched it or another one is asked for.
    ///
    /// # Panics
    /// If it contains what is not committed.
    pub fn offer_snapshot(&mut self, now: Instant, to: NodeId, meta: SnapshotMeta) {
        self.advance(now);
        assert!(meta.last.index <= self.log.committed(), "a snapshot contains what is committed");
        let useless = meta.last.index < self.log.start().index;
        let Some(leader) = self.leader_state() else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        if let Mode::Snapshot(phase) = &mut peer.mode {
            if useless {
                *phase = Phase::Wanted { not_before: None };
            } else {
                *phase = Phase::Offered(meta);
                leader.beat = true;
            }
        }
    }

    /// No snapshot for a peer can be made at the moment; the host is asked again after an election timeout.
    pub fn handle_snapshot_unavailable(&mut self, now: Instant, to: NodeId) {
        self.advance(now);
        self.want_snapshot_later(to, |phase| *phase == Phase::Preparing);
    }

    /// The peer could not fetch or install it.
    pub(super) fn handle_snapshot_refused(&mut self, from: NodeId, last: LogId) {
        self.note_heard(from, Round(0));
        self.want_snapshot_later(from, |phase| matches!(phase, Phase::Offered(meta) if meta.last == last));
    }

    fn want_snapshot_later(&mut self, peer: NodeId, concerns: impl Fn(&Phase) -> bool) {
        let not_before = Some(self.now + self.config.election_timeout);
        let Some(peer) = self.leader_state().and_then(|leader| leader.peers.get_mut(&peer)) else { return };
        if let Mode::Snapshot(phase) = &mut peer.mode
            && concerns(phase)
        {
            *phase = Phase::Wanted { not_before };
        }
    }

    pub(super) fn handle_snapshot_offer(&mut self, from: NodeId, meta: SnapshotMeta, round: Round) {
        let committed = self.log.committed();
        if meta.last.index <= committed {
            self.accept(from, committed, round);
        } else if self.log.term_at(meta.last.index) == Some(meta.last.term) {
            // The log has all of it: it was only not known to be committed.
            self.log.mark_committed(meta.last.index);
            self.note_committed();
            self.accept(from, meta.last.index, round);
        } else {
            if self.installing.as_ref() != Some(&meta) {
                self.installing = Some(meta.clone());
                self.events.push(Effect::InstallSnapshot { from, meta });
            }
            self.send(from, Body::SnapshotPending { round });
        }
    }

    /// The state machine durably is what the snapshot says, in answer to [`Effect::InstallSnapshot`]. Entries handed out
    /// before count for nothing any more: the host does not apply them.
    ///
    /// # Panics
    /// If the state machine had been ahead of the snapshot.
    pub fn handle_snapshot_installed(&mut self, now: Instant, meta: &SnapshotMeta) {
        self.advance(now);
        let last = meta.last;
        assert!(last.index >= self.log.handed_out(), "a snapshot does not take the state machine back");
        if self.installing.as_ref() == Some(meta) {
            self.installing = None;
        }
        if self.log.term_at(last.index) == Some(last.term) {
            self.log.mark_installed(last.index);
            self.note_committed();
        } else {
            self.log.restart(last);
            self.limit_pending_writes(last.index);
            self.members = MemberHistory::new(meta);
            self.note_members_changed();
        }
        if let Some(leader) = self.leader.filter(|leader| *leader != self.identity.node) {
            self.accept(leader, last.index, Round(0));
        }
    }

    /// The snapshot cannot be fetched or installed; the state machine is what it was before.
    pub fn handle_snapshot_failed(&mut self, now: Instant) {
        self.advance(now);
        let Some(meta) = self.installing.take() else { return };
        if let Some(leader) = self.leader.filter(|leader| *leader != self.identity.node) {
            self.send(leader, Body::SnapshotFailed { last: meta.last });
        }
    }
}
