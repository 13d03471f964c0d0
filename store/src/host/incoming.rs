//! A snapshot on its way in: fetched from the leader's host piece by piece, put beside the old data, and then in its place.
//!
//! ```text
//!            chunk                  step done, more to come
//!  Waiting ─────────► Writing ─────────────────────────────► Waiting (after a pause)
//!     ▲ silence: ask    │ step done, nothing more
//!     └─ again          ▼
//!                     Written ── space settled, term durable ──► Finishing ──► the space is the snapshot, the log begins behind it
//! ```
//! One piece is on its way at a time, so a snapshot takes no more of link, memory and disk than the pauses allow. Until the last step the
//! old data is untouched: a crash, another snapshot, or a leader that falls silent leaves the replica as it was.

use super::entry::write_meta;
use super::frame::Part;
use super::shard::Host;
use crate::kv::{InstallStep, KvError, KvInstall, SpaceId};
use crate::wal::Token;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::{Instant, earlier};
use bifro_raft::{LogId, SnapshotMeta};

/// The transfer.
pub(super) struct Incoming {
    from: NodeId,
    meta: SnapshotMeta,
    /// First key that is not here.
    next: Vec<u8>,
    /// The term of whoever offered it is durable with this: a checkpoint must not know of a term that the log has forgotten.
    needs: Token,
    /// The step under way.
    request: u64,
    /// When there was last any progress.
    heard_at: Instant,
    /// Pieces that have come.
    pieces: usize,
    /// Another one, to be fetched when this has been put in place.
    next_one: Option<(NodeId, SnapshotMeta)>,
    stage: Stage,
}

enum Stage {
    Waiting { install: Option<Box<dyn KvInstall>>, ask_at: Instant },
    Writing { is_last: bool },
    Written { install: Box<dyn KvInstall> },
    Finishing,
}

impl Incoming {
    /// How many pieces have come.
    #[cfg(test)]
    pub(super) const fn pieces(&self) -> usize {
        self.pieces
    }

    /// Whether the last step is under way, which cannot be called back.
    pub(super) const fn is_finishing(&self) -> bool {
        matches!(self.stage, Stage::Finishing)
    }
}

impl Host {
    /// Raft wants a snapshot fetched, instead of another one perhaps.
    pub(super) fn begin_incoming(&mut self, now: Instant, id: RangeId, from: NodeId, meta: SnapshotMeta) {
        let needs = Token(self.wal.submitted().0 + u64::from(!self.batch.is_empty()));
        let running = self.ranges.get_mut(&id).and_then(|range| range.incoming.as_mut());
        if let Some(running) = running.filter(|running| running.is_finishing()) {
            running.next_one = Some((from, meta));
            return;
        }
        self.abandon(id);
        if let Some(range) = self.ranges.get_mut(&id) {
            let stage = Stage::Waiting { install: None, ask_at: now };
            let incoming = Incoming {
                from,
                meta,
                next: Vec::new(),
                needs,
                request: 0,
                heard_at: now,
                pieces: 0,
                next_one: None,
                stage,
            };
            range.incoming = Some(incoming);
            self.receiving.insert(id);
        }
    }

    /// Drops what was fetched. A step under way ends for nobody.
    pub(super) fn abandon(&mut self, id: RangeId) {
        let incoming = self.ranges.get_mut(&id).and_then(|range| range.incoming.take());
        self.receiving.remove(&id);
        if let Some(Stage::Waiting { install: Some(install), .. } | Stage::Written { install }) =
            incoming.map(|incoming| incoming.stage)
        {
            self.kv.abandon(SpaceId(id.0), install);
        }
    }

    fn fail_incoming(&mut self, now: Instant, id: RangeId, why: &dyn std::fmt::Display) {
        tracing::warn!(range = %id, %why, "a snapshot was not installed; the leader offers another");
        self.abandon(id);
        self.with_group(id, |group| group.handle_snapshot_failed(now));
    }

    /// The node is gone, and what it offered with it.
    pub(super) fn fail_incoming_from(&mut self, now: Instant, node: NodeId) {
        for id in self.receiving.iter().copied().collect::<Vec<_>>() {
            let waiting =
                |incoming: &Incoming| incoming.from == node && matches!(incoming.stage, Stage::Waiting { .. });
            if self.ranges.get(&id).and_then(|range| range.incoming.as_ref()).is_some_and(waiting) {
                self.fail_incoming(now, id, &"its node is gone");
            }
        }
    }

    /// When a piece is to be asked for.
    pub(super) fn next_incoming(&self) -> Option<Instant> {
        let all = self.receiving.iter().filter_map(|id| self.ranges.get(id)?.incoming.as_ref());
        all.fold(None, |next, incoming| match incoming.stage {
            Stage::Waiting { ask_at, .. } => earlier(next, Some(ask_at)),
            _ => next,
        })
    }

    /// Asks for the pieces that are due, and finishes what is complete.
    pub(super) fn drive_incoming(&mut self, now: Instant) {
        for id in self.receiving.iter().copied().collect::<Vec<_>>() {
            let Some(range) = self.ranges.get_mut(&id) else {
                self.receiving.remove(&id);
                continue;
            };
            let Some(incoming) = &mut range.incoming else { continue };
            match &mut incoming.stage {
                Stage::Waiting { ask_at, .. } if *ask_at <= now => {
                    if now.since(incoming.heard_at) >= self.replication.chunk_patience {
                        self.fail_incoming(now, id, &"nothing came any more");
                        continue;
                    }
                    *ask_at = now + self.replication.chunk_timeout;
                    let part = Part::Fetch { last: incoming.meta.last, from: incoming.next.clone() };
                    let from = incoming.from;
                    self.say(from, id, &part);
                }
                Stage::Written { .. } if range.space.is_settled() && self.wal.durable() >= incoming.needs => {
                    self.finish_incoming(id);
                }
                _ => {}
            }
        }
    }

    /// A piece has come.
    pub(super) fn take_chunk(&mut self, now: Instant, id: RangeId, sender: NodeId, part: Part) {
        let Part::Chunk { last, from, pairs, next } = part else { return };
        let incoming = self.ranges.get_mut(&id).and_then(|range| range.incoming.as_mut());
        let Some(incoming) = incoming.filter(|it| it.meta.last == last && it.from == sender && it.next == from) else {
            return;
        };
        // A rest that does not begin behind what was asked for would never end.
        if next.as_ref().is_some_and(|next| *next <= from) {
            return self.fail_incoming(now, id, &"it does not end");
        }
        let Stage::Waiting { install, .. } = &mut incoming.stage else { return };
        let step = InstallStep { install: install.take(), pairs, finish: None };
        incoming.stage = Stage::Writing { is_last: next.is_none() };
        incoming.next = next.unwrap_or_default();
        incoming.heard_at = now;
        incoming.pieces += 1;
        self.push_step(id, step);
    }

    fn push_step(&mut self, id: RangeId, step: InstallStep) {
        self.last_request += 1;
        let request = self.last_request;
        if let Some(incoming) = self.ranges.get_mut(&id).and_then(|range| range.incoming.as_mut()) {
            incoming.request = request;
            self.kv.install(SpaceId(id.0), request, step);
        }
    }

    fn finish_incoming(&mut self, id: RangeId) {
        let Some(incoming) = self.ranges.get_mut(&id).and_then(|range| range.incoming.as_mut()) else { return };
        let Stage::Written { install } = std::mem::replace(&mut incoming.stage, Stage::Finishing) else { return };
        let finish = Some((incoming.meta.last.index.0, write_meta(Vec::new(), &incoming.meta)));
        self.push_step(id, InstallStep { install: Some(install), pairs: Vec::new(), finish });
    }

    /// The one who offered it has it no more.
    pub(super) fn handle_no_snapshot(&mut self, now: Instant, id: RangeId, sender: NodeId, last: LogId) {
        let incoming = self.ranges.get(&id).and_then(|range| range.incoming.as_ref());
        let concerns =
            |it: &Incoming| it.from == sender && it.meta.last == last && matches!(it.stage, Stage::Waiting { .. });
        if incoming.is_some_and(concerns) {
            self.fail_incoming(now, id, &"it is not offered any more");
        }
    }

    /// A step is done.
    pub(super) fn stepped(
        &mut self,
        now: Instant,
        id: RangeId,
        request: u64,
        result: Result<Option<Box<dyn KvInstall>>, KvError>,
    ) {
        let pause = self.replication.chunk_pause;
        let incoming = self.ranges.get_mut(&id).and_then(|range| range.incoming.as_mut());
        let Some(incoming) = incoming.filter(|incoming| incoming.request == request) else {
            // Of a transfer that was given up meanwhile.
            if let Ok(Some(install)) = result {
                self.kv.abandon(SpaceId(id.0), install);
            }
            return;
        };
        match (result, &incoming.stage) {
            (Ok(Some(install)), Stage::Writing { is_last: true }) => {
                incoming.stage = Stage::Written { install };
            }
            (Ok(Some(install)), _) => {
                incoming.stage = Stage::Waiting { install: Some(install), ask_at: now + pause };
            }
            (Ok(None), _) => self.installed(now, id),
            (Err(error @ (KvError::NoSpace { .. } | KvError::Corrupt { .. })), _) => {
                self.fail_incoming(now, id, &error);
            }
            (Err(error), _) => (self.fatal)(&format!("{id}: {error}")),
        }
    }

    /// The space is the snapshot now.
    fn installed(&mut self, now: Instant, id: RangeId) {
        self.receiving.remove(&id);
        let Some(range) = self.ranges.get_mut(&id) else { return };
        let Some(Incoming { meta, next_one, pieces, .. }) = range.incoming.take() else { return };
        match self.kv.open(SpaceId(id.0)) {
            Ok(space) => range.install(space, &meta),
            Err(error) => return (self.fatal)(&format!("{id}: the snapshot just installed cannot be opened: {error}")),
        }
        tracing::info!(range = %id, last = %meta.last, pieces, "a snapshot was installed");
        self.with_group(id, |group| group.handle_snapshot_installed(now, &meta));
        match next_one {
            Some((from, next)) if next.last.index > meta.last.index => self.begin_incoming(now, id, from, next),
            // What is in place now has it all.
            Some(_) => self.with_group(id, |group| group.handle_snapshot_failed(now)),
            None => {}
        }
    }
}
