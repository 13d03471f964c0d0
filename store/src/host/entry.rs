//! How Raft's entries and small records stand in the log. What is read comes from a disk: whatever does not fit is `None`.

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
    let content = match &entry.kind {
        EntryKind::Noop => &[][..],
        EntryKind::Data(data) => data,
        EntryKind::Membership(membership) => &write_membership(Vec::new(), membership),
    };
    let kind = match &entry.kind {
        EntryKind::Noop => NOOP,
        EntryKind::Data(_) => DATA,
        EntryKind::Membership(_) => MEMBERSHIP,
    };
    WalEntry::of_parts(entry.id.index.0, &[&entry.id.term.0.to_le_bytes(), &[kind], content])
}

pub(super) fn from_wal(entry: &WalEntry) -> Option<Entry> {
    let mut reader = Reader(entry.payload());
    let term = reader.u64()?;
    let kind = match reader.u8()? {
        NOOP if reader.0.is_empty() => EntryKind::Noop,
        DATA => EntryKind::Data(Bytes::copy_from_slice(reader.0)),
        MEMBERSHIP => EntryKind::Membership(reader.membership().filter(|_| reader.0.is_empty())?),
        _ => return None,
    };
    Some(Entry { id: LogId::new(term, entry.index()), kind })
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
    let voted = reader.u8()?;
    let node = NodeId(reader.u64()?);
    let vote = match voted {
        0 => None,
        1 => Some(node),
        _ => return None,
    };
    let removed = reader.log_id()?;
    reader.0.is_empty().then_some(HardState { term, vote, removed })
}

pub(super) fn write_log_id(mut bytes: Vec<u8>, id: LogId) -> Vec<u8> {
    bytes.extend_from_slice(&id.term.0.to_le_bytes());
    bytes.extend_from_slice(&id.index.0.to_le_bytes());
    bytes
}

pub(super) fn read_log_id(bytes: &[u8]) -> Option<LogId> {
    let mut reader = Reader(bytes);
    reader.log_id().filter(|_| reader.0.is_empty())
}

/// What a checkpoint says of itself.
pub(super) fn write_meta(meta: &SnapshotMeta) -> Vec<u8> {
    write_membership(write_log_id(Vec::new(), meta.last), &meta.membership)
}

pub(super) fn read_meta(bytes: &[u8]) -> Option<SnapshotMeta> {
    let mut reader = Reader(bytes);
    let meta = SnapshotMeta { last: reader.log_id()?, membership: reader.membership()? };
    reader.0.is_empty().then_some(meta)
}

fn write_membership(mut bytes: Vec<u8>, membership: &Membership) -> Vec<u8> {
    for nodes in [&membership.voters, &membership.outgoing, &membership.learners] {
        let count = u16::try_from(nodes.len()).expect("a group has few members");
        bytes.extend_from_slice(&count.to_le_bytes());
        nodes.iter().for_each(|node| bytes.extend_from_slice(&node.0.to_le_bytes()));
    }
    bytes
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn log_id(&mut self) -> Option<LogId> {
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
        let bytes = write_meta(&meta);
        assert_eq!((read_meta(&bytes), read_meta(&bytes[..bytes.len() - 1])), (Some(meta), None));
    }
}
