//! A table whose places carry generations: a [`Slot`] that outlives its occupant finds nobody, never the successor.

use alloc::vec::Vec;
use bifro_core::ids::Slot;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    occupant: Option<T>,
}

/// Occupants by [`Slot`]. Memory follows the highest number of occupants there ever were.
#[derive(Debug)]
pub(crate) struct SlotTable<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> SlotTable<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// # Panics
    /// At 2^32 occupants, which no memory holds.
    pub(crate) fn insert(&mut self, occupant: T) -> Slot {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.occupant = Some(occupant);
            return Slot { index, generation: place.generation };
        }
        let index = u32::try_from(self.places.len()).expect("fewer than 2^32 occupants");
        self.places.push(Place { generation: 0, occupant: Some(occupant) });
        Slot { index, generation: 0 }
    }

    pub(crate) fn occupant(&self, slot: Slot) -> Option<&T> {
        let place = self.places.get(slot.index as usize)?;
        if place.generation == slot.generation { place.occupant.as_ref() } else { None }
    }

    pub(crate) fn occupant_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation == slot.generation { place.occupant.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation != slot.generation {
            return None;
        }
        let occupant = place.occupant.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        Some(occupant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_outlives_its_occupant_finds_nobody() {
        let mut table = SlotTable::new();
        let old = table.insert('a');
        assert_eq!(table.remove(old), Some('a'));
        let new = table.insert('b');
        assert_eq!(new.index, old.index, "the place is used again");
        assert_eq!(table.occupant(old), None);
        assert_eq!(table.occupant_mut(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!((table.occupant(new), table.len()), (Some(&'b'), 1));
        assert_eq!(table.occupant(Slot { index: 9, generation: 0 }), None);
    }
}
