//! What hosts on different nodes say to each other, as bytes.
//!
//! A frame is a version, a count, and as many *parts*, each for one range: range (8 bytes), kind (1), length (4), content. Numbers are
//! little-endian. Whoever carries frames may cut one apart by range ([`split`]): nodes have different numbers of shards. Nothing in here
//! relies on the sender: what does not fit exactly is refused as a whole.

use super::entry::{Reader, read_entry, write_entry, write_log_id, write_meta};
use crate::kv::Pair;
use bifro_core::ids::RangeId;
use bifro_raft::limits::MESSAGE_ENTRIES_MAX;
use bifro_raft::{Body, Entry, Index, LogId, Message, Round, Term};

/// Of this format. A frame of another version is refused: nodes of one cluster speak one.
const VERSION: u8 = 1;
/// Bytes of parts at which a frame is closed. One part may be larger: a message holds one entry at least.
const FRAME_BYTES: usize = 1 << 20;
/// Version and count.
const HEADER_BYTES: usize = 5;
/// A key's length field has two bytes wherever keys are written.
const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// What a part says about its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// One replica to another.
    Raft(Message),
    /// Asks for a piece of a snapshot.
    Fetch {
        /// Which snapshot.
        last: LogId,
        /// First key wanted.
        from: Vec<u8>,
    },
    /// A piece of a snapshot.
    Chunk {
        /// Which snapshot.
        last: LogId,
        /// As asked for.
        from: Vec<u8>,
        /// Pairs in the order of keys.
        pairs: Vec<Pair>,
        /// First key of the rest, if there is any.
        next: Option<Vec<u8>>,
    },
    /// The snapshot asked for is not here (any more).
    NoSnapshot {
        /// Which.
        last: LogId,
    },
    /// Asks whether the sender, which is no member by what it has applied, is one by now. No answer says that it is, or not known.
    IsMember,
    /// The receiver is no member by what is committed.
    NotMember {
        /// The entry that the members come from, or a later one.
        since: LogId,
        /// They were still the same as of this one.
        as_of: LogId,
    },
}

/// Kinds of parts. Those of messages are by body.
mod kind {
    pub(super) const PRE_VOTE: u8 = 1;
    pub(super) const PRE_VOTE_REPLY: u8 = 2;
    pub(super) const VOTE: u8 = 3;
    pub(super) const VOTE_REPLY: u8 = 4;
    pub(super) const APPEND: u8 = 5;
    pub(super) const ACCEPTED: u8 = 6;
    pub(super) const REJECTED: u8 = 7;
    pub(super) const HEARTBEAT: u8 = 8;
    pub(super) const HEARTBEAT_REPLY: u8 = 9;
    pub(super) const SNAPSHOT_OFFER: u8 = 10;
    pub(super) const SNAPSHOT_PENDING: u8 = 11;
    pub(super) const SNAPSHOT_FAILED: u8 = 12;
    pub(super) const TIMEOUT_NOW: u8 = 13;
    pub(super) const TERM_IS_OVER: u8 = 14;
    pub(super) const FETCH: u8 = 32;
    pub(super) const CHUNK: u8 = 33;
    pub(super) const NO_SNAPSHOT: u8 = 34;
    pub(super) const NOT_MEMBER: u8 = 35;
    pub(super) const IS_MEMBER: u8 = 36;
}

/// Frames for one peer, being written.
#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    parts: u32,
}

impl FrameWriter {
    pub(super) fn push(&mut self, range: RangeId, part: &Part) {
        let kind = kind_of(part);
        self.push_raw(range, kind, |out| write_content(out, part));
    }

    fn push_raw(&mut self, range: RangeId, kind: u8, content: impl FnOnce(&mut Vec<u8>)) {
        if self.open.len() >= FRAME_BYTES {
            self.close();
        }
        if self.open.is_empty() {
            self.open.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
        }
        self.open.extend_from_slice(&range.0.to_le_bytes());
        self.open.push(kind);
        let length_at = self.open.len();
        self.open.extend_from_slice(&[0; 4]);
        content(&mut self.open);
        let len = u32::try_from(self.open.len() - length_at - 4).expect("a part is far smaller than 4 GiB");
        self.open[length_at..length_at + 4].copy_from_slice(&len.to_le_bytes());
        self.parts += 1;
    }

    fn close(&mut self) {
        let mut frame = std::mem::take(&mut self.open);
        frame[1..HEADER_BYTES].copy_from_slice(&std::mem::take(&mut self.parts).to_le_bytes());
        self.full.push(frame);
    }

    /// The frames, in order.
    pub(super) fn finish(mut self) -> Vec<Vec<u8>> {
        if self.parts > 0 {
            self.close();
        }
        self.full
    }
}

/// All parts of a frame, in order.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<(RangeId, Part)>> {
    raw_parts(bytes)?.into_iter().map(|(range, kind, content)| Some((range, read_part(kind, content)?))).collect()
}

/// A frame as frames for the shards of this node, by where `home` says that each range is. Contents are not looked at: the shard will.
/// `None` if it is no frame.
pub fn split(bytes: &[u8], home: impl Fn(RangeId) -> u16) -> Option<Vec<(u16, Vec<u8>)>> {
    let parts = raw_parts(bytes)?;
    let mut shards: Vec<(u16, FrameWriter)> = Vec::new();
    for (range, kind, content) in parts {
        let shard = home(range);
        let at = shards.iter().position(|(found, _)| *found == shard).unwrap_or_else(|| {
            shards.push((shard, FrameWriter::default()));
            shards.len() - 1
        });
        shards[at].1.push_raw(range, kind, |out| out.extend_from_slice(content));
    }
    Some(
        shards.into_iter().flat_map(|(shard, frames)| frames.finish().into_iter().map(move |it| (shard, it))).collect(),
    )
}

/// The parts' ranges, kinds and contents. A frame without parts is none.
fn raw_parts(bytes: &[u8]) -> Option<Vec<(RangeId, u8, &[u8])>> {
    let mut reader = Reader(bytes);
    if reader.u8()? != VERSION {
        return None;
    }
    let count = reader.u32()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push((RangeId(reader.u64()?), reader.u8()?, reader.sized()?));
    }
    (reader.ended() && !parts.is_empty()).then_some(parts)
}

const fn kind_of(part: &Part) -> u8 {
    match part {
        Part::Raft(message) => match message.body {
            Body::PreVote { .. } => kind::PRE_VOTE,
            Body::PreVoteReply { .. } => kind::PRE_VOTE_REPLY,
            Body::Vote { .. } => kind::VOTE,
            Body::VoteReply { .. } => kind::VOTE_REPLY,
            Body::Append { .. } => kind::APPEND,
            Body::Accepted { .. } => kind::ACCEPTED,
            Body::Rejected { .. } => kind::REJECTED,
            Body::Heartbeat { .. } => kind::HEARTBEAT,
            Body::HeartbeatReply { .. } => kind::HEARTBEAT_REPLY,
            Body::SnapshotOffer { .. } => kind::SNAPSHOT_OFFER,
            Body::SnapshotPending { .. } => kind::SNAPSHOT_PENDING,
            Body::SnapshotFailed { .. } => kind::SNAPSHOT_FAILED,
            Body::TimeoutNow => kind::TIMEOUT_NOW,
            Body::TermIsOver => kind::TERM_IS_OVER,
        },
        Part::Fetch { .. } => kind::FETCH,
        Part::Chunk { .. } => kind::CHUNK,
        Part::NoSnapshot { .. } => kind::NO_SNAPSHOT,
        Part::NotMember { .. } => kind::NOT_MEMBER,
        Part::IsMember => kind::IS_MEMBER,
    }
}

fn write_content(out: &mut Vec<u8>, part: &Part) {
    match part {
        Part::Raft(message) => {
            put_u64(out, message.term.0);
            write_body(out, &message.body);
        }
        Part::Fetch { last, from } => {
            put_log_id(out, *last);
            put_sized(out, from);
        }
        Part::Chunk { last, from, pairs, next } => {
            put_log_id(out, *last);
            put_sized(out, from);
            out.push(u8::from(next.is_some()));
            put_sized(out, next.as_deref().unwrap_or_default());
            for (key, value) in pairs {
                put_sized(out, key);
                put_sized(out, value);
            }
        }
        Part::NoSnapshot { last } => put_log_id(out, *last),
        Part::IsMember => {}
        Part::NotMember { since, as_of } => {
            put_log_id(out, *since);
            put_log_id(out, *as_of);
        }
    }
}

fn write_body(out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::PreVote { last } | Body::SnapshotFailed { last } => put_log_id(out, *last),
        Body::PreVoteReply { asked_in, granted } => {
            put_u64(out, asked_in.0);
            out.push(u8::from(*granted));
        }
        Body::Vote { last, transfer } => {
            put_log_id(out, *last);
            out.push(u8::from(*transfer));
        }
        Body::VoteReply { granted } => out.push(u8::from(*granted)),
        Body::Append { prev, entries, commit, round } => {
            put_log_id(out, *prev);
            put_u64(out, commit.0);
            put_u64(out, round.0);
            entries.iter().for_each(|entry| put_entry(out, entry));
        }
        Body::Accepted { matched, round } => {
            put_u64(out, matched.0);
            put_u64(out, round.0);
        }
        Body::Rejected { at, hint, round } => {
            put_u64(out, at.0);
            put_log_id(out, *hint);
            put_u64(out, round.0);
        }
        Body::Heartbeat { commit, round, quiesce } => {
            put_u64(out, commit.0);
            put_u64(out, round.0);
            out.push(u8::from(*quiesce));
        }
        Body::HeartbeatReply { round } | Body::SnapshotPending { round } => put_u64(out, round.0),
        Body::SnapshotOffer { meta, round } => {
            put_u64(out, round.0);
            *out = write_meta(std::mem::take(out), meta);
        }
        Body::TimeoutNow | Body::TermIsOver => {}
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    *out = write_log_id(std::mem::take(out), id);
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("records are far smaller than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_u64(out, entry.id.index.0);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    write_entry(out, entry);
    let len = u32::try_from(out.len() - length_at - 4).expect("an entry is far smaller than 4 GiB");
    out[length_at..length_at + 4].copy_from_slice(&len.to_le_bytes());
}

fn read_part(kind: u8, content: &[u8]) -> Option<Part> {
    let mut reader = Reader(content);
    let part = match kind {
        kind::FETCH => Part::Fetch { last: reader.log_id()?, from: read_key(&mut reader)?.to_vec() },
        kind::CHUNK => read_chunk(&mut reader)?,
        kind::NO_SNAPSHOT => Part::NoSnapshot { last: reader.log_id()? },
        kind::IS_MEMBER => Part::IsMember,
        kind::NOT_MEMBER => Part::NotMember { since: reader.log_id()?, as_of: reader.log_id()? },
        kind => Part::Raft(Message { term: Term(reader.u64()?), body: read_body(kind, &mut reader)? }),
    };
    reader.ended().then_some(part)
}

fn read_body(kind: u8, reader: &mut Reader<'_>) -> Option<Body> {
    Some(match kind {
        kind::PRE_VOTE => Body::PreVote { last: reader.log_id()? },
        kind::PRE_VOTE_REPLY => Body::PreVoteReply { asked_in: Term(reader.u64()?), granted: reader.bool()? },
        kind::VOTE => Body::Vote { last: reader.log_id()?, transfer: reader.bool()? },
        kind::VOTE_REPLY => Body::VoteReply { granted: reader.bool()? },
        kind::APPEND => {
            let (prev, commit, round) = (reader.log_id()?, Index(reader.u64()?), Round(reader.u64()?));
            Body::Append { prev, entries: read_entries(reader)?, commit, round }
        }
        kind::ACCEPTED => Body::Accepted { matched: Index(reader.u64()?), round: Round(reader.u64()?) },
        kind::REJECTED => {
            Body::Rejected { at: Index(reader.u64()?), hint: reader.log_id()?, round: Round(reader.u64()?) }
        }
        kind::HEARTBEAT => {
            Body::Heartbeat { commit: Index(reader.u64()?), round: Round(reader.u64()?), quiesce: reader.bool()? }
        }
        kind::HEARTBEAT_REPLY => Body::HeartbeatReply { round: Round(reader.u64()?) },
        kind::SNAPSHOT_OFFER => Body::SnapshotOffer { round: Round(reader.u64()?), meta: reader.meta()? },
        kind::SNAPSHOT_PENDING => Body::SnapshotPending { round: Round(reader.u64()?) },
        kind::SNAPSHOT_FAILED => Body::SnapshotFailed { last: reader.log_id()? },
        kind::TIMEOUT_NOW => Body::TimeoutNow,
        kind::TERM_IS_OVER => Body::TermIsOver,
        _ => return None,
    })
}

/// Entries to the end of the part.
fn read_entries(reader: &mut Reader<'_>) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !reader.ended() {
        if entries.len() == MESSAGE_ENTRIES_MAX {
            return None;
        }
        let index = reader.u64()?;
        entries.push(read_entry(index, reader.sized()?)?);
    }
    Some(entries)
}

fn read_chunk(reader: &mut Reader<'_>) -> Option<Part> {
    let (last, from) = (reader.log_id()?, read_key(reader)?.to_vec());
    let has_next = reader.bool()?;
    let next = read_key(reader)?.to_vec();
    if !has_next && !next.is_empty() {
        return None;
    }
    let mut pairs: Vec<Pair> = Vec::new();
    while !reader.ended() {
        pairs.push((read_key(reader)?.into(), reader.sized()?.into()));
    }
    Some(Part::Chunk { last, from, pairs, next: has_next.then_some(next) })
}

fn read_key<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    reader.sized().filter(|key| key.len() <= KEY_BYTES_MAX)
}

#[cfg(test)]
mod tests;
