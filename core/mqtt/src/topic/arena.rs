//! Storage by 32-bit id: half the memory of pointers, one allocation for all, and dropping it takes no recursion.
//!
//! [`Arena`] holds the things, [`IdTable`] finds their ids by hash. Ids are reused; who holds one knows that its thing lives.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};
use hashbrown::HashTable;

/// The id of nothing.
pub(super) const NONE: u32 = u32::MAX;

/// Things with ids below [`NONE`], in slots that are reused last freed first.
#[derive(Clone, Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// First free slot, or [`NONE`].
    free: u32,
    len: usize,
}

#[derive(Clone, Debug)]
enum Slot<T> {
    Free { next: u32 },
    Used(T),
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Stores `thing` and gives its id.
    ///
    /// # Panics
    /// At 2^32 - 1 things, far beyond the memory of a machine.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        self.len += 1;
        if self.free == NONE {
            let id = u32::try_from(self.slots.len()).ok().filter(|&id| id != NONE);
            self.slots.push(Slot::Used(thing));
            return id.expect("an arena holds fewer than 2^32 - 1 things");
        }
        let id = self.free;
        let slot = &mut self.slots[id as usize];
        let Slot::Free { next } = *slot else { unreachable!("slot {id} is on the free list and used") };
        self.free = next;
        *slot = Slot::Used(thing);
        id
    }

    /// Takes the thing out; its id may be given again.
    pub(super) fn remove(&mut self, id: u32) -> T {
        let slot = core::mem::replace(&mut self.slots[id as usize], Slot::Free { next: self.free });
        let Slot::Used(thing) = slot else { unreachable!("slot {id} is freed twice") };
        self.free = id;
        self.len -= 1;
        thing
    }

    /// Ids and things, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        // The cast is exact: `insert` has given the id as a u32.
        self.slots.iter().enumerate().filter_map(|(id, slot)| match slot {
            Slot::Used(thing) => Some((id as u32, thing)),
            Slot::Free { .. } => None,
        })
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        match &self.slots[id as usize] {
            Slot::Used(thing) => thing,
            Slot::Free { .. } => unreachable!("slot {id} is free"),
        }
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        match &mut self.slots[id as usize] {
            Slot::Used(thing) => thing,
            Slot::Free { .. } => unreachable!("slot {id} is free"),
        }
    }
}

/// Ids by hash. The hash is kept beside the id, so that growing the table touches none of the things.
#[derive(Clone, Debug, Default)]
pub(super) struct IdTable {
    table: HashTable<HashedId>,
}

#[derive(Clone, Copy, Debug)]
struct HashedId {
    hash: u32,
    id: u32,
}

/// The table wants 64 bits with good ends; an odd multiplier carries the 32 bits there.
const fn spread(hash: u32) -> u64 {
    (hash as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The 32 bits of a hash that are kept.
pub(super) const fn fold(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

impl IdTable {
    /// The id with this hash that `is_it` confirms.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.table.find(spread(hash), |entry| entry.hash == hash && is_it(entry.id)).map(|entry| entry.id)
    }

    /// Adds an id that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, id: u32) {
        self.table.insert_unique(spread(hash), HashedId { hash, id }, |entry| spread(entry.hash));
    }

    /// Removes an id that is there.
    pub(super) fn remove(&mut self, hash: u32, id: u32) {
        let entry = self.table.find_entry(spread(hash), |entry| entry.id == id);
        let Ok(entry) = entry else { unreachable!("id {id} is not under its hash") };
        entry.remove();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}
