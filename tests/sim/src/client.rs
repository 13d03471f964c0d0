//! The workload: clients that append to keys and read them, one operation at a time each, and try again somewhere else until they have
//! an answer.

use crate::invariants::Checks;
use crate::machine::{Command, KEYS};
use crate::options::{Settings, within};
use crate::replica::Ticket;
use crate::world::{Answer, Event, World};
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use std::time::Duration;

/// After so long without an answer a client tries another node.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between an attempt that was refused and the next one, at most.
const BACK_OFF: Duration = Duration::from_millis(80);

/// The client that only reads, anywhere.
const READER: usize = 0;

/// An operation without an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) range: RangeId,
    pub(crate) key: usize,
    pub(crate) write: bool,
    /// The newest version that anybody was told when it began.
    floor: u64,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    index: usize,
    /// Commands it has had.
    number: u64,
    attempt: u64,
    pub(crate) operation: Option<Operation>,
    /// Whom it takes for the leader.
    hint: Option<NodeId>,
    /// The last attempt was taken, and an answer is awaited.
    taken: bool,
    rng: Prng,
}

impl Client {
    pub(crate) fn new(index: usize, rng: Prng) -> Self {
        Self { index, number: 0, attempt: 0, operation: None, hint: None, taken: false, rng }
    }

    /// The name of the current attempt.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { client: self.index, attempt: self.attempt }
    }

    /// Makes the next attempt, at a new operation if there is none and one may begin. Returns at which node.
    pub(crate) fn attempt(
        &mut self,
        checks: &[Checks],
        settings: &Settings,
        nodes: usize,
        may_begin: bool,
    ) -> Option<(Operation, NodeId)> {
        self.attempt += 1;
        if std::mem::take(&mut self.taken) {
            // Nothing was heard for too long.
            self.hint = None;
        }
        if self.operation.is_none() && may_begin {
            let (range, key) = (RangeId(self.rng.below(settings.groups)), self.rng.below(KEYS as u64) as usize);
            let write = self.index != READER && self.rng.below(100) >= settings.reads_percent;
            self.number += u64::from(write);
            let floor = checks[range.0 as usize].linearizable.floor(key);
            self.operation = Some(Operation { range, key, write, floor });
        }
        let operation = self.operation?;
        // Some look for themselves, the reader always, so that deposed leaders are asked too.
        let wanders = self.index == READER || self.rng.below(4) == 0;
        let anyone = NodeId(self.rng.below(nodes as u64));
        Some((operation, self.hint.filter(|_| !wanders).unwrap_or(anyone)))
    }

    /// The command as an entry's data.
    pub(crate) fn command(&mut self, operation: Operation, settings: &Settings) -> bytes::Bytes {
        let filler = self.rng.below(settings.filler + 1) as usize;
        Command { client: self.index, number: self.number, key: operation.key }.encode(filler)
    }

    /// The attempt was taken, or not; then `hint` may know better.
    pub(crate) fn note_attempt(&mut self, world: &mut World, at: NodeId, result: Result<(), Option<NodeId>>) {
        self.taken = result.is_ok();
        let delay = match result {
            Ok(()) => {
                self.hint = Some(at);
                PATIENCE
            }
            Err(hint) => {
                self.hint = hint;
                BACK_OFF / 8 + within(&mut self.rng, BACK_OFF)
            }
        };
        world.queue.after(delay, Event::Client(self.ticket()));
    }

    /// An answer; one to an attempt that was given up is ignored.
    pub(crate) fn handle_answer(&mut self, world: &mut World, ticket: Ticket, answer: Answer) {
        if ticket != self.ticket() {
            return;
        }
        let Some(operation) = self.operation else { return };
        let Operation { range, key, floor, .. } = operation;
        let number = self.number;
        let checks = world.checks(range);
        let delay = match answer {
            Answer::Written { version, id } => {
                checks.linearizable.note_written(key, floor, version);
                checks.acknowledged.note(self.index, number, version, id);
                world.report.writes += 1;
                self.operation = None;
                within(&mut self.rng, world.settings.think)
            }
            Answer::Read { version } => {
                checks.linearizable.note_read(key, floor, version);
                world.report.reads += 1;
                self.operation = None;
                within(&mut self.rng, world.settings.think)
            }
            Answer::Lost => {
                world.report.retries += 1;
                within(&mut self.rng, BACK_OFF)
            }
        };
        (self.taken, self.attempt) = (false, self.attempt + 1);
        world.queue.after(delay, Event::Client(self.ticket()));
    }
}
