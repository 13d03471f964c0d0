//! The table at rest: a record per topic, keyed by tenant and topic. Tenants are named, since their numbers belong to one process.

use super::versions::{Version, is_cleared};
use super::{Entry, RetainTable, retained_bytes, round_up};
use crate::changes::Changes;
use crate::key::TenantKey;
use crate::record::{Reader, RecordError, Writer, read_client, read_message, write_client, write_message};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::keyed_hash;
use bifro_core::ports::RetainedMessage;
use bifro_core::tenant::TenantCtx;

/// Bytes of a topic that are in its key as they are; a base takes keys below 64 KiB.
const KEY_TOPIC_BYTES_MAX: usize = 4_096;

/// The record of a topic's new message, or that it was cleared: then the payload is empty.
pub(super) fn put(changes: &mut Changes, retained: &RetainedMessage, version: Version) {
    changes.put(&key_of(retained), false, |out| {
        let mut writer = Writer::begin(out);
        write_client(&mut writer, &retained.publisher);
        write_message(&mut writer, &retained.message);
        version.write(&mut writer);
    });
}

/// The topic has no message any more.
pub(super) fn delete(changes: &mut Changes, retained: &RetainedMessage) {
    changes.delete(&key_of(retained));
}

/// Tenant and topic, the tenant's length first. Of a long topic the beginning, and a hash of the whole.
fn key_of(retained: &RetainedMessage) -> Vec<u8> {
    let topic = retained.message.topic().as_bytes();
    let mut key = Vec::new();
    let mut writer = Writer::begin(&mut key);
    writer.bytes(retained.publisher.tenant.as_bytes());
    if topic.len() <= KEY_TOPIC_BYTES_MAX {
        writer.bytes(topic);
    } else {
        writer.bytes(&topic[..KEY_TOPIC_BYTES_MAX]);
        [0, 1].into_iter().for_each(|seed| writer.u64(keyed_hash(seed, &[topic])));
    }
    key
}

impl RetainTable {
    /// Takes a record over that an earlier process has left. It counts against the quota, but is not refused.
    ///
    /// # Errors
    /// If the bytes are not exactly one record; then nothing has changed.
    pub fn load(&mut self, record: &[u8], tenant: impl FnOnce(&str) -> Arc<TenantCtx>) -> Result<(), RecordError> {
        let mut reader = Reader::new(record)?;
        let publisher = read_client(&mut reader)?;
        let message = read_message(&mut reader)?;
        let version = Version::read(&mut reader)?;
        reader.finish()?;
        let tenant = tenant(&publisher.tenant);
        let retained = RetainedMessage { message, publisher };
        if is_cleared(&retained) {
            self.remember_cleared(tenant.idx, retained, version);
            return Ok(());
        }
        let bytes = retained_bytes(&retained.message);
        self.count_unasked(&tenant, retained.message.topic(), bytes);
        self.put(&tenant, retained, bytes, version);
        Ok(())
    }

    /// Puts a message that the quota has counted in its topic's place.
    pub(super) fn put(&mut self, tenant: &TenantCtx, retained: RetainedMessage, bytes: u64, version: Version) {
        let message = retained.message.clone();
        let deadline = message.view().expiry_at.map(round_up);
        let of = self.tenant_mut(tenant);
        let old = of.topics.insert(message.topic(), Entry { retained, bytes, version, deadline });
        let key = || TenantKey { tenant: tenant.idx, name: message.topic().into() };
        if !self.cleared.is_empty() {
            self.forget_cleared(&key());
        }
        if let Some(at) = old.as_ref().and_then(|old| old.deadline) {
            self.deadlines.clear(at, key());
        }
        if let Some(at) = deadline {
            self.deadlines.set(at, key());
        }
        self.messages += u64::from(old.is_none());
        self.bytes = self.bytes - old.map_or(0, |old| old.bytes) + bytes;
    }
}
