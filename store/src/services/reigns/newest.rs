//! The newest term in which anybody was heard to lead each range.
//!
//! A node that stood still claims what it led before, in the term of then, until it hears better; it knows the routes of then. Should whoever came after it be gone
//! just then, its claim would be the only one, and what is published would pass all who have subscribed since. So a claim counts only if no newer term was heard.
//!
//! Terms begin anew if all nodes that had replicas were started again and keep nothing on disk. So this holds against processes that were known when the
//! newer term was heard: those that came later have heard of it from the others, or there are no others.

use super::Claim;
use bifro_core::ids::{NodeIdx, RangeIdx};
use bifro_core::nodes::Nodes;

/// See the module's page.
#[derive(Debug)]
pub(in crate::services) struct Newest {
    /// By range: the term, and the last process that was counted by then.
    heard: Vec<(u64, NodeIdx)>,
    /// The last one that was counted.
    counted: NodeIdx,
}

impl Newest {
    pub(super) fn new(ranges: u16) -> Self {
        Self { heard: vec![(0, NodeIdx::HERE); ranges.into()], counted: NodeIdx::HERE }
    }

    /// There are these processes.
    pub(in crate::services) fn count(&mut self, nodes: &Nodes) {
        let last = nodes.others.iter().map(|node| node.idx).max();
        self.counted = self.counted.max(last.unwrap_or(NodeIdx::HERE));
    }

    /// These claims have come.
    pub(super) fn hear(&mut self, range: RangeIdx, claims: &[Claim]) {
        let heard = &mut self.heard[range.index()];
        for claim in claims {
            if claim.term > heard.0 || claim.node > heard.1 {
                *heard = (claim.term, self.counted);
            }
        }
    }

    /// Whether a claim is of a reign that has been followed by another.
    pub(super) fn is_past(&self, range: RangeIdx, claim: &Claim) -> bool {
        let (term, counted) = self.heard[range.index()];
        claim.term < term && claim.node <= counted
    }

    /// The newest term of a range.
    pub(in crate::services) fn term(&self, range: RangeIdx) -> u64 {
        self.heard[range.index()].0
    }
}
