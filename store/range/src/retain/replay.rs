//! The table as a replayable machine: commands from a log in, changes of the records at rest out.
//!
//! Whether a message is admitted ([`RetainTable::set`]'s rates and quotas) depends on the whole node and is decided before a
//! command is proposed; a command in the log is carried out whatever the quota says by then, so that equal logs give equal
//! tables. The only time is the command's.

use super::{Entry, RetainTable, retained_bytes, round_up};
use crate::key::TenantKey;
use crate::limits::RETAINED_EXPIRED_PER_CALL_MAX;
use crate::record::{Reader, RecordError, Writer, read_client, read_message, write_client, write_message};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ports::RetainedMessage;
use bifro_core::settings::Resource;
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;

/// A mutation of the table, as it stands in the log. Tenants are named: their numbers belong to one process.
#[derive(Clone, Debug)]
pub enum RetainCommand {
    /// Store the message for its topic, or remove what is there if its payload is empty [MQTT-3.3.1-10].
    Set {
        /// When it was proposed.
        now: Instant,
        /// The message, and its publisher, in whose tenant the topic is.
        retained: RetainedMessage,
    },
    /// Remove what has expired, at most [`RETAINED_EXPIRED_PER_CALL_MAX`] messages.
    Expire {
        /// When it was proposed.
        now: Instant,
    },
}

/// A change of the records at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainChange {
    /// Of the record: tenant and topic, the tenant's length first.
    pub key: Vec<u8>,
    /// The record; none if there is none any more.
    pub value: Option<Vec<u8>>,
}

impl RetainCommand {
    /// The command's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Set { now, retained } => {
                writer.u8(1);
                writer.u64(now.as_micros());
                write_retained(&mut writer, retained);
            }
            Self::Expire { now } => {
                writer.u8(2);
                writer.u64(now.as_micros());
            }
        }
        writer.finish()
    }

    /// Reads a command.
    ///
    /// # Errors
    /// If the bytes are not exactly one command.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes)?;
        let command = match reader.u8()? {
            1 => Self::Set { now: reader.instant()?, retained: read_retained(&mut reader)? },
            2 => Self::Expire { now: reader.instant()? },
            _ => return Err(RecordError::Value("retain command")),
        };
        reader.finish()?;
        Ok(command)
    }
}

impl RetainTable {
    /// Carries out a command and appends what changes at rest. `tenant` finds a tenant by its name.
    pub fn apply(
        &mut self,
        command: &RetainCommand,
        tenant: impl FnOnce(&str) -> Arc<TenantCtx>,
        changes: &mut Vec<RetainChange>,
    ) {
        match command {
            RetainCommand::Set { now, retained } => {
                let view = retained.message.view();
                let tenant = tenant(&retained.publisher.tenant);
                let key = record_key(&tenant.name, view.topic);
                if view.payload.is_empty() || view.expiry_at.is_some_and(|at| at <= *now) {
                    if self.remove(tenant.idx, view.topic).is_some() {
                        changes.push(RetainChange { key, value: None });
                    }
                    return;
                }
                self.place(&tenant, retained.clone());
                changes.push(RetainChange { key, value: Some(record(retained)) });
            }
            RetainCommand::Expire { now } => {
                for _ in 0..RETAINED_EXPIRED_PER_CALL_MAX {
                    let Some(due) = self.deadlines.pop_due(*now) else { return };
                    if let Some(Entry { retained, .. }) = self.remove(due.tenant, &due.name) {
                        let key = record_key(&retained.publisher.tenant, &due.name);
                        changes.push(RetainChange { key, value: None });
                    }
                }
            }
        }
    }

    /// Takes over a record at rest: one value of a [`RetainChange`].
    ///
    /// # Errors
    /// If the bytes are not exactly one record; then nothing has changed.
    pub fn load(&mut self, record: &[u8], tenant: impl FnOnce(&str) -> Arc<TenantCtx>) -> Result<(), RecordError> {
        let mut reader = Reader::new(record)?;
        let retained = read_retained(&mut reader)?;
        reader.finish()?;
        if retained.message.payload().is_empty() {
            return Err(RecordError::Value("retained payload"));
        }
        let tenant = tenant(&retained.publisher.tenant);
        self.place(&tenant, retained);
        Ok(())
    }

    /// Puts a message in its place, and counts it against the quota without asking.
    fn place(&mut self, tenant: &TenantCtx, retained: RetainedMessage) {
        let bytes = retained_bytes(&retained.message);
        let held = self.tenants.get(&tenant.idx).and_then(|of| of.topics.get(retained.message.topic()));
        let held_bytes = held.map(|entry| entry.bytes);
        tenant.quota.recount(Resource::TotalRetainTopics, u64::from(held_bytes.is_some()), 1);
        tenant.quota.recount(Resource::TotalRetainMessageSpaceBytes, held_bytes.unwrap_or(0), bytes);
        self.put(tenant, retained, bytes);
    }

    /// Puts a message that the quota has counted in its topic's place.
    pub(super) fn put(&mut self, tenant: &TenantCtx, retained: RetainedMessage, bytes: u64) {
        let message = retained.message.clone();
        let deadline = message.view().expiry_at.map(round_up);
        let of = self.tenant_mut(tenant);
        let old = of.topics.insert(message.topic(), Entry { retained, bytes, deadline });
        let key = || TenantKey { tenant: tenant.idx, name: message.topic().into() };
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

fn record(retained: &RetainedMessage) -> Vec<u8> {
    let mut writer = Writer::new();
    write_retained(&mut writer, retained);
    writer.finish()
}

fn record_key(tenant: &str, topic: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(tenant.as_bytes());
    writer.bytes(topic.as_bytes());
    writer.finish()
}

fn write_retained(writer: &mut Writer, retained: &RetainedMessage) {
    write_client(writer, &retained.publisher);
    write_message(writer, &retained.message);
}

fn read_retained(reader: &mut Reader<'_>) -> Result<RetainedMessage, RecordError> {
    let publisher = read_client(reader)?;
    Ok(RetainedMessage { message: read_message(reader)?, publisher })
}
