//! The end of a turn: what was gathered becomes effects, with the writes they wait for.

use super::Group;
use super::durable::PendingWrite;
use crate::effect::{Effect, LogWrite};
use crate::message::{Body, Message};
use crate::types::WriteId;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

/// What a message promises, and so what must be durable before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing. Only planted mistakes say so: even a refusal tells the sender's term.
    Nothing,
    /// Term and vote.
    HardState,
    /// The log as it is now.
    Log,
}

/// A message that will leave at the end of the turn.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) to: NodeId,
    pub(super) message: Message,
    pub(super) needs: Needs,
}

impl Group {
    /// Says something that promises nothing but the term.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        self.send_after(to, body, Needs::HardState);
    }

    pub(super) fn send_after(&mut self, to: NodeId, body: Body, needs: Needs) {
        self.outgoing.push(Outgoing { to, message: Message { term: self.term(), body }, needs });
    }

    /// Ends the turn: appends to `out` what is to be done, in order. With no input since the last call, it appends nothing.
    pub fn poll_effects(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.advance(now);
        self.replicate();
        self.announce_role(out);
        self.write(out);
        self.hand_out_appliable();
        out.append(&mut self.events);
        self.answer_reads(out);
        self.log.evict(self.config.tail_bytes_max, self.config.pending_bytes_max);
    }

    fn announce_role(&mut self, out: &mut Vec<Effect>) {
        let current = (self.role(), self.term(), self.leader);
        if self.announced != current {
            self.announced = current;
            let (role, term, leader) = current;
            out.push(Effect::RoleChanged { role, term, leader });
        }
    }

    /// The turn's write, and the messages with what they wait for.
    fn write(&mut self, out: &mut Vec<Effect>) {
        if self.hard_state_changed || self.log.has_unwritten() {
            let write = WriteId(self.last_write.0 + 1);
            self.last_write = write;
            let hard_state = core::mem::take(&mut self.hard_state_changed).then_some(self.hard_state);
            if hard_state.is_some() {
                self.hard_state_write = write;
            }
            let log: LogWrite = self.log.take_unwritten();
            self.writes.push_back(PendingWrite { write, last: self.log.last().index });
            out.push(Effect::Persist { write, hard_state, log });
        }
        let unless_durable = |write: WriteId| if write <= self.durable_write { WriteId::NONE } else { write };
        for Outgoing { to, message, needs } in self.outgoing.drain(..) {
            let after = match needs {
                Needs::Nothing => WriteId::NONE,
                Needs::HardState => unless_durable(self.hard_state_write),
                Needs::Log => unless_durable(self.last_write),
            };
            out.push(Effect::Send { to, message, after });
        }
    }
}
