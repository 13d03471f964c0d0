//! What a shard hands to the log in one turn.

use protobuf::well_known_types::BytesValue;
use std::fmt;

/// A Raft group on this node. Zero is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u64);

/// Names one small record of a group; records live beside its entries, are kept in memory and survive compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record(pub u8);

impl Record {
    /// Term, vote and commit index: Raft's hard state.
    pub const HARD_STATE: Self = Self(0);
}

/// Bytes of the index before the payload.
const INDEX_BYTES: usize = 8;

/// One log entry: its index and bytes that only the group's owner understands.
#[derive(Clone, PartialEq)]
pub struct WalEntry(pub(super) BytesValue);

impl WalEntry {
    /// Copies the payload.
    pub fn new(index: u64, payload: &[u8]) -> Self {
        Self::of_parts(index, &[payload])
    }

    /// Copies the payload, which is these parts one after the other.
    pub fn of_parts(index: u64, parts: &[&[u8]]) -> Self {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut framed = Vec::with_capacity(INDEX_BYTES + bytes);
        framed.extend_from_slice(&index.to_le_bytes());
        parts.iter().for_each(|part| framed.extend_from_slice(part));
        let mut message = BytesValue::new();
        message.value = framed;
        Self(message)
    }

    /// From what the engine read.
    ///
    /// # Errors
    /// If it is too short to hold an index.
    pub(super) fn from_stored(message: BytesValue) -> Result<Self, &'static str> {
        if message.value.len() < INDEX_BYTES { Err("an entry without an index") } else { Ok(Self(message)) }
    }

    /// Its place in the group's log.
    pub fn index(&self) -> u64 {
        index_of(&self.0)
    }

    /// What was given to [`Self::new`].
    pub fn payload(&self) -> &[u8] {
        &self.0.value[INDEX_BYTES..]
    }
}

impl fmt::Debug for WalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WalEntry({}, {} bytes)", self.index(), self.payload().len())
    }
}

/// The index of a framed entry; zero for bytes too short to hold one (an index no log has).
pub(super) fn index_of(message: &BytesValue) -> u64 {
    message.value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// One step of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Entries with consecutive indexes; what the log has from the first of them on is replaced.
    Append { group: GroupId, entries: Vec<BytesValue>, bytes: usize },
    /// A record is set.
    Put { group: GroupId, record: Record, value: Vec<u8> },
    /// Entries below `first_kept` go.
    Compact { group: GroupId, first_kept: u64 },
    /// Entries and records go.
    Delete { group: GroupId },
}

/// Steps that become durable together: after a crash either all of a batch is there or none of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalBatch {
    pub(super) steps: Vec<Step>,
    bytes: usize,
}

/// What a step costs beside its bytes, as counted against the queue's limit.
const STEP_BYTES: usize = 64;

/// What an entry costs beside its payload.
const ENTRY_BYTES: usize = 32;

impl WalBatch {
    /// Appends entries. If the log reaches to or beyond the first of them, its conflicting tail is replaced.
    ///
    /// # Panics
    /// If the indexes are not consecutive.
    pub fn append(&mut self, group: GroupId, entries: Vec<WalEntry>) {
        let Some(first) = entries.first().map(WalEntry::index) else { return };
        let consecutive = entries.iter().zip(first..).all(|(entry, index)| entry.index() == index);
        assert!(consecutive, "the entries of an append follow each other");
        let bytes: usize = entries.iter().map(|entry| entry.0.value.len() + ENTRY_BYTES).sum();
        self.bytes += bytes + STEP_BYTES;
        let entries = entries.into_iter().map(|entry| entry.0).collect();
        self.steps.push(Step::Append { group, entries, bytes });
    }

    /// Sets a record.
    pub fn put_record(&mut self, group: GroupId, record: Record, value: Vec<u8>) {
        self.bytes += value.len() + STEP_BYTES;
        self.steps.push(Step::Put { group, record, value });
    }

    /// Drops the entries below `first_kept`. If that is all of them, the next append may begin anywhere.
    pub fn compact_to(&mut self, group: GroupId, first_kept: u64) {
        self.bytes += STEP_BYTES;
        self.steps.push(Step::Compact { group, first_kept });
    }

    /// Drops entries and records; the group may begin anew, in the same batch even.
    pub fn delete_group(&mut self, group: GroupId) {
        self.bytes += STEP_BYTES;
        self.steps.push(Step::Delete { group });
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// About what it occupies in memory and will on disk.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
