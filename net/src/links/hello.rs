//! The greeting: who an end is, with the proof that it may be here. Each end's first frame.
//!
//! ```text
//! magic "bl" | version 2 | kind 1 | length 64, u32 || proof 32 | cluster u64 | node u64 | nonce u64 | starts u32 | shard u16 | shards u16
//! ```
//! All numbers little-endian; cluster 0 is none.

use super::secret::PROOF_BYTES;
use bifro_core::ids::{ClusterId, NodeId, ShardId};

/// First bytes of a link.
const MAGIC: [u8; 2] = *b"bl";
/// Version of the greeting and of how messages are framed after it.
const VERSION: u8 = 2;
/// The only kind of frame there is.
const KIND: u8 = 1;
/// Bytes before the greeting.
const HEADER_BYTES: usize = 8;
/// Bytes of the proof and of the fields after it.
const PAYLOAD_BYTES: usize = PROOF_BYTES + 32;
/// Bytes of the whole frame.
pub(super) const FRAME_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES;

/// Who an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Of which cluster it is; none if it keeps nothing, and so is of any.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// How often it was started.
    pub starts: u32,
    /// Drawn at its start: tells two processes apart that believe to be the same node.
    pub nonce: u64,
    /// Which of its shards this is, less than `shards`.
    pub shard: ShardId,
    /// How many shards it has.
    pub shards: u16,
}

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&MAGIC);
    header[2..4].copy_from_slice(&[VERSION, KIND]);
    header[4..].copy_from_slice(&(PAYLOAD_BYTES as u32).to_le_bytes());
    header
}

/// The frame that says this and proves it.
pub(super) fn encode(hello: &Hello, proof: &[u8; PROOF_BYTES]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.extend(header());
    frame.extend(proof);
    frame.extend(hello.cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
    frame.extend(hello.node.0.to_le_bytes());
    frame.extend(hello.nonce.to_le_bytes());
    frame.extend(hello.starts.to_le_bytes());
    frame.extend(hello.shard.0.to_le_bytes());
    frame.extend(hello.shards.to_le_bytes());
    debug_assert_eq!(frame.len(), FRAME_BYTES);
    frame
}

/// Whether this can be how a greeting begins.
pub(super) fn may_become(begun: &[u8]) -> bool {
    begun.iter().zip(header()).all(|(got, expected)| *got == expected)
}

/// The greeting and its proof. None if the frame is another, or says what cannot be.
pub(super) fn decode(frame: &[u8; FRAME_BYTES]) -> Option<(Hello, &[u8])> {
    let (header, payload) = frame.split_at(HEADER_BYTES);
    let (proof, rest) = may_become(header).then(|| payload.split_at(PROOF_BYTES))?;
    let (cluster, rest) = rest.split_first_chunk()?;
    let (node, rest) = rest.split_first_chunk()?;
    let (nonce, rest) = rest.split_first_chunk()?;
    let (starts, rest) = rest.split_first_chunk()?;
    let (shard, rest) = rest.split_first_chunk()?;
    let (shards, _) = rest.split_first_chunk()?;
    let hello = Hello {
        cluster: Some(ClusterId(u64::from_le_bytes(*cluster))).filter(|cluster| cluster.0 != 0),
        node: NodeId(u64::from_le_bytes(*node)),
        nonce: u64::from_le_bytes(*nonce),
        starts: u32::from_le_bytes(*starts),
        shard: ShardId(u16::from_le_bytes(*shard)),
        shards: u16::from_le_bytes(*shards),
    };
    (hello.shard.0 < hello.shards).then_some((hello, proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello {
        cluster: Some(ClusterId(u64::MAX)),
        node: NodeId(7),
        starts: 3,
        nonce: u64::MAX - 1,
        shard: ShardId(2),
        shards: 4,
    };

    fn frame(hello: &Hello) -> [u8; FRAME_BYTES] {
        encode(hello, &[9; PROOF_BYTES]).try_into().expect("its length")
    }

    #[test]
    fn a_greeting_is_read_as_it_was_written() {
        for hello in [HELLO, Hello { cluster: None, ..HELLO }] {
            assert_eq!(decode(&frame(&hello)), Some((hello, &[9; PROOF_BYTES][..])));
        }
    }

    #[test]
    fn a_greeting_is_as_recorded() {
        let greetings = [HELLO, Hello { cluster: None, ..HELLO }].map(|hello| frame(&hello).to_vec());
        crate::recorded::check("links", &greetings, |bytes| {
            let (hello, proof) = decode(bytes.try_into().ok()?)?;
            Some((format!("{hello:?} {proof:?}"), encode(&hello, proof.try_into().ok()?)))
        });
    }

    #[test]
    fn another_magic_version_kind_or_length_is_recognised_at_its_byte() {
        for at in 0..HEADER_BYTES {
            let mut broken = frame(&HELLO);
            broken[at] ^= 1;
            assert!(may_become(&broken[..at]), "byte {at}");
            assert!(!may_become(&broken[..=at]), "byte {at}");
            assert_eq!(decode(&broken), None, "byte {at}");
        }
    }

    #[test]
    fn a_shard_the_node_does_not_have_is_refused() {
        assert_eq!(decode(&frame(&Hello { shard: ShardId(4), ..HELLO })), None);
        assert_eq!(decode(&frame(&Hello { shard: ShardId(0), shards: 0, ..HELLO })), None);
    }
}
