//! Retained messages of one partition: the last one per topic [MQTT-3.3.1-5] [MQTT5-3.3.1-5].
//!
//! Invariants: a topic has at most one retained message, whose own topic is that topic; what a tenant's messages have taken
//! of its quotas is given back to the byte when they go. Expired messages are never handed out; the timer removes them.

mod find;
mod records;
#[cfg(test)]
mod records_tests;
#[cfg(test)]
mod tests;
mod versions;
#[cfg(test)]
mod versions_tests;

pub use find::FindLimits;
pub use versions::{Replica, Version};

use crate::changes::Changes;
use crate::deadlines::Deadlines;
use crate::key::{ReplyTo, TenantKey};
use crate::limits::{RETAINED_EXPIRED_PER_CALL_MAX, RETAINED_EXPIRY_GRAIN, RETAINED_OVERHEAD_BYTES};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::Client;
use bifro_core::ids::{NodeId, TenantIdx};
use bifro_core::message::Message;
use bifro_core::ports::{PortError, RetainedMessage};
use bifro_core::settings::{Quota, Resource};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::{Instant, earlier};
use bifro_mqtt::topic::TopicTree;
use hashbrown::HashMap;

/// What the table answers.
#[derive(Debug)]
pub enum RetainEffect {
    /// A message was set or cleared, or was not.
    Set {
        /// Who asked.
        to: ReplyTo,
        /// Refusal, if any.
        result: Result<(), PortError>,
    },
    /// A message was set or cleared, and other nodes are to hear of it.
    Changed {
        /// Who asked.
        to: ReplyTo,
        /// Tenant.
        tenant: TenantIdx,
        /// A [`Replica`], as bytes.
        replica: Vec<u8>,
    },
    /// What another node knows of a topic has been taken over, unless something newer was known.
    Merged {
        /// Who asked.
        to: ReplyTo,
    },
    /// A search is done.
    Found {
        /// Who asked.
        to: ReplyTo,
        /// What matched, by topic, within the limits.
        messages: Vec<RetainedMessage>,
    },
}

#[derive(Debug)]
struct Entry {
    retained: RetainedMessage,
    bytes: u64,
    version: Version,
    /// When the timer looks at it.
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct TenantRetained {
    topics: TopicTree<Entry>,
    quota: Arc<Quota>,
}

/// The retained messages of one partition.
#[derive(Debug, Default)]
pub struct RetainTable {
    tenants: HashMap<TenantIdx, TenantRetained>,
    deadlines: Deadlines<TenantKey>,
    /// Searches that did not fit one call, oldest first.
    finds: VecDeque<find::Find>,
    /// Who sets here, among several nodes that all have the same messages.
    me: Option<NodeId>,
    /// Topics that were cleared.
    cleared: HashMap<TenantKey, versions::Cleared>,
    cleared_deadlines: Deadlines<TenantKey>,
    /// What changes at rest; none where nothing is to be kept.
    changes: Option<Changes>,
    messages: u64,
    bytes: u64,
}

/// Bytes one retained message counts with in the tenant's quota.
pub const fn retained_bytes(message: &Message) -> u64 {
    message.footprint_bytes() as u64 + RETAINED_OVERHEAD_BYTES
}

impl RetainTable {
    /// An empty table that is forgotten with the process.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty table whose changes are to be written.
    pub fn durable() -> Self {
        Self { changes: Some(Changes::new()), ..Self::default() }
    }

    /// What has changed at rest and was not taken yet; none if nothing is to be kept.
    pub const fn changes(&mut self) -> Option<&mut Changes> {
        self.changes.as_mut()
    }

    /// Messages held.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of messages held.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Stores `message` for its topic in place of what was there, or removes what was there if the payload is empty
    /// [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7].
    ///
    /// # Errors
    /// [`PortError::QuotaExceeded`] if a quota or rate of the tenant is used up; then nothing has changed.
    pub fn set(
        &mut self,
        now: Instant,
        tenant: &TenantCtx,
        publisher: &Client,
        message: &Arc<Message>,
    ) -> Result<(), PortError> {
        let view = message.view();
        let version = self.next_version(now, tenant.idx, view.topic);
        let retained = RetainedMessage { message: message.clone(), publisher: publisher.clone() };
        if view.payload.is_empty() || view.expiry_at.is_some_and(|at| at <= now) {
            self.clear(tenant.idx, retained, version);
            return Ok(());
        }
        let bytes = retained_bytes(message);
        let within_rates = tenant.quota.spend(Resource::TotalRetainedMessagesPerSeconds, 1, now)
            && tenant.quota.spend(Resource::TotalRetainedBytesPerSecond, bytes, now);
        if !within_rates {
            return Err(PortError::QuotaExceeded);
        }
        let of = self.tenant_mut(tenant);
        let old_bytes = of.topics.get(view.topic).map(|entry| entry.bytes);
        if !take_space(&of.quota, old_bytes, bytes) {
            self.drop_if_idle(tenant.idx);
            return Err(PortError::QuotaExceeded);
        }
        if let Some(changes) = &mut self.changes {
            records::put(changes, &retained, version);
        }
        self.put(tenant, retained, bytes, version);
        Ok(())
    }

    /// When [`RetainTable::handle_timeout`] wants to be called next: at once if a search goes on.
    pub fn next_timeout(&self) -> Option<Instant> {
        if !self.finds.is_empty() {
            return Some(Instant::default());
        }
        earlier(self.deadlines.next(), self.cleared_deadlines.next())
    }

    /// Removes what has expired, at most [`RETAINED_EXPIRED_PER_CALL_MAX`] messages, and goes on with the oldest search.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<RetainEffect>) {
        for _ in 0..RETAINED_EXPIRED_PER_CALL_MAX {
            let Some(key) = self.deadlines.pop_due(now) else { break };
            self.remove(key.tenant, &key.name);
        }
        self.drop_due_cleared(now, RETAINED_EXPIRED_PER_CALL_MAX);
        if let Some(find) = self.finds.pop_front() {
            self.go_on(now, find, effects);
        }
    }

    fn tenant_mut(&mut self, tenant: &TenantCtx) -> &mut TenantRetained {
        (self.tenants.entry(tenant.idx))
            .or_insert_with(|| TenantRetained { topics: TopicTree::new(), quota: tenant.quota.clone() })
    }

    fn remove(&mut self, tenant: TenantIdx, topic: &str) -> Option<Entry> {
        let of = self.tenants.get_mut(&tenant)?;
        let entry = of.topics.remove(topic)?;
        if let Some(at) = entry.deadline {
            self.deadlines.clear(at, TenantKey { tenant, name: topic.into() });
        }
        of.quota.release(Resource::TotalRetainTopics, 1);
        of.quota.release(Resource::TotalRetainMessageSpaceBytes, entry.bytes);
        self.messages -= 1;
        self.bytes -= entry.bytes;
        if let Some(changes) = &mut self.changes {
            records::delete(changes, &entry.retained);
        }
        self.drop_if_idle(tenant);
        Some(entry)
    }

    fn drop_if_idle(&mut self, tenant: TenantIdx) {
        if self.tenants.get(&tenant).is_some_and(|of| of.topics.is_empty()) {
            self.tenants.remove(&tenant);
        }
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn validate(&self) {
        let (mut messages, mut bytes) = (0, 0);
        for of in self.tenants.values() {
            assert!(!of.topics.is_empty());
            for (topic, entry) in of.topics.iter() {
                assert_eq!(entry.retained.message.topic(), topic);
                assert!(!entry.retained.message.payload().is_empty());
                messages += 1;
                bytes += entry.bytes;
            }
        }
        assert_eq!((self.messages, self.bytes), (messages, bytes));
        for key in self.cleared.keys() {
            let held = self.tenants.get(&key.tenant).and_then(|of| of.topics.get(&key.name));
            assert!(held.is_none(), "{key:?} was cleared and has a message");
        }
    }
}

/// Takes what a topic's new message needs beyond its old one, or nothing.
fn take_space(quota: &Quota, old_bytes: Option<u64>, bytes: u64) -> bool {
    if old_bytes.is_none() && !quota.acquire(Resource::TotalRetainTopics, 1) {
        return false;
    }
    let before = old_bytes.unwrap_or(0);
    if !quota.acquire(Resource::TotalRetainMessageSpaceBytes, bytes.saturating_sub(before)) {
        if old_bytes.is_none() {
            quota.release(Resource::TotalRetainTopics, 1);
        }
        return false;
    }
    quota.release(Resource::TotalRetainMessageSpaceBytes, before.saturating_sub(bytes));
    true
}

/// The next multiple of the timer's grain.
fn round_up(at: Instant) -> Instant {
    let grain = RETAINED_EXPIRY_GRAIN.as_micros() as u64;
    Instant::from_micros(at.as_micros().div_ceil(grain).saturating_mul(grain))
}
