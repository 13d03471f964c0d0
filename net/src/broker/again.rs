//! Publishes of QoS 1 that are tried again: whoever was to take them over has lost what it led, or was lost itself, and nobody knows whether
//! it did. Another leads by and by, so the publisher need not hear of it. A receiver may get such a message twice, as QoS 1 allows.
//!
//! Of QoS 2 only those that ranges recognise ([`super::exactly_once`]), and of them only what may have failed: this shard's connections have the message. Not those that could not be
//! retained, which is not tried again.
//!
//! # How they keep their order
//! [MQTT-4.6.0-6] [MQTT5-4.6.0-5]: what one client publishes to one topic reaches each subscriber in that order. As soon as a part of a publish has failed, so that it will be
//! tried again, what the same client publishes to the same topic afterwards stands in *line* behind it: it is not routed before. Those that were
//! routed before that fail with it or were taken over by the same leaders, since a leader takes nothing that was sent before its sender
//! knew of its reign (`bifro_store::services`, `reigns.rs`), and when the sender hears of it whatever was on its way has failed. Publishes of a line are tried
//! in the order in which they were published, by their numbers.
//!
//! What stands in line counts against the shard's memory budget, and ends at its deadline like any publish.

use super::Broker;
use super::completion::Awaited;
use super::publish::{Parts, PublishTable, Publisher, Scope, Waiter};
use bifro_core::ids::{PublisherKey, ReqId, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::{Matches, PortError, Services};
use bifro_core::time::Instant;
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Until a publish is tried again: what was lost is noticed by then, or it is worth a try.
const PAUSE: Duration = Duration::from_millis(20);

/// What is needed to route a publish once more.
#[derive(Debug)]
pub(super) struct Again {
    tenant: TenantIdx,
    message: Arc<Message>,
    /// To whom.
    pub(super) parts: Parts,
    /// It was not routed yet.
    is_first: bool,
}

/// Whose messages to which topic keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line(TenantIdx, PublisherKey, Arc<str>);

/// The line that a publish stands in.
pub(super) fn line_of(again: &Again) -> Line {
    let view = again.message.view();
    Line(again.tenant, view.publisher, view.topic.into())
}

/// Publishes that wait for another try, and those behind them.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// In the order in which they were published; none: it waits for its other parts.
    lines: HashMap<Line, BTreeMap<ReqId, Option<Again>>>,
    /// When each line is looked at next.
    due: VecDeque<(Instant, Line)>,
    /// Of their messages.
    bytes: u64,
}

impl Retries {
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.front().map(|(at, _)| *at)
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.bytes == 0
    }

    /// Whether a message is to wait behind another one.
    pub(super) fn concern(&self, tenant: TenantIdx, view: &MessageView<'_>) -> bool {
        view.qos != QoS::AtMostOnce
            && !self.lines.is_empty()
            && self.lines.contains_key(&Line(tenant, view.publisher, view.topic.into()))
    }

    /// A publish will be tried again once its other parts are done.
    pub(super) fn hold(&mut self, now: Instant, line: Line, publish: ReqId) {
        self.enter(now, line, publish, None);
    }

    /// It can be.
    pub(super) fn push(&mut self, now: Instant, publish: ReqId, again: Again) {
        self.bytes += again.message.footprint_bytes() as u64;
        self.enter(now, line_of(&again), publish, Some(again));
    }

    fn enter(&mut self, now: Instant, line: Line, publish: ReqId, again: Option<Again>) {
        if !self.lines.contains_key(&line) {
            self.due.push_back((now + PAUSE, line.clone()));
        }
        self.lines.entry(line).or_default().insert(publish, again);
    }

    /// Whether a publish stands in a line.
    fn has(&self, line: &Line, publish: ReqId) -> bool {
        self.lines.get(line).is_some_and(|publishes| publishes.contains_key(&publish))
    }

    /// Whether nobody stands in a line any more: then there is none.
    fn is_over(&mut self, line: &Line) -> bool {
        let is_over = self.lines.get(line).is_none_or(BTreeMap::is_empty);
        if is_over {
            self.lines.remove(line);
        }
        is_over
    }

    /// The first of a line, unless it waits for its other parts. Those for which nobody `waits` any more are left out. The line stays, also without any, until
    /// [`Self::is_over`] is asked.
    fn next_of(&mut self, line: &Line, waits: impl Fn(ReqId) -> bool) -> Option<(ReqId, Again)> {
        let publishes = self.lines.get_mut(line)?;
        let mut next = None;
        while let Some(first) = publishes.first_entry() {
            let publish = *first.key();
            if !waits(publish) {
                let left = first.remove();
                self.bytes -= left.map_or(0, |again| again.message.footprint_bytes() as u64);
                continue;
            }
            if first.get().is_some() {
                next = first.remove().map(|again| (publish, again));
            }
            break;
        }
        self.bytes -= next.as_ref().map_or(0, |(_, again)| again.message.footprint_bytes() as u64);
        next
    }
}

impl PublishTable {
    /// Keeps what another try needs, if the publish has `parts` at least, its match among them, and has not failed in one.
    fn keep(&mut self, publish: ReqId, parts: u32, again: impl FnOnce() -> Again) {
        let waiting = self.waiting.get_mut(&publish);
        if let Some(waiting) = waiting.filter(|waiting| waiting.parts >= parts && waiting.failed.is_none()) {
            waiting.again = Some(Box::new(again()));
        }
    }

    /// Another try would not do what has failed.
    pub(super) fn give_up_tries(&mut self, publish: ReqId) {
        if let Some(waiting) = self.waiting.get_mut(&publish) {
            waiting.again = None;
        }
    }
}

impl<S: Services> Broker<S> {
    /// Keeps what another try of a QoS 2 publish needs, before a part of it can fail.
    pub(super) fn keep_exchange(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        owned: &mut Option<Arc<Message>>,
        matches: &Matches,
        publisher: Publisher,
    ) {
        let Publisher::Entered(publish) = publisher else { return };
        // Without other nodes nothing is lost; but which groups have it may have to be asked.
        let may_be_tried = self.services.peek().is_replicated() || !matches.groups.is_empty();
        if may_be_tried && !matches.is_empty() && self.publishes.is_exchange(publish) {
            let message = owned.get_or_insert_with(|| view.to_message()).clone();
            self.publishes.keep(publish, 1, || Again { tenant, message, parts: Parts::NOTED, is_first: false });
        }
    }

    /// Keeps what another try of a QoS 1 publish needs, if parts of it are under way that may fail for want of a leader.
    pub(super) fn keep_for_another_try(
        &mut self,
        tenant: TenantIdx,
        view: &MessageView<'_>,
        owned: Option<Arc<Message>>,
        publisher: Publisher,
    ) {
        let Publisher::Entered(publish) = publisher else { return };
        if view.qos == QoS::AtLeastOnce && self.services.peek().is_replicated() {
            let message = || owned.unwrap_or_else(|| view.to_message());
            let again = || Again { tenant, message: message(), parts: Parts::ALL, is_first: false };
            self.publishes.keep(publish, 2, again);
        }
    }

    /// A message waits behind one that is to be tried again.
    pub(super) fn wait_in_line(
        &mut self,
        tenant: TenantIdx,
        message: Arc<Message>,
        parts: Parts,
        publisher: Publisher,
    ) {
        if let Publisher::Entered(publish) = publisher {
            self.publishes.retries.push(self.now, publish, Again { tenant, message, parts, is_first: true });
        }
    }

    /// Routes those once more whose time has come, and those behind them, if their publishers still wait.
    pub(super) fn try_again(&mut self) {
        let now = self.now;
        while let Some((_, line)) = self.publishes.retries.due.pop_front_if(|(at, _)| *at <= now) {
            loop {
                let PublishTable { retries, waiting, .. } = &mut self.publishes;
                let next = retries.next_of(&line, |publish| waiting.contains_key(&publish));
                let Some((publish, again)) = next else { break };
                if self.is_routed_no_more(Publisher::Entered(publish)) {
                    continue;
                }
                let Again { tenant, message, parts, is_first } = again;
                self.metrics.publishes_retried.add(u64::from(!is_first));
                let (publisher, scope) = (Publisher::Entered(publish), Scope::Everywhere(parts));
                self.route_in_order(tenant, message.view(), Some(message.clone()), publisher, scope);
                if self.publishes.retries.has(&line, publish) {
                    // It has failed at once, and would do so again.
                    break;
                }
            }
            if !self.publishes.retries.is_over(&line) {
                self.publishes.retries.due.push_back((now + PAUSE, line));
            }
        }
    }

    /// Whether a publish was said to have failed while it waited, or fails now since its client has left. The client may repeat it, or uses its identifier for
    /// another message: it must not be stored any more, least of all without its origin.
    pub(super) fn is_routed_no_more(&mut self, publisher: Publisher) -> bool {
        let Publisher::Entered(publish) = publisher else { return false };
        let Some(waiting) = self.publishes.waiting.get(&publish) else { return true };
        let is_left = waiting.is_exchange() && self.has_left(waiting.waiter);
        if is_left {
            self.publish_part_done(publish, Err(PortError::Unavailable));
        }
        is_left
    }

    /// Nobody knows whether inboxes here will have what is on its way to them.
    pub(super) fn insertions_lost(&mut self) {
        let waiting = &self.publishes.waiting;
        let is_retried = |publish: &ReqId| waiting.get(publish).is_some_and(|waiting| waiting.again.is_some());
        let lost = self.requests.extract_if(|_, awaited| matches!(awaited, Awaited::PublishPart(of) if is_retried(of)));
        for (_, awaited) in lost.collect::<Vec<_>>() {
            if let Awaited::PublishPart(publish) = awaited {
                self.publish_part_done(publish, Err(PortError::Unavailable));
            }
        }
    }

    /// A message of another node came before this one led what it is for. The other node hears it, and tries again.
    pub(super) fn refuse_late(&mut self, mut publisher: Publisher) {
        if let Some(Waiter::Node(node, shard, publish)) = self.take_waiter(&mut publisher) {
            self.answer(node, shard, publish, Err(super::frames::Refusal::Port(PortError::Unavailable)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(payload: &'static [u8]) -> Again {
        let view = MessageView {
            topic: "t",
            properties: &[],
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            expiry_at: None,
            publisher: PublisherKey(1),
        };
        Again { tenant: TenantIdx(0), message: view.to_message(), parts: Parts::ALL, is_first: true }
    }

    #[test]
    fn what_was_published_behind_one_that_is_tried_again_waits_for_it_and_for_nobody_who_has_gone() {
        let (mut retries, now) = (Retries::default(), Instant::from_micros(1));
        let (third, line) = (again(b"3"), line_of(&again(b"")));
        retries.hold(now, line.clone(), ReqId(2));
        assert!(retries.concern(TenantIdx(0), &third.message.view()));
        let other = MessageView { topic: "u", ..third.message.view() };
        assert!(!retries.concern(TenantIdx(0), &other), "another topic has its own order");
        retries.push(now, ReqId(3), third);
        retries.hold(now, line.clone(), ReqId(1));
        assert!(retries.next_of(&line, |_| true).is_none(), "the first waits for its other parts");
        assert_eq!(retries.next_at(), Some(now + PAUSE));
        retries.push(now, ReqId(1), again(b"1"));
        let tried = retries.next_of(&line, |_| true).map(|(publish, _)| publish);
        assert_eq!(tried, Some(ReqId(1)));
        assert!(retries.next_of(&line, |_| true).is_none(), "so does the second");
        // Its publisher has heard meanwhile that it failed.
        let tried = retries.next_of(&line, |publish| publish != ReqId(2)).map(|(publish, _)| publish);
        assert_eq!(tried, Some(ReqId(3)));
        assert!(retries.concern(TenantIdx(0), &again(b"").message.view()), "while the third is routed");
        assert!(retries.is_over(&line) && retries.is_empty());
    }

    #[test]
    fn what_fails_while_it_is_routed_stands_in_its_line_and_has_it_looked_at_once() {
        let (mut retries, now) = (Retries::default(), Instant::from_micros(1));
        let line = line_of(&again(b""));
        retries.push(now, ReqId(1), again(b"1"));
        retries.due.clear();
        for _ in 0..3 {
            assert!(retries.next_of(&line, |_| true).is_some() && !retries.has(&line, ReqId(1)));
            retries.hold(now, line.clone(), ReqId(1));
            retries.push(now, ReqId(1), again(b"1"));
            assert!(retries.has(&line, ReqId(1)) && !retries.is_over(&line));
        }
        assert!(retries.due.is_empty(), "whoever looks at a line says when that is next");
        assert_eq!(retries.bytes(), again(b"1").message.footprint_bytes() as u64);
    }
}
