//! Giving the owner everything that a range holds, page by page, without waiting for the base.
//!
//! The next page is fetched when the last has been taken, so no more than one is in memory.

use super::change::Change;
use super::shard::Host;
use crate::kv::{KvError, Outcome, Page, Scan};
use bifro_core::ids::RangeId;

/// Pairs and bytes of a page when everything is read.
pub(super) const LOAD_PAGE: (usize, usize) = (4_096, 4 << 20);

/// A load under way.
#[derive(Debug)]
pub(super) struct Load {
    /// First key of the next page.
    from: Vec<u8>,
    /// The base was asked for it.
    request: Option<u64>,
    /// The last page waits to be taken.
    is_untaken: bool,
}

impl Host {
    /// Begins to give the owner everything that a range holds, which this node leads: [`Change::Loaded`] answers, page by page. Nothing is to
    /// be recorded for the range meanwhile. Ends silently with the reign, after which there is [`Change::Follows`]; begun without one, it
    /// comes to nothing.
    pub fn begin_load(&mut self, range: RangeId) {
        let Some(hosted) = self.ranges.get_mut(&range).filter(|hosted| hosted.is_heard_to_lead()) else { return };
        hosted.load = Some(Load { from: Vec::new(), request: None, is_untaken: false });
        self.loading.insert(range);
    }

    /// Whether a page can be fetched now.
    pub(super) fn has_load_due(&self) -> bool {
        self.loading.iter().any(|id| {
            let load = self.ranges.get(id).and_then(|range| range.load.as_ref());
            load.is_none_or(|load| load.request.is_none() && !load.is_untaken)
        })
    }

    /// The owner has taken its pages.
    pub(super) fn note_loaded_taken(&mut self, id: RangeId) {
        if let Some(load) = self.ranges.get_mut(&id).and_then(|range| range.load.as_mut()) {
            load.is_untaken = false;
        }
    }

    /// Fetches the pages that are due.
    pub(super) fn drive_loads(&mut self) {
        for id in self.loading.iter().copied().collect::<Vec<_>>() {
            let Some(range) = self.ranges.get_mut(&id) else {
                self.loading.remove(&id);
                continue;
            };
            let Some(load) = &mut range.load else {
                self.loading.remove(&id);
                continue;
            };
            if load.request.is_some() || load.is_untaken {
                continue;
            }
            let (limit, bytes_max) = LOAD_PAGE;
            let scan = Scan { from: load.from.clone(), to: None, limit, bytes_max };
            if range.space.is_all_hot() {
                let page = range.space.scan_overlay(&scan);
                self.hand_page(id, Ok(page));
            } else {
                self.last_request += 1;
                // Too many reads under way: again in the next turn.
                load.request = range.space.scan(self.last_request, scan).then_some(self.last_request);
            }
        }
    }

    /// The base has answered a read.
    pub(super) fn handle_read(&mut self, id: RangeId, outcome: Outcome) {
        let (answered, page) = match outcome {
            Outcome::Scanned { request, page } => (request, Ok(page)),
            Outcome::Failed { request: Some(request), error } => (request, Err(error)),
            _ => return,
        };
        if self.is_owners_read(answered) {
            return self.handle_owners_read(answered, page);
        }
        let load = self.ranges.get_mut(&id).and_then(|range| range.load.as_mut());
        if load.is_some_and(|load| load.request == Some(answered)) {
            self.hand_page(id, page);
        }
    }

    fn hand_page(&mut self, id: RangeId, page: Result<Page, KvError>) {
        let Some(range) = self.ranges.get_mut(&id) else { return };
        let change = match page {
            Err(error) => {
                range.load = None;
                Change::LoadFailed { range: id, error }
            }
            Ok(Page { pairs, next }) => {
                let is_last = next.is_none();
                range.load = next.map(|from| Load { from, request: None, is_untaken: true });
                Change::Loaded { range: id, pairs, is_last }
            }
        };
        if range.load.is_none() {
            self.loading.remove(&id);
        }
        self.changes.push(change);
    }
}
