//! A space as of one checkpoint, read in chunks for a transfer. Blocking: for a transfer's own thread, never for a shard.

use super::base::{KvView, Pair, Scan};
use super::error::KvError;

/// Pairs of a chunk at most, whatever their size.
const CHUNK_PAIRS: usize = 4096;

/// The snapshot. It keeps what it shows alive in the base; drop it soon.
pub struct KvSnapshot {
    view: Box<dyn KvView>,
    /// Where the next chunk begins; `None` at the end.
    next: Option<Vec<u8>>,
}

impl KvSnapshot {
    pub(super) fn new(view: Box<dyn KvView>) -> Self {
        Self { view, next: Some(Vec::new()) }
    }

    /// Index of the last log entry it contains.
    pub fn applied(&self) -> u64 {
        self.view.state().applied
    }

    /// The owner's record that belongs to it.
    pub fn meta(&self) -> &[u8] {
        &self.view.state().meta
    }

    /// Where the next chunk begins; `None` at the end.
    pub fn next_key(&self) -> Option<&[u8]> {
        self.next.as_deref()
    }

    /// Goes on with the first key at or after `key`: to resume a transfer.
    pub fn seek(&mut self, key: Vec<u8>) {
        self.next = Some(key);
    }

    /// The next pairs in the order of keys, about `bytes_max` of them; `None` at the end.
    ///
    /// # Errors
    /// [`KvError::Corrupt`]: damage must not be spread to a peer; or what the base says. The chunk may be asked for again.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<Pair>>, KvError> {
        let Some(from) = self.next.clone() else { return Ok(None) };
        let page = self.view.scan(&Scan { from, to: None, limit: CHUNK_PAIRS, bytes_max })?;
        self.next = page.next;
        Ok((!page.pairs.is_empty()).then_some(page.pairs))
    }
}
