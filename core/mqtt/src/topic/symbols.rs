//! Interned level strings: each distinct level is stored once and counted, and a trie edge is a pair of integers.
//!
//! Hashing is seeded per instance, so that clients cannot choose levels that collide; nothing depends on its order.

use super::arena::{Arena, IdTable, fold};
use alloc::boxed::Box;
use core::hash::BuildHasher;
use hashbrown::DefaultHashBuilder;

/// Levels in use.
#[derive(Clone, Debug)]
pub(super) struct Symbols {
    hasher: DefaultHashBuilder,
    table: IdTable,
    symbols: Arena<Symbol>,
}

#[derive(Clone, Debug)]
struct Symbol {
    text: Box<str>,
    hash: u32,
    /// Trie nodes with this level; below the number of nodes, hence of ids.
    uses: u32,
}

impl Symbols {
    pub(super) fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), table: IdTable::default(), symbols: Arena::new() }
    }

    /// The symbol of a level, if the level is in use.
    pub(super) fn find(&self, level: &str) -> Option<u32> {
        self.find_hashed(level, self.hash(level))
    }

    /// The symbol of a level, with one more use; [`Symbols::release`] gives it back.
    pub(super) fn acquire(&mut self, level: &str) -> u32 {
        let hash = self.hash(level);
        if let Some(id) = self.find_hashed(level, hash) {
            self.symbols[id].uses += 1;
            return id;
        }
        let id = self.symbols.insert(Symbol { text: level.into(), hash, uses: 1 });
        self.table.insert(hash, id);
        id
    }

    /// Takes one use away, and the symbol with the last one.
    pub(super) fn release(&mut self, id: u32) {
        let symbol = &mut self.symbols[id];
        symbol.uses -= 1;
        if symbol.uses == 0 {
            let symbol = self.symbols.remove(id);
            self.table.remove(symbol.hash, id);
        }
    }

    /// The level a symbol stands for.
    pub(super) fn text(&self, id: u32) -> &str {
        &self.symbols[id].text
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.symbols.len(), self.table.len());
        self.symbols.len()
    }

    fn hash(&self, level: &str) -> u32 {
        fold(self.hasher.hash_one(level))
    }

    fn find_hashed(&self, level: &str, hash: u32) -> Option<u32> {
        self.table.find(hash, |id| *self.symbols[id].text == *level)
    }
}
