//! What a session wants sent: bytes in order, with large payloads shared instead of copied.

use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::message::Message;

/// Payloads from this size on are sent by reference instead of copied, in bytes: below it a copy costs less than one
/// more segment of a send.
pub const SHARED_PAYLOAD_BYTES_MIN: usize = 16 << 10;

/// Bytes to send on one connection. Small packets are copied into `bytes`; a large payload is a cut: it goes out, by
/// reference, after the first `at` bytes.
#[derive(Debug, Default)]
pub struct Wire {
    /// Copied bytes.
    pub bytes: Vec<u8>,
    /// Shared payloads, in order: (offset into `bytes` before which the payload goes, the message).
    pub cuts: Vec<(usize, Arc<Message>)>,
    /// Bytes of all shared payloads.
    pub shared_bytes: usize,
}

impl Wire {
    /// Bytes to send in all.
    pub const fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// Nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts the payload of `message` next.
    pub fn push_shared(&mut self, message: Arc<Message>) {
        self.shared_bytes += message.payload().len();
        self.cuts.push((self.bytes.len(), message));
    }

    /// Forgets everything, keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.cuts.clear();
        self.shared_bytes = 0;
    }

    /// The pieces in the order in which they are to be sent.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let tail = self.cuts.last().map_or(0, |cut| cut.0);
        let starts = core::iter::once(0).chain(self.cuts.iter().map(|cut| cut.0));
        self.cuts
            .iter()
            .zip(starts)
            .flat_map(|((at, message), start)| [&self.bytes[start..*at], message.payload()])
            .chain(core::iter::once(&self.bytes[tail..]))
            .filter(|piece| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests;
