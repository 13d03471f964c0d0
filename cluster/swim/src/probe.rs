//! Failure detection: everybody probes one other at a time, in an order in which nobody waits for ever (SWIM, 4.3), first itself,
//! then through others, and judges the slower, the worse it hears itself (Lifeguard, 4.1).

use crate::limits;
use crate::member::Status;
use crate::message::Body;
use crate::swim::Swim;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::rng::Prng;
use bifro_core::time::{Instant, earlier};
use core::net::SocketAddr;

/// The probe under way.
#[derive(Debug)]
struct Probe {
    target: NodeId,
    address: SocketAddr,
    seq: u64,
    /// When others are asked; none once they are.
    ask_at: Option<Instant>,
    /// When it has failed.
    end: Instant,
    /// How many were asked, each of whom says at least that it is there itself.
    asked: u32,
    nacks: u32,
}

/// A probe for somebody else.
#[derive(Debug)]
struct Relay {
    origin: (NodeId, SocketAddr),
    seq: u64,
    /// When the origin is told that there is no answer yet; none once it was.
    nack_at: Option<Instant>,
    end: Instant,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Prober {
    /// Members in the order of this round, and how far it is.
    order: Vec<NodeId>,
    at: usize,
    /// When the next probe starts.
    next: Instant,
    current: Option<Probe>,
    relays: BTreeMap<u64, Relay>,
    seq: u64,
}

impl Prober {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { order: Vec::new(), at: 0, next: now, current: None, relays: BTreeMap::new(), seq: 0 }
    }

    /// A new member gets a place at random in what is left of the round.
    pub(crate) fn add(&mut self, id: NodeId, rng: &mut Prng) {
        let at = self.at + rng.below((self.order.len() - self.at + 1) as u64) as usize;
        self.order.insert(at, id);
    }

    /// Forgets what is under way.
    pub(crate) fn start_anew(&mut self, now: Instant) {
        self.current = None;
        self.relays.clear();
        self.next = now;
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let probe = match &self.current {
            Some(probe) => probe.ask_at.unwrap_or(probe.end).min(probe.end),
            None => self.next,
        };
        let relay = self.relays.values().map(|relay| relay.nack_at.unwrap_or(relay.end)).min();
        earlier(Some(probe), relay)
    }

    pub(crate) fn handle_nack(&mut self, seq: u64) {
        if let Some(probe) = self.current.as_mut().filter(|probe| probe.seq == seq) {
            probe.nacks += 1;
        }
    }

    const fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

impl Swim {
    /// Does what is due of the probes.
    pub(crate) fn probe(&mut self, now: Instant) {
        self.end_relays(now);
        match &mut self.prober.current {
            Some(probe) if probe.end <= now => self.fail_probe(now),
            Some(probe) if probe.ask_at.is_some_and(|at| at <= now) => self.ask_others(),
            _ => {}
        }
        if self.prober.current.is_none() && self.prober.next <= now {
            let slowness = self.local_health + 1;
            let end = now + self.config.probe_interval * slowness;
            self.prober.next = end;
            let Some((target, address)) = self.next_target() else { return };
            let (seq, ask_at) = (self.prober.next_seq(), Some(now + self.config.probe_timeout * slowness));
            self.prober.current = Some(Probe { target, address, seq, ask_at, end, asked: 0, nacks: 0 });
            self.send(Some(target), address, Body::Ping { seq });
        }
    }

    /// The next present member of the round, or the first of a new one.
    fn next_target(&mut self) -> Option<(NodeId, SocketAddr)> {
        for _ in 0..2 {
            while let Some(&id) = self.prober.order.get(self.prober.at) {
                self.prober.at += 1;
                if let Some(member) = self.members.get(&id).filter(|member| member.status.is_present()) {
                    return Some((id, member.announcement.address));
                }
            }
            let present = self.members.values().filter(|member| member.status.is_present());
            let mut order: Vec<NodeId> = present.map(|member| member.announcement.id).collect();
            for last in (1..order.len()).rev() {
                order.swap(last, self.rng.below(last as u64 + 1) as usize);
            }
            (self.prober.order, self.prober.at) = (order, 0);
        }
        None
    }

    /// No answer yet: others try, and so does this node once more.
    fn ask_others(&mut self) {
        let Some(probe) = &mut self.prober.current else { return };
        probe.ask_at = None;
        let (target, address, seq) = (probe.target, probe.address, probe.seq);
        let helpers = self.pick(self.config.indirect_probes, &[target]);
        if let Some(probe) = &mut self.prober.current {
            probe.asked = u32::try_from(helpers.len()).unwrap_or(u32::MAX);
        }
        for (id, at) in helpers {
            self.send(Some(id), at, Body::PingRequest { seq, target, address });
        }
        self.send(Some(target), address, Body::Ping { seq });
    }

    fn fail_probe(&mut self, now: Instant) {
        let Some(probe) = self.prober.current.take() else { return };
        // Those who were asked and did not even say that they are there: is it this node that hears nothing?
        let silent = if probe.asked == 0 { 1 } else { probe.asked.saturating_sub(probe.nacks) };
        self.feel_worse(silent);
        self.suspect(probe.target, self.me.id, now);
    }

    pub(crate) fn handle_ack(&mut self, seq: u64, now: Instant) {
        if self.prober.current.as_ref().is_some_and(|probe| probe.seq == seq) {
            self.prober.current = None;
            self.feel_better();
            // Whoever is well again is not slow for the rest of a long interval.
            self.prober.next = self.prober.next.min(now + self.config.probe_interval * (self.local_health + 1));
        } else if let Some(relay) = self.prober.relays.remove(&seq) {
            self.send(Some(relay.origin.0), relay.origin.1, Body::Ack { seq: relay.seq });
        }
    }

    /// Probes `target` for `origin`.
    pub(crate) fn relay(
        &mut self,
        origin: (NodeId, SocketAddr),
        seq: u64,
        (target, address): (NodeId, SocketAddr),
        now: Instant,
    ) {
        let suits = self.members.get(&origin.0).is_some_and(|member| member.status != Status::Left);
        if !suits || self.prober.relays.len() >= limits::RELAYED_PROBES {
            return;
        }
        let own = self.prober.next_seq();
        // In time for the origin to hear it before its probe has failed.
        let nack_at = Some(now + self.config.probe_timeout * 4 / 5);
        self.prober.relays.insert(own, Relay { origin, seq, nack_at, end: now + self.config.probe_interval });
        self.send(Some(target), address, Body::Ping { seq: own });
    }

    fn end_relays(&mut self, now: Instant) {
        self.prober.relays.retain(|_, relay| relay.end > now);
        let late: Vec<u64> = (self.prober.relays.iter())
            .filter(|(_, relay)| relay.nack_at.is_some_and(|at| at <= now))
            .map(|(&own, _)| own)
            .collect();
        for own in late {
            let Some(relay) = self.prober.relays.get_mut(&own) else { continue };
            relay.nack_at = None;
            let (origin, seq) = (relay.origin, relay.seq);
            self.send(Some(origin.0), origin.1, Body::Nack { seq });
        }
    }
}

#[cfg(test)]
impl Prober {
    /// As if the probe under way had been answered.
    pub(crate) fn end_for_test(&mut self, now: Instant) {
        self.current = None;
        self.next = now + core::time::Duration::from_secs(1);
    }

    /// Of the last probe.
    pub(crate) const fn seq_for_test(&self) -> u64 {
        self.seq
    }
}
