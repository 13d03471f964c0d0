//! What operators see of the ranges of a shard, and want of them.

use super::RangeServices;
use super::ranges::Service;
use bifro_core::ids::{NodeId, RangeId, RangeIdx};
use bifro_core::ranges::{Held, RangeAnswer, RangeOrder, ReplicaReport};
use bifro_core::time::Instant;
use bifro_raft::{Membership, Poll, Term, TransferError};

impl RangeServices {
    pub(super) fn obey(&mut self, now: Instant, order: RangeOrder) -> RangeAnswer {
        let Some(range) = order.range() else { return RangeAnswer { replicas: self.report(now), refusal: None } };
        match range.parts() {
            // Another shard answers for it.
            Some((_, idx)) if self.home(idx) != self.shard => RangeAnswer::default(),
            Some((Service::Inbox, idx)) if idx.0 < self.ranges => RangeAnswer::of(match order {
                RangeOrder::Show => Ok(()),
                RangeOrder::Lead(_, to) => self.give_lead(now, idx, to),
                RangeOrder::Recover(_, newest) => self.recover_range(now, idx, newest),
            }),
            Some((Service::Retain, _)) => {
                RangeAnswer::of(Err(format!("{range}: each node leads its own copy of retained messages")))
            }
            _ => RangeAnswer::of(Err(format!("there is no range {range}"))),
        }
    }

    /// All replicas here.
    fn report(&self, now: Instant) -> Vec<ReplicaReport> {
        let mut reports = self.host.as_ref().map(|host| host.report(now)).unwrap_or_default();
        for report in &mut reports {
            report.held = self.held_in(report.range);
        }
        reports
    }

    /// What is in a range, if it is served here.
    fn held_in(&self, range: RangeId) -> Option<Held> {
        let (service, idx) = range.parts()?;
        let at = self.local(idx);
        match service {
            Service::Inbox => {
                let is_served = self.reigns.is_none() || self.states.get(at)?.leads();
                let totals = self.inboxes.get(at).filter(|_| is_served)?.machine.totals();
                Some(Held { sessions: totals.inboxes, messages: totals.messages, bytes: totals.bytes })
            }
            Service::Retain => {
                let machine = &self.retained.get(at)?.machine;
                Some(Held { sessions: 0, messages: machine.messages(), bytes: machine.bytes() })
            }
        }
    }

    /// Has a range led by a node: hands it over if this one leads it, keeps it if that node is this one.
    fn give_lead(&mut self, now: Instant, idx: RangeIdx, to: NodeId) -> Result<(), String> {
        let id = RangeId::of(Service::Inbox, idx);
        let alone = || "this node is alone: nobody else can lead its ranges".to_owned();
        let (Some(cluster), Some(host)) = (&mut self.cluster, &mut self.host) else { return Err(alone()) };
        let nobody = || format!("{} has no replica of {id}", cluster.nodes.me);
        let is_voter = host.membership(id).ok_or_else(nobody)?.is_voter(to);
        if !is_voter {
            return Err(format!("{to} is no voter of {id}: `bifroctl range show {id}` tells who is"));
        }
        let is_here = to == cluster.nodes.me;
        if !is_here && !cluster.nodes.lives(to) {
            return Err(format!("{to} does not live"));
        }
        let is_well = if is_here { !host.is_impaired() } else { cluster.nodes.is_well(to) };
        if !is_well {
            return Err(format!(
                "{to} is impaired, and would give {id} away at once: is its disk full, or does it stall?"
            ));
        }
        if is_here {
            cluster.kept.insert(idx);
            return Ok(());
        }
        cluster.kept.remove(&idx);
        match host.transfer_leadership(now, id, to) {
            // It was told before.
            Err(TransferError::NotLeader { leader: Some(leader) }) if leader == to => Ok(()),
            outcome => outcome.map_err(|error| format!("{id} is not handed over to {to}: {error}")),
        }
    }

    /// Goes on with a range alone. Whoever passes this on has seen that a majority of its voters has been declared lost; what this node knows
    /// must not say otherwise.
    fn recover_range(&mut self, now: Instant, idx: RangeIdx, newest: u64) -> Result<(), String> {
        let id = RangeId::of(Service::Inbox, idx);
        let alone = || "this node is alone: its ranges have no other replicas".to_owned();
        let (Some(cluster), Some(host)) = (&self.cluster, &mut self.host) else { return Err(alone()) };
        let (nodes, none) = (&cluster.nodes, Membership::default());
        let members = host.membership(id).unwrap_or(&none);
        if members.is_sole_voter(nodes.me) {
            // It was told before.
            return Ok(());
        }
        let lives = |node: NodeId| Some(node == nodes.me || nodes.lives(node));
        if members.poll(lives) == Poll::Won {
            return Err(format!(
                "{id} has a majority of its voters, as {} sees it: a leader comes by itself",
                nodes.me
            ));
        }
        // A replica that begins anew knows no terms; others hear no claim of one that is past.
        let heard = self.reigns.as_ref().map_or(0, |reigns| reigns.newest.term(idx));
        host.force(now, id, Term(newest.max(heard)))
    }
}
