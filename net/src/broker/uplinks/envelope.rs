//! The envelope around what travels by way of a third node: between two nodes that live and cannot reach each other.
//!
//! ```text
//! hop (1 byte) | kind (1) | shard (2) | session (4) | peer's node id (8) | peer's nonce (8) || what is relayed
//! ```
//! Numbers are little-endian. On the first hop the peer is whom it is for, on the second whom it is from; the shard is always that of the node
//! which asked for the relay. Envelopes have the links' [`Bulk`](crate::links::Lane::Bulk) lane to themselves.

use bifro_core::ids::{NodeId, ShardId};

/// Bytes before what is relayed.
const HEADER_BYTES: usize = 24;

/// Where an envelope is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// To the node that is to pass it on.
    First = 1,
    /// To its peer.
    Second = 2,
}

/// What an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whoever sends it wants a way to the peer.
    Open = 1,
    /// There is one.
    Opened = 2,
    /// A batch.
    Data = 3,
    /// There is none, or none any more.
    Close = 4,
}

/// See the module's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) hop: Hop,
    pub(super) kind: Kind,
    pub(super) shard: ShardId,
    /// Tells this relay from earlier ones between the same two; the asking shard counts them.
    pub(super) session: u32,
    pub(super) peer: (NodeId, u64),
}

impl Envelope {
    /// The envelope with `batch` in it.
    pub(super) fn seal(&self, batch: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + batch.len());
        bytes.extend([self.hop as u8, self.kind as u8]);
        bytes.extend(self.shard.0.to_le_bytes());
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(self.peer.0.0.to_le_bytes());
        bytes.extend(self.peer.1.to_le_bytes());
        bytes.extend(batch);
        bytes
    }

    /// The envelope, and how many bytes of it are not what is in it. None if it is none.
    pub(super) fn open(bytes: &[u8]) -> Option<(Self, usize)> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let hop = match header[0] {
            1 => Hop::First,
            2 => Hop::Second,
            _ => return None,
        };
        let kind = match header[1] {
            1 => Kind::Open,
            2 => Kind::Opened,
            3 => Kind::Data,
            4 => Kind::Close,
            _ => return None,
        };
        let number = |at: usize| header[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let shard = ShardId(u16::from_le_bytes([header[2], header[3]]));
        let session = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        Some((Self { hop, kind, shard, session, peer: (NodeId(number(8)), number(16)) }, HEADER_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_opened_as_it_was_sealed_and_anything_else_is_none() {
        for hop in [Hop::First, Hop::Second] {
            for kind in [Kind::Open, Kind::Opened, Kind::Data, Kind::Close] {
                let envelope = Envelope { hop, kind, shard: ShardId(3), session: 9, peer: (NodeId(7), u64::MAX) };
                let sealed = envelope.seal(b"batch");
                assert_eq!(Envelope::open(&sealed), Some((envelope, sealed.len() - 5)));
                assert_eq!(Envelope::open(&sealed[..HEADER_BYTES - 1]), None);
            }
        }
        assert_eq!(Envelope::open(&[0; HEADER_BYTES]), None);
        assert_eq!(Envelope::open(&[1; 1]), None);
    }
}
