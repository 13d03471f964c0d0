//! How Raft's entries and small records stand in the log, and in frames to peers. What is read comes from a disk or from a peer: whatever
//! does not fit is `None`.

use crate::wal::{Record, WalEntry};
use bifro_core::ids::NodeId;
use bifro_raft::{Entry, EntryKind, HardState, Index, LogId, Membership, SnapshotMeta, Term};
use bytes::Bytes;

/// What the log's first entry follows, after compaction.
pub(super) const LOG_START: Record = Record(1);

const NOOP: u8 = 0;
const DATA: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// An entry as the log holds it: term, kind, content. The log adds the index.
pub(super) fn to_wal(entry: &Entry) -> WalEntry {
    with_parts(entry, |parts| WalEntry::of_parts(entry.id.index.0, parts))
}

pub(super) fn from_wal(entry: &WalEntry) -> Option<Entry> {
    read_entry(entry.index(), entry.payload())
}

/// Appends what the log holds of an entry.
pub(super) fn write_entry(out: &mut Vec<u8>, entry: &Entry) {
    with_parts(entry, |parts| parts.iter().for_each(|part| out.extend_from_slice(part)));
}

fn with_parts<T>(entry: &Entry, take: impl FnOnce(&[&[u8]]) -> T) -> T {
    let (kind, content) = match &entry.kind {
        EntryKind::Noop => (NOOP, &[][..]),
        EntryKind::Data(data) => (DATA, &data[..]),
        EntryKind::Membership(membership) => (MEMBERSHIP, &write_membership(Vec::new(), membership)[..]),
    };
    take(&[&entry.id.term.0.to_le_bytes(), &[kind], content])
}

/// The entry at `index` from what [`write_entry`] wrote: all of `bytes`.
pub(super) fn read_entry(index: u64, bytes: &[u8]) -> Option<Entry> {
    let mut reader = Reader(bytes);
    let term = reader.u64()?;
    let kind = match reader.u8()? {
        NOOP => EntryKind::Noop,
        DATA => EntryKind::Data(Bytes::copy_from_slice(reader.rest())),
        MEMBERSHIP => EntryKind::Membership(reader.membership()?),
        _ => return None,
    };
    reader.ended().then_some(Entry { id: LogId::new(term, index), kind })
}

pub(super) fn write_hard_state(state: &HardState) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(33);
    bytes.extend_from_slice(&state.term.0.to_le_bytes());
    bytes.push(u8::from(state.vote.is_some()));
    bytes.extend_from_slice(&state.vote.map_or(0, |node| node.0).to_le_bytes());
    write_log_id(bytes, state.removed)
}

pub(super) fn read_hard_state(bytes: &[u8]) -> Option<HardState> {
    let mut reader = Reader(bytes);
    let term = Term(reader.u64()?);
    let has_voted = reader.bool()?;
    let node = NodeId(reader.u64()?);
    let vote = has_voted.then_some(node);
    let removed = reader.log_id()?;
    reader.ended().then_some(HardState { term, vote, removed })
}

pub(super) fn write_log_id(mut bytes: Vec<u8>, id: LogId) -> Vec<u8> {
    bytes.extend_from_slice(&id.term.0.to_le_bytes());
    bytes.extend_from_slice(&id.index.0.to_le_bytes());
    bytes
}

pub(super) fn read_log_id(bytes: &[u8]) -> Option<LogId> {
    let mut reader = Reader(bytes);
    reader.log_id().filter(|_| reader.ended())
}

/// What a checkpoint says of itself.
pub(super) fn write_meta(bytes: Vec<u8>, meta: &SnapshotMeta) -> Vec<u8> {
    write_membership(write_log_id(bytes, meta.last), &meta.membership)
}

pub(super) fn read_meta(bytes: &[u8]) -> Option<SnapshotMeta> {
    let mut reader = Reader(bytes);
    let meta = reader.meta()?;
    reader.ended().then_some(meta)
}

fn write_membership(mut bytes: Vec<u8>, membership: &Membership) -> Vec<u8> {
    for nodes in [&membership.voters, &membership.outgoing, &membership.learners] {
        let count = u16::try_from(nodes.len()).expect("a group has few members");
        bytes.extend_from_slice(&count.to_le_bytes());
        nodes.iter().for_each(|node| bytes.extend_from_slice(&node.0.to_le_bytes()));
    }
    bytes
}

/// Takes fields off the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether everything was taken.
    pub(super) const fn ended(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// As many bytes as a length of four bytes before them says.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn meta(&mut self) -> Option<SnapshotMeta> {
        Some(SnapshotMeta { last: self.log_id()?, membership: self.membership()? })
    }

    pub(super) fn log_id(&mut self) -> Option<LogId> {
        Some(LogId { term: Term(self.u64()?), index: Index(self.u64()?) })
    }

    fn membership(&mut self) -> Option<Membership> {
        let mut nodes = || {
            let count = u16::from_le_bytes(self.array()?);
            (0..count).map(|_| self.u64().map(NodeId)).collect::<Option<Vec<_>>>()
        };
        let membership = Membership { voters: nodes()?, outgoing: nodes()?, learners: nodes()? };
        membership.is_well_formed().then_some(membership)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let members = Membership::new([NodeId(3), NodeId(1)], [NodeId(2)]);
        let kinds = [EntryKind::Noop, EntryKind::Data(Bytes::from_static(b"x")), EntryKind::Membership(members)];
        (1..).zip(kinds).map(|(index, kind)| Entry { id: LogId::new(4, index), kind }).collect()
    }

    #[test]
    fn entries_and_records_are_read_as_they_were_written_and_nothing_else_is() {
        for entry in entries() {
            let wal = to_wal(&entry);
            assert_eq!(from_wal(&wal), Some(entry.clone()));
            let cut = WalEntry::new(wal.index(), &wal.payload()[..8]);
            assert_eq!(from_wal(&cut), None, "{entry:?} without its kind");
        }
        let state = HardState { term: Term(7), vote: Some(NodeId(1)), removed: LogId::new(2, 3) };
        let bytes = write_hard_state(&state);
        assert_eq!((read_hard_state(&bytes), read_hard_state(&bytes[1..])), (Some(state), None));
        let meta = SnapshotMeta { last: LogId::new(2, 9), membership: Membership::single(NodeId(5)) };
        let bytes = write_meta(Vec::new(), &meta);
        assert_eq!((read_meta(&bytes), read_meta(&bytes[..bytes.len() - 1])), (Some(meta), None));
    }
}
