//! The same retained messages on every node: each node has all of them, and of two messages for a topic the one with the newer version stays.
//!
//! A version is the time of the node where the message was published, but newer than whatever that node has seen of the topic, and the node's
//! id: of what is published on two nodes at once, all choose the same. That a topic was cleared is remembered for
//! [`RETAINED_CLEARED_FOR`], so that a node which has not heard of it does not bring the message back.
//!
//! Two tables that differ are made equal by offering each other their versions ([`RetainTable::versions`], [`RetainTable::is_older`]) and
//! handing over what the other lacks ([`RetainTable::replica`], [`RetainTable::merge`]); in whatever order, and as often as one likes.

use super::{RetainTable, records, retained_bytes, round_up};
use crate::key::{TenantKey, TenantKeyRef};
use crate::limits::{RETAINED_CLEARED_FOR, RETAINED_CLEARED_MAX};
use crate::record::{
    Reader, RecordError, Writer, by_clock_here, read_client, read_message, write_client, write_message,
};
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, TenantIdx};
use bifro_core::message::MessageView;
use bifro_core::ports::RetainedMessage;
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;

/// Which of two messages for a topic is the later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Microseconds of Unix time, or more.
    pub at: u64,
    /// Where it was published.
    pub node: NodeId,
}

impl Version {
    /// Older than all others.
    pub const OLDEST: Self = Self { at: 0, node: NodeId(0) };

    pub(super) fn write(self, writer: &mut Writer<'_>) {
        writer.u64(self.at);
        writer.u64(self.node.0);
    }

    /// What a record ends with; those of older versions of this program end before it.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        if reader.is_at_end() {
            return Ok(Self::OLDEST);
        }
        Ok(Self { at: reader.u64()?, node: NodeId(reader.u64()?) })
    }
}

/// A topic without a message: who cleared it and when.
#[derive(Debug)]
pub(super) struct Cleared {
    pub(super) version: Version,
    /// The clearing message, with an empty payload.
    pub(super) retained: RetainedMessage,
    forget_at: Instant,
}

/// A topic's message, or that it was cleared, on its way to another node.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The message; an empty payload: it was cleared.
    pub retained: RetainedMessage,
    /// Its version.
    pub version: Version,
}

impl Replica {
    /// As bytes, for a node whose clock may be another: `now` goes along.
    pub fn encode(&self, now: Instant) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes);
        write_client(&mut writer, &self.retained.publisher);
        write_message(&mut writer, &self.retained.message);
        self.version.write(&mut writer);
        writer.u64(now.as_micros());
        bytes
    }

    /// What another node has sent, by this node's clock.
    ///
    /// # Errors
    /// If the bytes are not exactly that.
    pub fn decode(bytes: &[u8], now: Instant) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes)?;
        let (publisher, message) = (read_client(&mut reader)?, read_message(&mut reader)?);
        let version = Version::read(&mut reader)?;
        let sent_at = reader.instant()?;
        reader.finish()?;
        let message = by_clock_here(message.view(), sent_at, now);
        Ok(Self { retained: RetainedMessage { message, publisher }, version })
    }
}

impl RetainTable {
    /// From now on what is set and cleared has `me` in its version, and what was cleared is remembered.
    pub fn replicate(&mut self, me: NodeId) {
        self.me = Some(me);
    }

    /// The version of what is known of a topic; none if nothing is.
    pub fn version(&self, tenant: TenantIdx, topic: &str) -> Option<Version> {
        let held = self.tenants.get(&tenant).and_then(|of| of.topics.get(topic)).map(|entry| entry.version);
        held.or_else(|| self.cleared.get(&TenantKeyRef { tenant, name: topic }).map(|cleared| cleared.version))
    }

    /// The version of a message that is published here now.
    pub(super) fn next_version(&self, now: Instant, tenant: TenantIdx, topic: &str) -> Version {
        let seen = self.version(tenant, topic).unwrap_or(Version::OLDEST);
        Version { at: now.as_micros().max(seen.at + 1), node: self.me.unwrap_or(NodeId(0)) }
    }

    /// Whether what is known of a topic is older than `version`.
    pub fn is_older(&self, tenant: TenantIdx, topic: &str, version: Version) -> bool {
        self.version(tenant, topic).is_none_or(|known| known < version)
    }

    /// Everything that is known, by tenant and topic.
    pub fn versions(&self) -> impl Iterator<Item = (TenantIdx, &str, Version)> {
        let held = self
            .tenants
            .iter()
            .flat_map(|(&tenant, of)| of.topics.iter().map(move |(topic, entry)| (tenant, topic, entry.version)));
        let cleared = self.cleared.iter().map(|(key, cleared)| (key.tenant, &*key.name, cleared.version));
        held.chain(cleared)
    }

    /// What is known of a topic, for another node.
    pub fn replica(&self, tenant: TenantIdx, topic: &str) -> Option<Replica> {
        let held = self.tenants.get(&tenant).and_then(|of| of.topics.get(topic));
        let held = held.map(|entry| Replica { retained: entry.retained.clone(), version: entry.version });
        held.or_else(|| {
            let cleared = self.cleared.get(&TenantKeyRef { tenant, name: topic })?;
            Some(Replica { retained: cleared.retained.clone(), version: cleared.version })
        })
    }

    /// Takes over what another node knows of a topic, if it is newer. It counts against the quotas, and is never refused: where
    /// it was published it was within them.
    pub fn merge(&mut self, now: Instant, tenant: &TenantCtx, replica: Replica) {
        let Replica { retained, version } = replica;
        let message = retained.message.clone();
        let view = message.view();
        if !self.is_older(tenant.idx, view.topic, version) {
            return;
        }
        if view.payload.is_empty() || view.expiry_at.is_some_and(|at| at <= now) {
            self.clear(tenant.idx, retained, version);
            return;
        }
        let bytes = retained_bytes(&message);
        self.count_unasked(tenant, view.topic, bytes);
        if let Some(changes) = &mut self.changes {
            records::put(changes, &retained, version);
        }
        self.put(tenant, retained, bytes, version);
    }

    /// Counts a topic's message that is not refused whatever the quotas say.
    pub(super) fn count_unasked(&self, tenant: &TenantCtx, topic: &str, bytes: u64) {
        let held = self.tenants.get(&tenant.idx).and_then(|of| of.topics.get(topic)).map(|entry| entry.bytes);
        tenant.quota.recount(Resource::TotalRetainTopics, u64::from(held.is_some()), 1);
        tenant.quota.recount(Resource::TotalRetainMessageSpaceBytes, held.unwrap_or(0), bytes);
    }

    /// The topic has no message from now on.
    pub(super) fn clear(&mut self, tenant: TenantIdx, retained: RetainedMessage, version: Version) {
        let topic = retained.message.clone();
        let topic = topic.topic();
        self.remove(tenant, topic);
        if self.me.is_none() {
            return;
        }
        // Whatever of the message is not needed to say that it was cleared is left out.
        let view = MessageView { topic, properties: &[], payload: &[], expiry_at: None, ..retained.message.view() };
        let retained = RetainedMessage { message: view.to_message(), publisher: retained.publisher };
        if let Some(changes) = &mut self.changes {
            records::put(changes, &retained, version);
        }
        self.remember_cleared(tenant, retained, version);
    }

    pub(super) fn remember_cleared(&mut self, tenant: TenantIdx, retained: RetainedMessage, version: Version) {
        let key = TenantKey { tenant, name: retained.message.topic().into() };
        let forget_at = round_up(Instant::from_micros(version.at) + RETAINED_CLEARED_FOR);
        self.forget_cleared(&key);
        self.cleared_deadlines.set(forget_at, key.clone());
        self.cleared.insert(key, Cleared { version, retained, forget_at });
        if self.cleared.len() > RETAINED_CLEARED_MAX
            && let Some(oldest) = self.cleared_deadlines.pop_first()
        {
            self.drop_cleared(&oldest);
        }
    }

    /// The topic has a message again, or another clearing; what is at rest is written over.
    pub(super) fn forget_cleared(&mut self, key: &TenantKey) -> Option<Cleared> {
        let cleared = self.cleared.remove(key)?;
        self.cleared_deadlines.clear(cleared.forget_at, key.clone());
        Some(cleared)
    }

    /// Nobody who might bring the message back is expected any more.
    fn drop_cleared(&mut self, key: &TenantKey) {
        let Some(cleared) = self.forget_cleared(key) else { return };
        if let Some(changes) = &mut self.changes {
            records::delete(changes, &cleared.retained);
        }
    }

    /// Forgets clearings that are long ago.
    pub(super) fn drop_due_cleared(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(key) = self.cleared_deadlines.pop_due(now) else { return };
            self.drop_cleared(&key);
        }
    }

    /// Topics that are remembered to be without a message.
    pub fn cleared(&self) -> usize {
        self.cleared.len()
    }
}

/// Whether a record that was read says that its topic was cleared.
pub(super) fn is_cleared(retained: &RetainedMessage) -> bool {
    retained.message.payload().is_empty()
}
