//! Publishes of QoS 1 that are tried again: whoever was to take them over has lost what it led, or was lost itself, and nobody knows whether
//! it did. Another leads by and by, so the publisher need not hear of it. A receiver may get such a message twice, as QoS 1 allows.
//!
//! Not those of QoS 2, which nobody may get twice; nor those that could not be retained, which is not tried again.

use super::Broker;
use super::publish::{Publisher, Scope};
use bifro_core::ids::{ReqId, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::ports::Services;
use bifro_core::time::Instant;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Until a publish is tried again: what was lost is noticed by then, or it is worth a try.
const PAUSE: Duration = Duration::from_millis(20);

/// What is needed to route a publish once more.
#[derive(Debug)]
pub(super) struct Again {
    tenant: TenantIdx,
    message: Arc<Message>,
}

/// Publishes that wait for another try, in the order in which they failed.
#[derive(Debug, Default)]
pub(super) struct Retries(VecDeque<(Instant, ReqId, Again)>);

impl Retries {
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.front().map(|(at, ..)| *at)
    }

    pub(super) fn push(&mut self, now: Instant, publish: ReqId, again: Again) {
        self.0.push_back((now + PAUSE, publish, again));
    }
}

impl<S: Services> Broker<S> {
    /// Keeps what another try needs, if this one may fail for want of a leader.
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
            self.publishes.keep(publish, || Again { tenant, message: message() });
        }
    }

    /// Routes those whose time has come once more, if their publishers still wait.
    pub(super) fn try_again(&mut self) {
        while let Some((_, publish, again)) = self.publishes.retries.0.pop_front_if(|(at, ..)| *at <= self.now) {
            if self.publishes.is_waiting(publish) {
                self.metrics.publishes_retried.add(1);
                let Again { tenant, message } = again;
                self.route_to(tenant, message.view(), None, Publisher::Entered(publish), Scope::Everywhere);
            }
        }
    }
}
