//! The two lanes of a link: what waits to be written to a stream, and messages cut out of what a stream brings.
//!
//! A message is its length as a little-endian u32 and its bytes; a *run* is messages one behind the other. Control is a stream of higher
//! priority than Bulk: what waits in it goes first, whatever Bulk has waiting.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn_proto::{SendStream, WriteError};
use std::collections::VecDeque;

/// Bytes of the length before a message.
pub const PREFIX_BYTES: usize = 4;
/// Bytes from which a buffer is handed on and the next begun. Also what a stream is given at once.
const BLOCK_BYTES: usize = 64 << 10;

/// In which order messages keep: each lane is in order by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Goes first: consensus, requests and their answers.
    Control,
    /// Uses what Control leaves: snapshots, deliveries.
    Bulk,
}

impl Lane {
    /// Both, the more urgent first.
    pub(super) const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// The lane's place in tables, and the index of its stream.
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// The priority of its stream; the higher goes first.
    pub(super) const fn priority(self) -> i32 {
        match self {
            Self::Control => 1,
            Self::Bulk => 0,
        }
    }
}

/// Messages that wait, in blocks: each is a run, so that whoever takes a block takes whole messages.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Full blocks, oldest first.
    full: VecDeque<Bytes>,
    /// The block being filled.
    last: BytesMut,
    queued: usize,
}

impl Blocks {
    /// Bytes that wait, the lengths before messages included.
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Whether nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Bytes set aside for them.
    pub fn capacity(&self) -> usize {
        self.queued - self.last.len() + self.last.capacity()
    }

    /// Appends a message that `write` writes, of `bytes` bytes: more would have to be moved.
    pub fn put(&mut self, bytes: usize, write: impl FnOnce(&mut BytesMut)) {
        self.reserve(PREFIX_BYTES + bytes);
        let at = self.last.len();
        self.last.put_u32_le(0);
        write(&mut self.last);
        let written = self.last.len() - at;
        let length = u32::try_from(written - PREFIX_BYTES).expect("the caller holds it to the limit");
        self.last[at..at + PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        self.queued += written;
    }

    /// Appends a message, at most `u32::MAX` bytes.
    pub fn push(&mut self, message: &[u8]) {
        self.put(message.len(), |block| block.put_slice(message));
    }

    /// Appends bytes as they are.
    pub(super) fn push_raw(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.last.put_slice(bytes);
        self.queued += bytes.len();
    }

    /// Appends a run.
    pub fn push_run(&mut self, run: Bytes) {
        self.finish_block();
        self.queued += run.len();
        self.full.push_back(run);
    }

    /// Offers the blocks, oldest first, until `take` refuses one: that and what is behind it stays.
    pub fn hand_over(&mut self, mut take: impl FnMut(&Bytes) -> bool) {
        self.finish_block();
        while let Some(block) = self.full.pop_front_if(|block| take(block)) {
            self.queued -= block.len();
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn finish_block(&mut self) {
        if !self.last.is_empty() {
            self.full.push_back(self.last.split().freeze());
        }
    }

    /// Room for so many bytes in one piece. Blocks of one size, so that what QUIC has let go of is used again.
    fn reserve(&mut self, bytes: usize) {
        if self.last.capacity() - self.last.len() < bytes {
            self.finish_block();
            self.last.reserve(bytes.max(BLOCK_BYTES));
        }
    }

    /// Writes what the stream takes.
    ///
    /// # Errors
    /// Anything but [`WriteError::Blocked`].
    pub(super) fn flush(&mut self, stream: &mut SendStream<'_>) -> Result<(), WriteError> {
        self.finish_block();
        while let Some(block) = self.full.front_mut() {
            match stream.write_chunks(std::slice::from_mut(block)) {
                Ok(written) => self.queued -= written.bytes,
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(error),
            }
            if block.is_empty() {
                self.full.pop_front();
            }
        }
        Ok(())
    }
}

/// Takes the first message off a run. None at its end.
pub fn next_message(run: &mut Bytes) -> Option<Bytes> {
    let length = length_of(run)?;
    run.advance(PREFIX_BYTES);
    Some(run.split_to(length))
}

/// What the length at the beginning says, if all of it is there.
fn length_of(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)
}

/// A message was announced that is longer than taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// As announced.
    pub(super) bytes: usize,
}

/// Cuts a stream into runs.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// A message of which only the beginning has come, its length before it.
    cut: BytesMut,
}

impl Incoming {
    /// Takes the next bytes of the stream and hands on the messages they complete. Those that lie in `chunk` as a whole are one slice of it;
    /// one that is cut is put together. Memory is asked for once its length is known to be at most `most`.
    pub(super) fn take(
        &mut self,
        mut chunk: Bytes,
        most: usize,
        mut hand_on: impl FnMut(Bytes),
    ) -> Result<(), TooLong> {
        while !self.cut.is_empty() {
            let missing = PREFIX_BYTES + announced(&self.cut, most)?.unwrap_or(0) - self.cut.len();
            if missing == 0 {
                hand_on(std::mem::take(&mut self.cut).freeze());
            } else if chunk.is_empty() {
                return Ok(());
            } else {
                self.cut.reserve(missing);
                self.cut.put(chunk.split_to(missing.min(chunk.len())));
            }
        }
        let mut end = 0;
        while let Some(length) = length_of(&chunk[end..])
            && length <= most
            && PREFIX_BYTES + length <= chunk.len() - end
        {
            end += PREFIX_BYTES + length;
        }
        if end > 0 {
            hand_on(chunk.split_to(end));
        }
        if !chunk.is_empty() {
            self.cut.reserve(PREFIX_BYTES + announced(&chunk, most)?.unwrap_or(0));
            self.cut.put(chunk);
        }
        Ok(())
    }
}

/// The length of the message that begins here, once that is known.
fn announced(bytes: &[u8], most: usize) -> Result<Option<usize>, TooLong> {
    match length_of(bytes) {
        Some(bytes) if bytes > most => Err(TooLong { bytes }),
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(messages: &[Vec<u8>]) -> Bytes {
        let mut blocks = Blocks::default();
        messages.iter().for_each(|message| blocks.push(message));
        let (mut all, queued) = (Vec::new(), blocks.queued());
        blocks.hand_over(|block| {
            let mut run = block.clone();
            while next_message(&mut run).is_some() {}
            assert!(run.is_empty(), "a block is whole messages");
            all.extend_from_slice(block);
            true
        });
        assert_eq!((queued, blocks.queued(), blocks.is_empty()), (all.len(), 0, true));
        all.into()
    }

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let sizes = [0, 1, 3, 0, 0, 70_000, 4, 65_536, 2];
        let messages: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|at| (at % 251) as u8).collect()).collect();
        let stream = stream_of(&messages);
        for cut in [1, 2, 3, 5, 1452, 100_000, usize::MAX] {
            let mut incoming = Incoming::default();
            let (mut rest, mut got) = (stream.clone(), Vec::new());
            while !rest.is_empty() {
                let chunk = rest.split_to(cut.min(rest.len()));
                let each = |mut run| got.extend(std::iter::from_fn(|| next_message(&mut run)));
                incoming.take(chunk, 70_000, each).expect("none is too long");
            }
            assert_eq!(got, messages, "cut every {cut}");
        }
    }

    #[test]
    fn what_lies_in_a_chunk_as_a_whole_is_not_copied() {
        let stream = stream_of(&vec![vec![7; 100]; 10]);
        let (mut incoming, mut runs) = (Incoming::default(), Vec::new());
        for chunk in [stream.slice(..500), stream.slice(500..)] {
            incoming.take(chunk, 100, |run| runs.push(run)).expect("none is too long");
        }
        let lengths: Vec<usize> = runs.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [4 * 104, 104, 5 * 104], "the one that was cut is by itself");
        assert_eq!((runs[0].as_ptr(), runs[2].as_ptr()), (stream.as_ptr(), stream[520..].as_ptr()));
    }

    #[test]
    fn a_block_that_is_refused_stays_and_what_comes_later_is_behind_it() {
        let mut blocks = Blocks::default();
        blocks.push(b"one");
        blocks.hand_over(|_| false);
        blocks.push_run(stream_of(&[b"two".to_vec(), b"three".to_vec()]));
        blocks.push(b"four");
        let mut got = Vec::new();
        blocks.hand_over(|block| {
            let mut run = block.clone();
            got.extend(std::iter::from_fn(|| next_message(&mut run)));
            true
        });
        assert_eq!(got, [&b"one"[..], b"two", b"three", b"four"]);
        blocks.push(&[0; 1000]);
        blocks.clear();
        assert_eq!((blocks.queued(), blocks.capacity()), (0, 0));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_length_alone() {
        let mut incoming = Incoming::default();
        let mut got = 0;
        let chunk = stream_of(&[vec![1; 8], vec![1; 9]]).slice(..4 + 8 + 4);
        assert_eq!(incoming.take(chunk, 8, |_| got += 1), Err(TooLong { bytes: 9 }));
        assert_eq!(got, 1);
        assert!(incoming.cut.capacity() < 9 + PREFIX_BYTES + 64, "nothing was set aside for it");
    }
}
