//! The two lanes of a link: what waits to be written to a stream, and messages put together from what a stream brings.
//!
//! A message is its length as a little-endian u32 and its bytes. Control is a stream of higher priority than Bulk: what waits in it goes
//! first, whatever Bulk has waiting.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn_proto::{SendStream, WriteError};
use std::collections::VecDeque;

/// Bytes of the length before a message.
pub(super) const PREFIX_BYTES: usize = 4;
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

/// Bytes that wait to be written to a stream.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Full blocks, oldest first.
    blocks: VecDeque<Bytes>,
    /// The block being filled.
    last: BytesMut,
    queued: usize,
}

impl Outgoing {
    /// Bytes that wait.
    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    /// Appends bytes as they are.
    pub(super) fn push_raw(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.last.put_slice(bytes);
        self.queued += bytes.len();
    }

    /// Appends a message, at most `u32::MAX` bytes.
    pub(super) fn push(&mut self, message: &[u8]) {
        self.reserve(PREFIX_BYTES + message.len());
        self.last.put_u32_le(u32::try_from(message.len()).expect("the caller holds it to the limit"));
        self.last.put_slice(message);
        self.queued += PREFIX_BYTES + message.len();
    }

    /// Room for so many bytes in one piece. Blocks of one size, so that what QUIC has let go of is used again.
    fn reserve(&mut self, bytes: usize) {
        if self.last.capacity() - self.last.len() < bytes {
            if !self.last.is_empty() {
                self.blocks.push_back(self.last.split().freeze());
            }
            self.last.reserve(bytes.max(BLOCK_BYTES));
        }
    }

    /// Writes what the stream takes.
    ///
    /// # Errors
    /// Anything but [`WriteError::Blocked`].
    pub(super) fn flush(&mut self, stream: &mut SendStream<'_>) -> Result<(), WriteError> {
        if !self.last.is_empty() {
            self.blocks.push_back(self.last.split().freeze());
        }
        while let Some(block) = self.blocks.front_mut() {
            match stream.write_chunks(std::slice::from_mut(block)) {
                Ok(written) => self.queued -= written.bytes,
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(error),
            }
            if block.is_empty() {
                self.blocks.pop_front();
            }
        }
        Ok(())
    }
}

/// A message was announced that is longer than taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// As announced.
    pub(super) bytes: usize,
}

/// Puts messages together.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The part of a length that has come.
    prefix: BytesMut,
    /// The message being put together, and how long it is to be.
    message: BytesMut,
    length: usize,
}

impl Incoming {
    /// Takes the next bytes of the stream and hands on the messages they complete. A message that lies in `chunk` as a whole is a slice
    /// of it, others are copied together. Memory is asked for once the length is known to be at most `most`.
    pub(super) fn take(
        &mut self,
        mut chunk: Bytes,
        most: usize,
        mut hand_on: impl FnMut(Bytes),
    ) -> Result<(), TooLong> {
        while !chunk.is_empty() {
            if self.length == 0 {
                let Some(length) = self.next_length(&mut chunk) else { return Ok(()) };
                if length > most {
                    return Err(TooLong { bytes: length });
                }
                if length <= chunk.len() {
                    hand_on(chunk.split_to(length));
                    continue;
                }
                self.length = length;
                self.message = BytesMut::with_capacity(length);
            }
            let missing = self.length - self.message.len();
            self.message.put(chunk.split_to(missing.min(chunk.len())));
            if self.message.len() == self.length {
                self.length = 0;
                hand_on(std::mem::take(&mut self.message).freeze());
            }
        }
        Ok(())
    }

    /// The length of the next message, once all of it is there.
    fn next_length(&mut self, chunk: &mut Bytes) -> Option<usize> {
        if self.prefix.is_empty() && chunk.len() >= PREFIX_BYTES {
            return Some(chunk.get_u32_le() as usize);
        }
        let missing = PREFIX_BYTES - self.prefix.len();
        self.prefix.put(chunk.split_to(missing.min(chunk.len())));
        let whole = self.prefix.len() == PREFIX_BYTES;
        whole.then(|| std::mem::take(&mut self.prefix).get_u32_le() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(messages: &[Vec<u8>]) -> Bytes {
        let mut outgoing = Outgoing::default();
        messages.iter().for_each(|message| outgoing.push(message));
        let all: Vec<u8> =
            outgoing.blocks.iter().flat_map(|block| block.to_vec()).chain(outgoing.last.to_vec()).collect();
        assert_eq!(outgoing.queued(), all.len());
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
                incoming.take(chunk, 70_000, |message| got.push(message)).expect("none is too long");
            }
            assert_eq!(got, messages, "cut every {cut}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_length_alone() {
        let mut incoming = Incoming::default();
        let mut got = 0;
        let chunk = stream_of(&[vec![1; 8], vec![1; 9]]).slice(..4 + 8 + 4);
        assert_eq!(incoming.take(chunk, 8, |_| got += 1), Err(TooLong { bytes: 9 }));
        assert_eq!(got, 1);
        assert_eq!(incoming.message.capacity(), 0, "nothing was set aside for it");
    }
}
