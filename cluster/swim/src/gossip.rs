//! Rumours that are still to be passed on, the least told first.

use crate::message::Rumour;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;

/// How often a rumour has been told, and a number that makes younger ones of equally told come first.
type Place = (u32, u64);

/// See the module's page. There is at most one rumour about a node: news replace it.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    queue: BTreeMap<Place, Rumour>,
    places: BTreeMap<NodeId, Place>,
    added: u64,
}

impl Gossip {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// To be told from now on, instead of what was told about its subject.
    pub(crate) fn add(&mut self, rumour: Rumour) {
        self.added += 1;
        self.put((0, u64::MAX - self.added), rumour);
    }

    /// The rumours for one message: `first` whatever else there is, then the least told, each at most once. One that has been told
    /// `most` times is dropped.
    pub(crate) fn tell(&mut self, first: Option<Rumour>, most: u32, room: usize) -> Vec<Rumour> {
        let subject = first.as_ref().map(Rumour::subject);
        let mut told: Vec<Rumour> = first.into_iter().collect();
        let places = self.queue.iter().filter(|(_, rumour)| Some(rumour.subject()) != subject);
        let chosen: Vec<Place> = places.map(|(&place, _)| place).take(room.saturating_sub(told.len())).collect();
        for place in chosen {
            let Some(rumour) = self.queue.remove(&place) else { continue };
            self.places.remove(&rumour.subject());
            told.push(rumour.clone());
            if place.0 + 1 < most {
                self.put((place.0 + 1, place.1), rumour);
            }
        }
        told
    }

    fn put(&mut self, place: Place, rumour: Rumour) {
        if let Some(old) = self.places.insert(rumour.subject(), place) {
            self.queue.remove(&old);
        }
        self.queue.insert(place, rumour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Incarnation;
    use alloc::vec;

    fn dead(id: u64, word: u32) -> Rumour {
        Rumour::Dead { id: NodeId(id), incarnation: Incarnation { start: 1, word } }
    }

    #[test]
    fn the_least_told_comes_first_and_what_was_told_often_enough_is_dropped() {
        let mut gossip = Gossip::default();
        gossip.add(dead(1, 0));
        assert_eq!(gossip.tell(None, 3, 1), vec![dead(1, 0)]);
        gossip.add(dead(2, 0));
        assert_eq!(gossip.tell(None, 3, 1), vec![dead(2, 0)]);
        assert_eq!(gossip.tell(None, 3, 9).len(), 2);
        assert_eq!(gossip.tell(None, 3, 9).len(), 2);
        assert!(gossip.is_empty() && gossip.tell(None, 3, 9).is_empty());
    }

    #[test]
    fn news_replace_what_was_told_about_the_same_node() {
        let mut gossip = Gossip::default();
        gossip.add(dead(1, 0));
        gossip.tell(None, 3, 1);
        gossip.add(dead(1, 7));
        assert_eq!(gossip.tell(Some(dead(1, 9)), 3, 9), vec![dead(1, 9)], "what is told first is not told twice");
        assert_eq!(gossip.tell(None, 1, 9), vec![dead(1, 7)]);
        assert!(gossip.is_empty());
    }
}
