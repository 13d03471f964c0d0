//! Snapshots on their way between nodes: the jobs that read a piece of one, or put a piece of one in place, on a thread of their own, so that
//! neither reads nor checkpoints wait for them.

use super::KvShard;
use super::base::{KvBase, KvInstall, Pair, SpaceId};
use super::error::KvError;
use super::jobs::{Answer, Job, KvDone, Work};
use super::snapshot::KvSnapshot;
use std::sync::Arc;

/// The next thing to do for a snapshot that comes in.
pub struct InstallStep {
    /// What earlier steps have gathered; absent for the first.
    pub install: Option<Box<dyn KvInstall>>,
    /// Pairs to add.
    pub pairs: Vec<Pair>,
    /// If these are the last: the applied index and the owner's record that belong to the snapshot.
    pub finish: Option<(u64, Vec<u8>)>,
}

/// What came of a step of a transfer.
pub enum Transfer {
    /// Answers [`KvShard::read_snapshot`].
    Read {
        /// As given.
        request: u64,
        /// As given; it stands behind what was read.
        snapshot: KvSnapshot,
        /// The pairs.
        result: Result<Vec<Pair>, KvError>,
    },
    /// Answers [`KvShard::install`].
    Installed {
        /// As given.
        request: u64,
        /// For the next step; absent if this was the last, and the snapshot is in place.
        result: Result<Option<Box<dyn KvInstall>>, KvError>,
    },
}

impl KvShard {
    /// Reads a piece of a snapshot, from `from` on. [`KvDone::into_transfer`] answers.
    pub fn read_snapshot(&self, space: SpaceId, request: u64, snapshot: KvSnapshot, from: Vec<u8>, bytes_max: usize) {
        self.push_transfer(space, Work::ReadSnapshot { request, snapshot, from, bytes_max });
    }

    /// Does a step of replacing a space by a snapshot; the old data stays until the last one is done. [`KvDone::into_transfer`] answers.
    /// Before the last step the owner sees to it that the space has no job outstanding, and applies nothing until it is answered; then
    /// it drops its [`super::KvSpace`] and opens the space again.
    pub fn install(&self, space: SpaceId, request: u64, step: InstallStep) {
        self.push_transfer(space, Work::Install { request, step });
    }

    /// Gives an install up, which leaves the old data. Not answered.
    pub fn abandon(&self, space: SpaceId, install: Box<dyn KvInstall>) {
        self.push_transfer(space, Work::Abandon { install });
    }

    fn push_transfer(&self, space: SpaceId, work: Work) {
        self.queue.push(Job { space, work, commits: Arc::default(), lane: self.lane.clone() });
    }
}

impl KvDone {
    /// What came of a step of a transfer, which no [`super::KvSpace`] wants to hear of; anything else as it is.
    ///
    /// # Errors
    /// What is not the end of such a step.
    pub fn into_transfer(self) -> Result<Transfer, Self> {
        match self.answer {
            Answer::Transfer(transfer) => Ok(transfer),
            answer => Err(Self { answer, ..self }),
        }
    }
}

pub(super) fn read_piece(snapshot: &mut KvSnapshot, from: Vec<u8>, bytes_max: usize) -> Result<Vec<Pair>, KvError> {
    snapshot.seek(from);
    Ok(snapshot.next_chunk(bytes_max)?.unwrap_or_default())
}

pub(super) fn install_piece(
    base: &dyn KvBase,
    space: SpaceId,
    step: InstallStep,
) -> Result<Option<Box<dyn KvInstall>>, KvError> {
    let mut install = match step.install {
        Some(install) => install,
        None => base.install(space)?,
    };
    if !step.pairs.is_empty() {
        install.add(&step.pairs)?;
    }
    match step.finish {
        None => Ok(Some(install)),
        Some((applied, meta)) => install.finish(applied, &meta).map(|()| None),
    }
}
