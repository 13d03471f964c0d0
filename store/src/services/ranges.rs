//! The ranges of one shard: each a machine, with the answers that wait until its changes are durable.

use super::RangeServices;
use crate::host::{Gate, Host};
pub(super) use bifro_core::ids::RangeKind as Service;
use bifro_core::ids::{RangeId, RangeIdx};
use bifro_core::time::Instant;
use bifro_range::changes::Changes;
use std::collections::VecDeque;

/// Bytes of changes that are enough for an entry of the log.
const ENTRY_BYTES: usize = 1 << 20;

/// A machine whose changes of records can be taken.
pub(super) trait Machine {
    /// What happens outside because of it.
    type Effect;

    /// Which service it is.
    const SERVICE: Service;

    /// What has changed at rest and was not taken yet; none if nothing is to be kept.
    fn changes(&mut self) -> Option<&mut Changes>;
}

/// A range: the machine, and the effects that depend on changes which are not durable yet, in order.
#[derive(Debug)]
pub(super) struct Range<M: Machine> {
    pub(super) idx: RangeIdx,
    pub(super) machine: M,
    held: VecDeque<(Gate, M::Effect)>,
}

impl<M: Machine> Range<M> {
    pub(super) const fn new(idx: RangeIdx, machine: M) -> Self {
        Self { idx, machine, held: VecDeque::new() }
    }

    fn id(&self) -> RangeId {
        RangeId::of(M::SERVICE, self.idx)
    }

    /// Holds effects back that must wait; the others stay in `effects`.
    pub(super) fn gate(&mut self, host: &Host, effects: &mut Vec<M::Effect>) {
        let recorded = host.recorded(self.id());
        let has_changed = self.machine.changes().is_some_and(|changes| !changes.is_empty());
        let gate = if has_changed { Gate(recorded.0 + 1) } else { recorded };
        if gate > host.applied(self.id()) || !self.held.is_empty() {
            self.held.extend(effects.drain(..).map(|effect| (gate, effect)));
        }
    }

    /// The effects whose changes are durable now.
    fn release(&mut self, host: &Host, effects: &mut Vec<M::Effect>) {
        let applied = host.applied(self.id());
        while let Some((_, effect)) = self.held.pop_front_if(|(gate, _)| *gate <= applied) {
            effects.push(effect);
        }
    }

    /// The effects that will never be carried out, since the range is led elsewhere now.
    pub(super) fn drop_held(&mut self) -> impl Iterator<Item = M::Effect> {
        std::mem::take(&mut self.held).into_iter().map(|(_, effect)| effect)
    }

    /// Whether an effect waits for nothing any more.
    #[cfg(feature = "simulation")]
    pub(super) fn is_releasable(&self, host: &Host) -> bool {
        self.held.front().is_some_and(|(gate, _)| *gate <= host.applied(self.id()))
    }

    /// How many effects wait.
    #[cfg(feature = "simulation")]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Hands changes to the host before the turn ends, if they are many: they are one entry, which has to travel.
    pub(super) fn record_many(&mut self, host: &mut Host) {
        if self.machine.changes().is_some_and(|changes| changes.len() >= ENTRY_BYTES) {
            self.record(host);
        }
    }

    /// Hands the turn's changes to the host.
    pub(super) fn record(&mut self, host: &mut Host) {
        let id = self.id();
        if let Some(changes) = self.machine.changes().filter(|changes| !changes.is_empty()) {
            host.record(id, changes.take());
        }
    }
}

impl RangeServices {
    /// Carries out what waited for changes that are durable by now.
    pub(super) fn release(&mut self, now: Instant) {
        let mut reached = std::mem::take(&mut self.reached);
        if let Some(host) = &mut self.host {
            host.take_reached(&mut reached);
        }
        if !reached.is_empty() {
            for (service, range) in reached.drain(..).filter_map(RangeId::parts) {
                self.release_range(service, range);
            }
            self.settle(now);
        }
        self.reached = reached;
    }

    fn release_range(&mut self, service: Service, range: RangeIdx) {
        let at = self.local(range);
        let Some(host) = &self.host else { return };
        match service {
            Service::Inbox => {
                let mut effects = std::mem::take(&mut self.inbox_effects);
                self.inboxes[at].release(host, &mut effects);
                self.carry_out_inbox(range, &mut effects);
                self.inbox_effects = effects;
            }
            Service::Retain => {
                let mut effects = std::mem::take(&mut self.retain_effects);
                self.retained[at].release(host, &mut effects);
                self.carry_out_retain(&mut effects);
                self.retain_effects = effects;
            }
        }
    }
}
