//! Records that the owner of a machine asks for while it leads.

use super::shard::Host;
use crate::kv::{KvError, Page, Pair, Scan};
use bifro_core::ids::RangeId;
use std::collections::{HashMap, VecDeque};

/// Reads of the base that one shard has under way at a time. More wait; those that memory alone answers do not count.
const READS_MAX: usize = 64;

/// The answer to [`Host::read`].
#[derive(Debug)]
pub struct ReadDone {
    /// Which range.
    pub range: RangeId,
    /// As given.
    pub token: u64,
    /// The records.
    pub pairs: Vec<Pair>,
}

struct Wanted {
    range: RangeId,
    token: u64,
    scan: Scan,
}

/// Reads of the owner of a shard's machines.
#[derive(Default)]
pub(super) struct Reads {
    waiting: VecDeque<Wanted>,
    /// By request. Those of a reign that is over are nobody's.
    under_way: HashMap<u64, Option<(RangeId, u64)>>,
    done: Vec<ReadDone>,
}

impl Reads {
    /// The reign in which they were asked for is over.
    pub(super) fn forget(&mut self, range: RangeId) {
        self.waiting.retain(|wanted| wanted.range != range);
        self.done.retain(|done| done.range != range);
        for of in self.under_way.values_mut().filter(|of| of.is_some_and(|(of, _)| of == range)) {
            *of = None;
        }
    }
}

impl Host {
    /// Asks for records of a range that this node leads, as they are applied by now; [`Host::take_reads`] answers. With the reign the answer is
    /// forgotten. What the base cannot read ends the process.
    pub fn read(&mut self, range: RangeId, token: u64, scan: Scan) {
        self.reads.waiting.push_back(Wanted { range, token, scan });
        self.drive_reads();
    }

    /// What was asked for with [`Host::read`].
    pub fn take_reads(&mut self) -> Vec<ReadDone> {
        std::mem::take(&mut self.reads.done)
    }

    fn drive_reads(&mut self) {
        while self.reads.under_way.len() < READS_MAX {
            let Some(Wanted { range: id, token, scan }) = self.reads.waiting.pop_front() else { return };
            let Some(range) = self.ranges.get_mut(&id) else { continue };
            if range.space.is_all_hot() {
                let pairs = range.space.scan_overlay(&scan).pairs;
                self.reads.done.push(ReadDone { range: id, token, pairs });
                continue;
            }
            self.last_request += 1;
            if range.space.scan(self.last_request, scan.clone()) {
                self.reads.under_way.insert(self.last_request, Some((id, token)));
            } else {
                // Others have as many of this range under way as it may have.
                return self.reads.waiting.push_front(Wanted { range: id, token, scan });
            }
        }
    }

    /// Whether a read of the base is one of the owner's.
    pub(super) fn is_owners_read(&self, request: u64) -> bool {
        self.reads.under_way.contains_key(&request)
    }

    /// The base has answered it.
    pub(super) fn handle_owners_read(&mut self, request: u64, page: Result<Page, KvError>) {
        if let Some((range, token)) = self.reads.under_way.remove(&request).flatten() {
            match page {
                Ok(Page { pairs, .. }) => self.reads.done.push(ReadDone { range, token, pairs }),
                Err(error) => self.fail(range, &error),
            }
        }
        self.drive_reads();
    }

    /// The owner cannot make sense of a range's records.
    pub fn fail(&self, range: RangeId, error: &dyn std::error::Error) {
        (self.fatal)(&format!("{range} cannot be read: {error}"));
    }
}
