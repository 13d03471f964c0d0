//! What a completion belongs to, packed into the 64 bits io_uring carries from request to completion:
//! `kind (8) | index (24) | generation (32)`. The generation lets a completion that outlives its socket be recognised.

use bifro_core::ids::Slot;

/// Largest index that fits: bounds every table of the ring at 2^24 entries, far above any descriptor limit.
pub(super) const INDEX_MAX: u32 = (1 << 24) - 1;

/// A kernel operation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A request whose outcome nobody waits for: a cancel.
    Ignored,
    /// Multishot receive of a socket.
    Recv(Slot),
    /// The one send in flight of a socket.
    Send(Slot),
    /// Multishot accept, by place in the table of acceptors.
    Accept(u32),
    /// Multishot poll of the eventfd that other threads wake the shard with.
    Wake,
    /// Multishot poll of somebody else's descriptor, by place in the table of those.
    Watch(u32),
}

impl Op {
    /// # Panics
    /// If the index exceeds [`INDEX_MAX`]; the tables refuse to grow that far.
    pub(super) const fn pack(self) -> u64 {
        let (kind, index, generation) = match self {
            Self::Ignored => (0, 0, 0),
            Self::Recv(slot) => (1, slot.index, slot.generation),
            Self::Send(slot) => (2, slot.index, slot.generation),
            Self::Accept(index) => (3, index, 0),
            Self::Wake => (4, 0, 0),
            Self::Watch(index) => (5, index, 0),
        };
        assert!(index <= INDEX_MAX);
        (kind << 56) | ((index as u64) << 32) | generation as u64
    }

    /// The reverse of [`Self::pack`]; anything unknown is [`Self::Ignored`].
    pub(super) const fn unpack(packed: u64) -> Self {
        let index = (packed >> 32) as u32 & INDEX_MAX;
        let slot = Slot { index, generation: packed as u32 };
        match packed >> 56 {
            1 => Self::Recv(slot),
            2 => Self::Send(slot),
            3 => Self::Accept(index),
            4 => Self::Wake,
            5 => Self::Watch(index),
            _ => Self::Ignored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_packing_at_the_edges_of_its_fields() {
        for index in [0, 1, INDEX_MAX] {
            for generation in [0, 1, u32::MAX] {
                let slot = Slot { index, generation };
                let polls = [Op::Accept(index), Op::Watch(index), Op::Wake];
                for op in [Op::Ignored, Op::Recv(slot), Op::Send(slot)].into_iter().chain(polls) {
                    assert_eq!(Op::unpack(op.pack()), op);
                }
            }
        }
    }
}
