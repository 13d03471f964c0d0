//! What a session wants sent: bytes in order, with large payloads shared instead of copied.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::message::Message;

/// Payloads from this size on are sent by reference instead of copied, in bytes: below it a copy costs less than one
/// more segment of a send.
pub const SHARED_PAYLOAD_BYTES_MIN: usize = 16 << 10;

/// Bytes to send on one connection. Small packets are copied into `bytes`; a large payload is a cut: it goes out, by
/// reference, after the first so many of them.
#[derive(Debug, Default)]
pub struct Wire {
    /// Copied bytes.
    pub bytes: Vec<u8>,
    /// Rare, and so apart: every connection has a wire.
    shared: Option<Box<Shared>>,
}

/// The shared payloads of a wire.
#[derive(Debug, Default)]
struct Shared {
    cuts: Vec<Cut>,
    /// Of all their payloads.
    bytes: usize,
}

/// A shared payload: offset into [`Wire::bytes`] before which it goes, and the message it belongs to.
pub type Cut = (usize, Arc<Message>);

impl From<Vec<u8>> for Wire {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, shared: None }
    }
}

impl Wire {
    /// Bytes to send in all.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all shared payloads.
    pub fn shared_bytes(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    /// The shared payloads, in order.
    pub fn cuts(&self) -> &[Cut] {
        self.shared.as_ref().map_or(&[], |shared| &shared.cuts)
    }

    /// Puts the payload of `message` next.
    pub fn push_shared(&mut self, message: Arc<Message>) {
        let shared = self.shared.get_or_insert_default();
        shared.bytes += message.payload().len();
        shared.cuts.push((self.bytes.len(), message));
    }

    /// Forgets everything, keeps the allocation of the copied bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.shared = None;
    }

    /// The pieces in the order in which they are to be sent.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let cuts = self.cuts();
        let tail = cuts.last().map_or(0, |cut| cut.0);
        let starts = core::iter::once(0).chain(cuts.iter().map(|cut| cut.0));
        cuts.iter()
            .zip(starts)
            .flat_map(|((at, message), start)| [&self.bytes[start..*at], message.payload()])
            .chain(core::iter::once(&self.bytes[tail..]))
            .filter(|piece| !piece.is_empty())
    }
}

#[cfg(test)]
mod tests;
