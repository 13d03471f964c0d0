//! What must be true some time after healing: everybody knows everybody, every range has one leader whom all know, everything is answered and received, and
//! all nodes have the same retained messages.

use super::super::cluster::Simulation;
use super::super::node::Process;
use super::super::options::{DRAINED_WITHIN, LED_WITHIN, MEMBERS_WITHIN};
use super::super::publisher::Publisher;
use super::super::talk::{ConnId, Mark, TOPICS};
use crate::queue::Moment;
use bifro_core::ports::Services;
use bifro_swim::Status;
use std::collections::BTreeMap;

/// What has been seen to be true since the episode was healed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    members: bool,
    led: bool,
    /// Since when at the latest, as far as it was looked.
    pub(crate) led_since: Option<Moment>,
    drained: bool,
    /// Everything is as it should be.
    pub(crate) all: bool,
}

impl Simulation {
    /// Looks what is true by now; what is not true in time is a violation.
    pub(crate) fn look(&mut self, healed: Moment) {
        let since = self.world.queue.now().since(healed);
        let mut seen = self.seen;
        if !seen.members {
            let lacking = self.lacking_members();
            seen.members = lacking.is_none();
            assert!(seen.members || since < MEMBERS_WITHIN, "{} after {MEMBERS_WITHIN:?}", lacking.unwrap_or_default());
        }
        if seen.members && !seen.led {
            let lacking = self.lacking_leaders();
            seen.led = lacking.is_none();
            if seen.led {
                seen.led_since = Some(self.now());
            }
            if !seen.led && since >= LED_WITHIN {
                self.tell_standings();
            }
            assert!(seen.led || since < LED_WITHIN, "{} after {LED_WITHIN:?}", lacking.unwrap_or_default());
        }
        if seen.led && !self.clients_begin && !seen.drained {
            seen.drained = self.is_drained();
            assert!(seen.drained || since < DRAINED_WITHIN, "{} after {DRAINED_WITHIN:?}", self.what_is_left());
            if seen.drained {
                self.look_for_retained();
            }
        } else if seen.drained && !seen.all {
            let differing = self.differing_retained();
            seen.all = differing.is_none();
            assert!(seen.all || since < DRAINED_WITHIN, "{} after {DRAINED_WITHIN:?}", differing.unwrap_or_default());
            self.look_for_retained();
        }
        self.seen = seen;
    }

    fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.process.as_ref()?)))
    }

    fn lacking_members(&self) -> Option<String> {
        for (at, process) in self.processes() {
            for (other, node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != at) {
                let boot = node.process.as_ref().map(|process| process.boot);
                let member = process.swim.member(node.id);
                let knows = |member: &&bifro_swim::Member| {
                    member.status == Status::Alive && Some(member.announcement.nonce) == boot
                };
                if member.filter(knows).is_none() {
                    return Some(format!("n{at} does not know that n{other} lives: it has {member:?}"));
                }
            }
        }
        None
    }

    fn lacking_leaders(&self) -> Option<String> {
        let mut led = 0;
        for (at, process) in self.processes() {
            for (index, shard) in process.shards.iter().enumerate() {
                if !shard.services.is_complete() {
                    return Some(format!("shard {index} of n{at} misses claims: {}", shard.services.standing()));
                }
                let unheard = shard.services.unheard_nodes();
                if !unheard.is_empty() {
                    let standing = shard.services.standing();
                    return Some(format!("shard {index} of n{at} has not heard {unheard:?}: {standing}"));
                }
            }
            led += process.metrics.iter().map(|metrics| metrics.ranges_led.read()).sum::<u64>();
        }
        let ranges = u64::from(self.world.settings.ranges);
        (led != ranges).then(|| format!("{led} leaders for {ranges} ranges"))
    }

    fn tell_standings(&self) {
        for (at, process) in self.processes() {
            for (index, shard) in process.shards.iter().enumerate() {
                self.world.tell(|| format!("shard {index} of n{at}: {}", shard.services.standing()));
            }
        }
    }

    fn queued(&self) -> u64 {
        let metrics = self.processes().flat_map(|(_, process)| &process.metrics);
        metrics.map(|metrics| metrics.inbox_messages.read()).sum()
    }

    fn is_drained(&self) -> bool {
        let answered = self.publishers.iter().all(Publisher::is_idle);
        let live = self.subscribers.iter().all(super::super::subscriber::Subscriber::is_live);
        answered && live && self.checks.delivery.is_all_received() && self.unheard().is_none() && self.queued() == 0
    }

    /// What somebody without a session misses.
    fn unheard(&self) -> Option<(ConnId, Mark)> {
        self.seen.led_since.and_then(|since| self.checks.delivery.unheard(since))
    }

    fn what_is_left(&self) -> String {
        self.checks.delivery.check_all_received();
        let unanswered: Vec<Mark> = self.publishers.iter().flat_map(|publisher| publisher.waits_for()).collect();
        let away = self.subscribers.iter().filter(|subscriber| !subscriber.is_live()).count();
        self.tell_standings();
        let (unheard, queued) = (self.unheard(), self.queued());
        format!(
            "{unanswered:?} not answered, {away} subscribers away, {queued} messages queued, without a session {unheard:?} was not heard"
        )
    }

    fn look_for_retained(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(shard) = self.nodes[node].process.as_mut().and_then(|process| process.shards.first_mut()) {
                shard.look_for_retained();
            }
            self.wake(node, 0);
        }
    }

    fn differing_retained(&self) -> Option<String> {
        let mut first: Option<BTreeMap<&str, Mark>> = None;
        for (at, process) in self.processes() {
            let Some(retained) = &process.shards[0].retained else { return Some(format!("n{at} does not answer")) };
            let held: BTreeMap<&str, Mark> =
                retained.iter().map(|held| (held.message.topic(), Mark::of(&held.message))).collect();
            assert!(held.keys().all(|topic| TOPICS.contains(topic)), "n{at} retains what nobody set: {held:?}");
            match &first {
                Some(first) if *first != held => return Some(format!("n{at} retains {held:?}, n0 {first:?}")),
                Some(_) => {}
                None => first = Some(held),
            }
        }
        None
    }
}
