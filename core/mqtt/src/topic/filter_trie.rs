//! The trie of the filters that have wildcards: one node per distinct prefix, one step per level.
//!
//! Nodes lie in an arena and name each other by id; literal edges of all nodes share one hash table keyed by (parent,
//! symbol of the level), so that a node costs the same 28 bytes whether it has one child or a million. The `+` child and the
//! values of `prefix/#` hang on the node of the prefix itself.
//!
//! Invariants: every node but the root has a value or a child; every non-root literal node is in the edge table; a filter's
//! values are in exactly one entry, which is never empty.

use super::arena::{Arena, IdTable, NONE, fold};
use super::filter_index::BudgetSpent;
use super::symbols::Symbols;
use super::{HASH, PLUS, split_level};
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use hashbrown::DefaultHashBuilder;
use smallvec::SmallVec;

const ROOT: u32 = 0;

/// Nodes of one depth while matching; more than ordinary filters reach at once, and what does not fit goes to the heap.
type Frontier = SmallVec<[u32; 32]>;

/// The values of one filter; mostly there is one.
pub(super) type Values<V> = SmallVec<[V; 1]>;

/// Wildcard filters and their values.
#[derive(Clone, Debug)]
pub(super) struct FilterTrie<V> {
    nodes: Arena<Node>,
    edges: IdTable,
    edge_hasher: DefaultHashBuilder,
    symbols: Symbols,
    entries: Arena<Entry<V>>,
}

/// A prefix of filters; absent ids are [`NONE`].
#[derive(Clone, Debug)]
struct Node {
    parent: u32,
    /// The level that leads here; none for the root and for `+`.
    symbol: u32,
    /// The child by `+`.
    plus: u32,
    /// Entry of the filter that ends here.
    exact: u32,
    /// Entry of the filter that ends here with `/#`.
    multi: u32,
    /// Number of children in the edge table.
    literals: u32,
}

impl Node {
    const fn new(parent: u32, symbol: u32) -> Self {
        Self { parent, symbol, plus: NONE, exact: NONE, multi: NONE, literals: 0 }
    }

    const fn is_garbage(&self) -> bool {
        self.plus == NONE && self.exact == NONE && self.multi == NONE && self.literals == 0
    }
}

#[derive(Clone, Debug)]
struct Entry<V> {
    node: u32,
    values: Values<V>,
}

/// The levels of a filter before a final `#` (none for the lone `#`), and whether there is one.
fn split_multi(filter: &str) -> (Option<&str>, bool) {
    match filter.strip_suffix(HASH) {
        Some("") => (None, true),
        Some(prefix) if prefix.ends_with('/') => (Some(&prefix[..prefix.len() - 1]), true),
        _ => (Some(filter), false),
    }
}

impl<V> FilterTrie<V> {
    pub(super) fn new() -> Self {
        let mut nodes = Arena::new();
        let root = nodes.insert(Node::new(NONE, NONE));
        assert_eq!(root, ROOT, "the root is the first node");
        Self {
            nodes,
            edges: IdTable::default(),
            edge_hasher: DefaultHashBuilder::default(),
            symbols: Symbols::new(),
            entries: Arena::new(),
        }
    }

    /// Number of filters.
    pub(super) const fn filters(&self) -> usize {
        self.entries.len()
    }

    /// Number of nodes without the root, which is always there.
    pub(super) const fn nodes(&self) -> usize {
        self.nodes.len() - 1
    }

    /// The values of a filter.
    pub(super) fn values(&self, filter: &str) -> &[V] {
        self.entry(filter).map_or(&[], |id| &self.entries[id].values)
    }

    /// The values of a filter, to change in place.
    pub(super) fn values_mut(&mut self, filter: &str) -> &mut [V] {
        match self.entry(filter) {
            Some(id) => &mut self.entries[id].values,
            None => &mut [],
        }
    }

    pub(super) fn insert(&mut self, filter: &str, value: V) {
        let (path, multi) = split_multi(filter);
        let (mut node, mut rest) = (ROOT, path);
        while let Some(levels) = rest {
            let (level, after) = split_level(levels);
            node = if level == PLUS { self.plus_or_new(node) } else { self.literal_or_new(node, level) };
            rest = after;
        }
        let at = &mut self.nodes[node];
        let slot = if multi { &mut at.multi } else { &mut at.exact };
        if *slot == NONE {
            *slot = self.entries.insert(Entry { node, values: Values::new() });
        }
        self.entries[*slot].values.push(value);
    }

    /// Removes the first of the filter's values that `is_it` picks, and with the last value all nodes only it needed.
    pub(super) fn remove(&mut self, filter: &str, is_it: impl FnMut(&V) -> bool) -> Option<V> {
        let id = self.entry(filter)?;
        let entry = &mut self.entries[id];
        let place = entry.values.iter().position(is_it)?;
        let value = entry.values.swap_remove(place);
        if entry.values.is_empty() {
            let node = self.entries.remove(id).node;
            let at = &mut self.nodes[node];
            let slot = if at.multi == id { &mut at.multi } else { &mut at.exact };
            assert_eq!(*slot, id, "an entry hangs on its node");
            *slot = NONE;
            self.prune(node);
        }
        Some(value)
    }

    /// Hands the values of every filter that matches `topic` to `found`. See `FilterIndex::for_each_match_within`.
    pub(super) fn for_each_match(
        &self,
        topic: &str,
        nodes_max: usize,
        mut found: impl FnMut(&V),
    ) -> Result<usize, BudgetSpent> {
        let mut emit = |entry: u32| {
            if entry != NONE {
                self.entries[entry].values.iter().for_each(&mut found);
            }
        };
        let (mut here, mut below): (Frontier, Frontier) = (Frontier::new(), Frontier::new());
        here.push(ROOT);
        // The root's wildcards do not see topics that begin with $ [MQTT-4.7.2-1] [MQTT5-4.7.2-1].
        let mut hidden = topic.starts_with('$');
        let (mut visited, mut rest) = (1, Some(topic));
        while let Some(levels) = rest {
            let (level, after) = split_level(levels);
            let mut symbol = None;
            for &id in &here {
                let node = &self.nodes[id];
                if !hidden {
                    emit(node.multi);
                    below.extend((node.plus != NONE).then_some(node.plus));
                }
                if node.literals > 0
                    && let Some(symbol) = *symbol.get_or_insert_with(|| self.symbols.find(level))
                {
                    below.extend(self.literal(id, symbol));
                }
                if visited + below.len() > nodes_max {
                    return Err(BudgetSpent { visited });
                }
            }
            visited += below.len();
            if below.is_empty() {
                return Ok(visited);
            }
            core::mem::swap(&mut here, &mut below);
            below.clear();
            (hidden, rest) = (false, after);
        }
        for &id in &here {
            emit(self.nodes[id].exact);
            emit(self.nodes[id].multi); // `a/#` matches `a` too
        }
        Ok(visited)
    }

    /// Filters with their values, in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, &[V])> {
        self.entries.iter().map(|(id, entry)| (self.filter(id, entry.node), &entry.values[..]))
    }

    /// Writes out the filter of an entry at a node.
    fn filter(&self, entry: u32, node: u32) -> String {
        let mut levels = Vec::new();
        if self.nodes[node].multi == entry {
            levels.push(HASH);
        }
        let mut id = node;
        while id != ROOT {
            let at = &self.nodes[id];
            levels.push(if at.symbol == NONE { PLUS } else { self.symbols.text(at.symbol) });
            id = at.parent;
        }
        levels.reverse();
        levels.join("/")
    }

    fn entry(&self, filter: &str) -> Option<u32> {
        let (path, multi) = split_multi(filter);
        let (mut node, mut rest) = (ROOT, path);
        while let Some(levels) = rest {
            let (level, after) = split_level(levels);
            node = match level {
                PLUS => Some(self.nodes[node].plus).filter(|&plus| plus != NONE)?,
                level => self.literal(node, self.symbols.find(level)?)?,
            };
            rest = after;
        }
        let entry = if multi { self.nodes[node].multi } else { self.nodes[node].exact };
        (entry != NONE).then_some(entry)
    }

    fn edge_hash(&self, parent: u32, symbol: u32) -> u32 {
        fold(self.edge_hasher.hash_one(u64::from(parent) << 32 | u64::from(symbol)))
    }

    fn literal(&self, parent: u32, symbol: u32) -> Option<u32> {
        self.edges.find(self.edge_hash(parent, symbol), |id| {
            let node = &self.nodes[id];
            node.parent == parent && node.symbol == symbol
        })
    }

    fn literal_or_new(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(id) = self.symbols.find(level).and_then(|symbol| self.literal(parent, symbol)) {
            return id;
        }
        let symbol = self.symbols.acquire(level);
        let id = self.nodes.insert(Node::new(parent, symbol));
        self.edges.insert(self.edge_hash(parent, symbol), id);
        self.nodes[parent].literals += 1;
        id
    }

    fn plus_or_new(&mut self, parent: u32) -> u32 {
        if self.nodes[parent].plus == NONE {
            self.nodes[parent].plus = self.nodes.insert(Node::new(parent, NONE));
        }
        self.nodes[parent].plus
    }

    /// Removes the node and then its ancestors, as long as nothing needs them.
    fn prune(&mut self, mut id: u32) {
        while id != ROOT && self.nodes[id].is_garbage() {
            let node = self.nodes.remove(id);
            let parent = &mut self.nodes[node.parent];
            if node.symbol == NONE {
                parent.plus = NONE;
            } else {
                parent.literals -= 1;
                self.edges.remove(self.edge_hash(node.parent, node.symbol), id);
                self.symbols.release(node.symbol);
            }
            id = node.parent;
        }
    }

    /// Checks the module's invariants.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        let literals = self.nodes.iter().filter(|(_, node)| node.symbol != NONE).count();
        assert_eq!(literals, self.edges.len(), "every literal node is in the edge table");
        let used: hashbrown::HashSet<u32> =
            self.nodes.iter().map(|(_, node)| node.symbol).filter(|&s| s != NONE).collect();
        assert_eq!(used.len(), self.symbols.len(), "every symbol is in use");
        assert!(self.nodes.iter().all(|(id, node)| id == ROOT || !node.is_garbage()), "no garbage nodes");
        assert!(self.entries.iter().all(|(_, entry)| !entry.values.is_empty()), "no empty entries");
    }
}
