//! The greeting: who an end of a connection is, with the proof that it may be here. Each end's first frame.
//!
//! ```text
//! proof 32 | standing u8: 0 asks, 1 of a cluster, 2 of any | cluster u64, little-endian | where it listens, text
//! ```

use bifro_core::ids::ClusterId;
use bifro_net::links::PROOF_BYTES;
use std::net::SocketAddr;

/// What an end has to do with a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is no member: all it may do is ask about the genesis.
    Asks,
    /// It is a member of this one.
    Of(ClusterId),
    /// It keeps nothing, and is a member of whichever it meets first.
    Any,
}

/// What two ends are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Members of one cluster.
    Members,
    /// One of them is no member.
    Question,
    /// Members of two clusters: the other's.
    Strangers(ClusterId, ClusterId),
}

impl Standing {
    pub(crate) fn relation(self, other: Self) -> Relation {
        match (self, other) {
            (Self::Asks, _) | (_, Self::Asks) => Relation::Question,
            (Self::Of(ours), Self::Of(theirs)) if ours != theirs => Relation::Strangers(ours, theirs),
            _ => Relation::Members,
        }
    }
}

/// The greeting without its proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) standing: Standing,
    /// Where the sender listens.
    pub(crate) address: SocketAddr,
}

impl Hello {
    pub(crate) fn encode(&self, proof: &[u8; PROOF_BYTES]) -> Vec<u8> {
        let (tag, cluster) = match self.standing {
            Standing::Asks => (0, 0),
            Standing::Of(cluster) => (1, cluster.0),
            Standing::Any => (2, 0),
        };
        let mut bytes = proof.to_vec();
        bytes.push(tag);
        bytes.extend(cluster.to_le_bytes());
        bytes.extend(self.address.to_string().as_bytes());
        bytes
    }

    /// The greeting and its proof, if it is one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (proof, rest) = bytes.split_at_checked(PROOF_BYTES)?;
        let (&tag, rest) = rest.split_first()?;
        let (cluster, address) = rest.split_first_chunk()?;
        let standing = match (tag, u64::from_le_bytes(*cluster)) {
            (0, 0) => Standing::Asks,
            (1, cluster) if cluster != 0 => Standing::Of(ClusterId(cluster)),
            (2, 0) => Standing::Any,
            _ => return None,
        };
        let address = std::str::from_utf8(address).ok()?.parse().ok()?;
        Some((Self { standing, address }, proof))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Standing = Standing::Of(ClusterId(u64::MAX));
    const OTHER: Standing = Standing::Of(ClusterId(2));

    #[test]
    fn a_greeting_is_read_as_it_was_written_and_nothing_else_is() {
        let address = "[::1]:7946".parse().expect("an address");
        for standing in [Standing::Asks, ONE, Standing::Any] {
            let hello = Hello { standing, address };
            let bytes = hello.encode(&[9; PROOF_BYTES]);
            assert_eq!(Hello::decode(&bytes), Some((hello, &[9; PROOF_BYTES][..])));
            assert_eq!(Hello::decode(&bytes[..PROOF_BYTES + 9]), None, "no address");
            let mut broken = bytes.clone();
            broken[PROOF_BYTES] = 3;
            assert_eq!(Hello::decode(&broken), None, "no such standing");
        }
        assert_eq!(Hello::decode(&[0; PROOF_BYTES]), None);
    }

    #[test]
    fn a_greeting_is_as_recorded() {
        use crate::frame::{Kind, unwrap, wrap};
        let address = "[::1]:7946".parse().expect("an address");
        let framed = |hello: Hello, proof: &[u8; PROOF_BYTES]| wrap(Kind::Hello, &hello.encode(proof));
        let greetings =
            [Standing::Asks, ONE, Standing::Any].map(|standing| framed(Hello { standing, address }, &[9; PROOF_BYTES]));
        crate::recorded::check("underlay", &greetings, |bytes| {
            let (hello, proof) = Hello::decode(unwrap(Kind::Hello, bytes)?)?;
            Some((format!("{hello:?} {proof:?}"), framed(hello, proof.try_into().ok()?)))
        });
    }

    #[test]
    fn members_of_two_clusters_are_strangers_and_who_keeps_nothing_is_not() {
        assert_eq!(ONE.relation(ONE), Relation::Members);
        assert_eq!(ONE.relation(OTHER), Relation::Strangers(ClusterId(u64::MAX), ClusterId(2)));
        assert_eq!(ONE.relation(Standing::Any), Relation::Members);
        assert_eq!(Standing::Any.relation(Standing::Any), Relation::Members);
        assert_eq!(Standing::Any.relation(OTHER), Relation::Members);
        assert_eq!(Standing::Asks.relation(OTHER), Relation::Question);
        assert_eq!(ONE.relation(Standing::Asks), Relation::Question);
    }
}
