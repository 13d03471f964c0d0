//! A table whose places carry generations: a [`Slot`] that outlives its occupant finds nobody, never the successor.

use alloc::vec::Vec;
use bifro_core::ids::Slot;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    occupant: Option<T>,
}

/// Occupants by [`Slot`]. Memory follows the highest number of occupants there ever were.
///
/// Generations are counted by the table, not by the place: the one of the last occupant is all that has to be remembered for the next
/// process to give out none again. The count returns after 2^32 occupants.
#[derive(Debug)]
pub(crate) struct SlotTable<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    last_generation: u32,
}

impl<T> SlotTable<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), last_generation: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// # Panics
    /// At 2^32 occupants, which no memory holds.
    pub(crate) fn insert(&mut self, occupant: impl FnOnce(Slot) -> T) -> Slot {
        self.last_generation = self.last_generation.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, occupant: None });
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 occupants")
        });
        let slot = Slot { index, generation: self.last_generation };
        self.places[index as usize] = Place { generation: slot.generation, occupant: Some(occupant(slot)) };
        slot
    }

    /// Puts an occupant of an earlier process back in its place, which must be free. To be ended by [`Self::restored`].
    pub(crate) fn restore(&mut self, slot: Slot, occupant: T) -> bool {
        let index = slot.index as usize;
        while self.places.len() <= index {
            self.places.push(Place { generation: 0, occupant: None });
        }
        let place = &mut self.places[index];
        let is_free = place.occupant.is_none();
        if is_free {
            *place = Place { generation: slot.generation, occupant: Some(occupant) };
        }
        is_free
    }

    /// All occupants are back in their places; `last_generation` was given out by the earlier process.
    pub(crate) fn restored(&mut self, last_generation: u32) {
        self.last_generation = last_generation;
        let vacant = (0..).zip(&self.places).filter(|(_, place)| place.occupant.is_none());
        self.free = vacant.map(|(index, _)| index).collect();
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
        let old = table.insert(|_| 'a');
        assert_eq!(table.remove(old), Some('a'));
        let new = table.insert(|_| 'b');
        assert_eq!(new.index, old.index, "the place is used again");
        assert_eq!(table.occupant(old), None);
        assert_eq!(table.occupant_mut(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!((table.occupant(new), table.len()), (Some(&'b'), 1));
        assert_eq!(table.occupant(Slot { index: 9, generation: 0 }), None);
    }

    #[test]
    fn a_restored_table_gives_out_no_slot_of_the_earlier_process() {
        let mut table = SlotTable::new();
        let slots: Vec<Slot> = (0..3).map(|_| table.insert(|_| ())).collect();
        let mut again = SlotTable::new();
        assert!(again.restore(slots[2], ()) && !again.restore(slots[2], ()));
        again.restored(slots[2].generation);
        let new: Vec<Slot> = (0..3).map(|_| again.insert(|_| ())).collect();
        assert!(new.iter().all(|slot| !slots.contains(slot)), "{new:?}");
        assert_eq!((new[2].index, again.len()), (3, 4), "free places are used first");
    }
}
