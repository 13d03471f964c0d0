//! One layer of a range's changes in memory: an ordered map in which a put and its delete annihilate if nothing lies below.

use std::collections::BTreeMap;
use std::ops::Bound;

/// What a layer says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    /// It has this value.
    Put {
        value: Box<[u8]>,
        /// A layer below may have the key too, so that a delete must leave a mark.
        covers: bool,
    },
    /// It is gone, whatever is below.
    Gone,
}

/// Bytes a key costs beside itself and its value: the map's node, the slot, two allocations.
const SLOT_BYTES: usize = 80;

/// A layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    slots: BTreeMap<Box<[u8]>, Slot>,
    bytes: usize,
}

/// Whether something below may have a key.
pub(super) type Below = bool;

fn cost(key: &[u8], slot: &Slot) -> usize {
    let value = match slot {
        Slot::Put { value, .. } => value.len(),
        Slot::Gone => 0,
    };
    SLOT_BYTES + key.len() + value
}

impl Overlay {
    /// Sets a key.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], below: Below) {
        let value: Box<[u8]> = value.into();
        match self.slots.get_mut(key) {
            Some(slot) => {
                self.bytes -= cost(key, slot);
                // What a mark or an earlier put covered is covered still.
                let covers = !matches!(slot, Slot::Put { covers: false, .. });
                *slot = Slot::Put { value, covers };
                self.bytes += cost(key, slot);
            }
            None => self.set(key, Slot::Put { value, covers: below }),
        }
    }

    /// Deletes a key. True if it annihilated a put.
    pub(super) fn delete(&mut self, key: &[u8], below: Below) -> bool {
        match self.slots.get_mut(key) {
            Some(Slot::Put { covers: false, .. }) => {
                let slot = self.slots.remove(key).expect("just found");
                self.bytes -= cost(key, &slot);
                true
            }
            Some(slot) => {
                self.bytes -= cost(key, slot);
                *slot = Slot::Gone;
                self.bytes += cost(key, slot);
                false
            }
            None if below => {
                self.set(key, Slot::Gone);
                false
            }
            None => false,
        }
    }

    fn set(&mut self, key: &[u8], slot: Slot) {
        self.bytes += cost(key, &slot);
        self.slots.insert(key.into(), slot);
    }

    /// `None`: this layer does not know the key. `Some(None)`: it is gone.
    pub(super) fn find(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.slots.get(key).map(Slot::value)
    }

    /// What it says of the keys from `from` on and before `to`.
    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let void = to.is_some_and(|to| to <= from);
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let range = (!void).then(|| self.slots.range::<[u8], _>(bounds));
        range.into_iter().flatten().map(|(key, slot)| (&**key, slot.value()))
    }

    /// About what it occupies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys it knows.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

impl Slot {
    fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Gone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_and_its_delete_annihilate_only_if_nothing_lies_below() {
        let mut layer = Overlay::default();
        layer.put(b"new", b"1", false);
        assert!(layer.delete(b"new", false));
        assert_eq!((layer.find(b"new"), layer.bytes(), layer.len()), (None, 0, 0));
        layer.put(b"old", b"1", true);
        assert!(!layer.delete(b"old", true));
        assert_eq!(layer.find(b"old"), Some(None));
    }

    #[test]
    fn a_put_over_a_mark_covers_what_the_mark_covered() {
        let mut layer = Overlay::default();
        layer.delete(b"k", true);
        layer.put(b"k", b"2", false);
        assert!(!layer.delete(b"k", false));
        assert_eq!(layer.find(b"k"), Some(None), "or the value below would come back");
    }

    #[test]
    fn bytes_follow_the_contents() {
        let mut layer = Overlay::default();
        layer.put(b"a", &[0; 100], true);
        let small = layer.bytes();
        layer.put(b"a", &[0; 300], true);
        assert_eq!(layer.bytes(), small + 200);
        layer.delete(b"a", true);
        assert_eq!(layer.bytes(), small - 100);
    }
}
