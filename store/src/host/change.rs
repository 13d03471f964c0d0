//! What a host tells the owner of the machines.

use crate::kv::{KvError, Pair};
use bifro_core::ids::{NodeId, RangeId};
use bifro_raft::Term;

/// Something about a range that its owner has to know. Told in order, by [`super::Host::take_changes`].
#[derive(Clone, Debug)]
pub enum Change {
    /// This node leads the range and has applied everything before its reign: the range's space is the whole committed truth, and nothing
    /// changes it from now on but what is recorded here. Load it, build a machine from it, record.
    Leads {
        /// Which.
        range: RangeId,
        /// In which term.
        term: Term,
    },
    /// It does not, or not any more, or another leader became known. The machine and whatever was held for its gates is to be thrown away.
    Follows {
        /// Which.
        range: RangeId,
        /// Who leads, if it is known.
        leader: Option<NodeId>,
        /// In which term.
        term: Term,
    },
    /// A page of what was asked for with [`super::Host::begin_load`], in the order of keys.
    Loaded {
        /// Which.
        range: RangeId,
        /// Keys and values.
        pairs: Vec<Pair>,
        /// Nothing follows.
        is_last: bool,
    },
    /// Loading failed; nothing more comes of it.
    LoadFailed {
        /// Which.
        range: RangeId,
        /// Why.
        error: KvError,
    },
}

/// A frame that is none. Nothing of it was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of a peer's host cannot be read")]
pub struct Malformed;
