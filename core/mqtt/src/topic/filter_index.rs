//! Filters → values, asked with a topic name: who subscribes to what is being published?
//!
//! Filters without wildcards, the most by far, live in one hash map: they cost a publish one lookup however many there are.
//! Filters with wildcards live in a trie over levels (`filter_trie.rs`).
//!
//! **Cost of a match.** One hash lookup for the exact filters, plus a walk over the trie level by level. Every trie node has
//! one parent, hence is visited at most once, and only if its path matches the topic's beginning. So the cost is
//! O(bytes of the topic + nodes visited), and the nodes visited are at most those stored: `+/+/…` filters of all 2^k shapes
//! cost 2^k only to somebody who has stored 2^k filters. [`FilterIndex::for_each_match_within`] bounds it further.
//! Nothing recurses: neither matching nor dropping uses stack per level. The order in which values are found is determined by
//! the sequence of operations alone, not by hash seeds.
//!
//! Filters come without share prefix and should have passed [`check_filter`](super::check_filter).

use super::arena::{Arena, IdTable, fold};
use super::filter_trie::{FilterTrie, Values};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::fmt;
use core::hash::BuildHasher;
use hashbrown::DefaultHashBuilder;

/// A match was given up because it would have visited more nodes than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetSpent {
    /// Nodes the match had visited when it stopped.
    pub visited: usize,
}

impl fmt::Display for BudgetSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "matching given up after {} nodes", self.visited)
    }
}

impl core::error::Error for BudgetSpent {}

/// A multimap from filters to values. Equal values under one filter are kept as often as they were inserted.
#[derive(Clone, Debug)]
pub struct FilterIndex<V> {
    hasher: DefaultHashBuilder,
    exact_table: IdTable,
    exact: Arena<Exact<V>>,
    trie: FilterTrie<V>,
    /// Number of values.
    len: usize,
}

/// A filter without wildcards; its values are never empty.
#[derive(Clone, Debug)]
struct Exact<V> {
    filter: Box<str>,
    hash: u32,
    values: Values<V>,
}

fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

impl<V> FilterIndex<V> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            exact_table: IdTable::default(),
            exact: Arena::new(),
            trie: FilterTrie::new(),
            len: 0,
        }
    }

    /// Number of values.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No value at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of distinct filters.
    pub const fn filters(&self) -> usize {
        self.exact.len() + self.trie.filters()
    }

    /// Number of trie nodes, the upper bound of what a match visits (plus one for the root).
    pub const fn nodes(&self) -> usize {
        self.trie.nodes()
    }

    /// Adds a value under a filter.
    pub fn insert(&mut self, filter: &str, value: V) {
        self.len += 1;
        if has_wildcard(filter) {
            return self.trie.insert(filter, value);
        }
        let hash = self.hash(filter);
        let id = self.find_exact(filter, hash).unwrap_or_else(|| {
            let id = self.exact.insert(Exact { filter: filter.into(), hash, values: Values::new() });
            self.exact_table.insert(hash, id);
            id
        });
        self.exact[id].values.push(value);
    }

    /// Removes the first value under the filter that `is_it` picks; the filter goes with its last value. Linear in the
    /// filter's values, whose order changes.
    pub fn remove(&mut self, filter: &str, is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let removed =
            if has_wildcard(filter) { self.trie.remove(filter, is_it) } else { self.remove_exact(filter, is_it) };
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The values under this very filter, none if it is not there.
    pub fn get(&self, filter: &str) -> &[V] {
        if has_wildcard(filter) {
            return self.trie.values(filter);
        }
        self.find_exact(filter, self.hash(filter)).map_or(&[], |id| &self.exact[id].values)
    }

    /// The values under this very filter, to change in place.
    pub fn get_mut(&mut self, filter: &str) -> &mut [V] {
        if has_wildcard(filter) {
            return self.trie.values_mut(filter);
        }
        match self.find_exact(filter, self.hash(filter)) {
            Some(id) => &mut self.exact[id].values,
            None => &mut [],
        }
    }

    /// Hands every value whose filter matches `topic` to `found`. Gives the number of trie nodes visited.
    pub fn for_each_match(&self, topic: &str, found: impl FnMut(&V)) -> usize {
        match self.for_each_match_within(topic, usize::MAX, found) {
            Ok(visited) | Err(BudgetSpent { visited }) => visited,
        }
    }

    /// As [`FilterIndex::for_each_match`], but visits `nodes_max` trie nodes at most, for work that must fit a turn.
    ///
    /// # Errors
    /// When the budget is spent. The values handed out until then do match, but others may be missing: whoever asked must
    /// not acknowledge the message as delivered, but refuse it or ask again with a larger budget.
    pub fn for_each_match_within(
        &self,
        topic: &str,
        nodes_max: usize,
        mut found: impl FnMut(&V),
    ) -> Result<usize, BudgetSpent> {
        if let Some(id) = self.find_exact(topic, self.hash(topic)) {
            self.exact[id].values.iter().for_each(&mut found);
        }
        if self.trie.filters() == 0 {
            return Ok(0);
        }
        self.trie.for_each_match(topic, nodes_max, found)
    }

    /// Every filter with its values. Filters with wildcards are written out anew, so this is not for the data path.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &[V])> {
        let exact = self.exact.iter().map(|(_, exact)| (Cow::Borrowed(&*exact.filter), &exact.values[..]));
        exact.chain(self.trie.iter().map(|(filter, values)| (Cow::Owned(filter), values)))
    }

    fn hash(&self, filter: &str) -> u32 {
        fold(self.hasher.hash_one(filter))
    }

    fn find_exact(&self, filter: &str, hash: u32) -> Option<u32> {
        self.exact_table.find(hash, |id| *self.exact[id].filter == *filter)
    }

    fn remove_exact(&mut self, filter: &str, is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let id = self.find_exact(filter, self.hash(filter))?;
        let exact = &mut self.exact[id];
        let place = exact.values.iter().position(is_it)?;
        let value = exact.values.swap_remove(place);
        if exact.values.is_empty() {
            let exact = self.exact.remove(id);
            self.exact_table.remove(exact.hash, id);
        }
        Some(value)
    }

    /// Checks the invariants of all parts.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        self.trie.validate();
        assert_eq!(self.exact.len(), self.exact_table.len());
        assert_eq!(self.iter().map(|(_, values)| values.len()).sum::<usize>(), self.len);
        assert!(self.iter().all(|(_, values)| !values.is_empty()));
    }
}

impl<V> Default for FilterIndex<V> {
    fn default() -> Self {
        Self::new()
    }
}
