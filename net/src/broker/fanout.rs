//! The fan-out table: which connections of this shard subscribe to which filter.
//!
//! A filter has one entry, whatever the number of its subscribers, and one route in dist; the entry's place is what the
//! route names. A shared subscription has an entry of its own per member, because dist chooses among members.
//!
//! # Invariants
//! - An entry without subscribers does not exist, and its slot's generation is spent.
//! - `subscribers[p]` of entry `e` is listed as `SubRef { e, p }` by its connection, and nowhere else.

use super::conn::ConnTable;
use bifro_core::ids::{PublisherKey, ReqId, Slot, TenantIdx};
use bifro_core::ports::{GroupName, SubOptions};
use bifro_mqtt::session::Token;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::num::NonZeroU32;
use std::rc::Rc;

/// One subscriber of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) conn: Slot,
    pub(crate) options: SubOptions,
    /// Whose own messages it does not want, if it said No Local.
    pub(crate) key: PublisherKey,
}

/// How far the entry's route is.
#[derive(Debug)]
pub(crate) enum Route {
    /// Asked for; these subscriptions wait for it.
    Adding(ReqId, Vec<(Slot, Token)>),
    /// Every publish on this node finds it.
    Added,
}

/// A filter with subscribers on this shard.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tenant: TenantIdx,
    /// Without share prefix.
    pub(crate) filter: Rc<str>,
    pub(crate) group: Option<Rc<GroupName>>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) route: Route,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    entry: Option<Entry>,
}

/// A delivery merged from several subscriptions of one connection.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) conn: Slot,
    pub(crate) options: SubOptions,
    pub(crate) ids: SmallVec<[NonZeroU32; 2]>,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct FanoutTable {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Entries of filters that are not shared.
    by_filter: HashMap<(TenantIdx, Rc<str>), u32>,
    subscriptions: usize,
}

impl FanoutTable {
    /// Subscriptions of all connections.
    pub(crate) const fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<&Entry> {
        let place = self.places.get(slot.index as usize).filter(|place| place.generation == slot.generation)?;
        place.entry.as_ref()
    }

    pub(crate) fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        let place = self.places.get_mut(slot.index as usize).filter(|place| place.generation == slot.generation)?;
        place.entry.as_mut()
    }

    /// The entry of a filter that is not shared.
    pub(crate) fn find(&self, tenant: TenantIdx, filter: &str) -> Option<Slot> {
        let index = *self.by_filter.get(&(tenant, Rc::from(filter)))?;
        Some(self.slot(index))
    }

    /// The entry of `conn`'s subscription to this filter and group.
    pub(crate) fn find_of(
        &self,
        subs: &[super::conn::SubRef],
        filter: &str,
        group: Option<&GroupName>,
    ) -> Option<Slot> {
        subs.iter().map(|sub| self.slot(sub.entry)).find(|&slot| {
            self.entry(slot).is_some_and(|entry| &*entry.filter == filter && entry.group.as_deref() == group)
        })
    }

    /// The place of an entry that has subscribers.
    pub(crate) fn place(&self, index: u32) -> Option<Slot> {
        let place = self.places.get(index as usize)?;
        place.entry.as_ref().map(|_| Slot { index, generation: place.generation })
    }

    /// Makes an entry; it must get its first subscriber before anything else is done with the table.
    pub(crate) fn create(&mut self, entry: Entry) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 filters fit in memory")
        });
        if entry.group.is_none() {
            self.by_filter.insert((entry.tenant, entry.filter.clone()), index);
        }
        self.places[index as usize].entry = Some(entry);
        self.slot(index)
    }

    /// Adds a subscriber and lists it at its connection.
    pub(crate) fn subscribe(&mut self, conns: &mut ConnTable, slot: Slot, subscriber: Subscriber) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let position = u32::try_from(entry.subscribers.len()).expect("fewer than 2^32 connections");
        let conn = subscriber.conn;
        entry.subscribers.push(subscriber);
        self.subscriptions += 1;
        if let Some(conn) = conns.get_mut(conn) {
            conn.subs.push(super::conn::SubRef { entry: slot.index, position });
        }
    }

    /// Replaces the options of a subscriber. False if it is not one.
    pub(crate) fn replace(&mut self, conns: &ConnTable, slot: Slot, conn: Slot, options: SubOptions) -> bool {
        let position = conns
            .get(conn)
            .and_then(|conn| conn.subs.iter().find(|sub| sub.entry == slot.index))
            .map(|sub| sub.position as usize);
        match (position, self.entry_mut(slot)) {
            (Some(position), Some(entry)) => {
                entry.subscribers[position].options = options;
                true
            }
            _ => false,
        }
    }

    /// Removes `conn` from an entry. Returns the entry if that was its last subscriber: its route is to be removed.
    pub(crate) fn unsubscribe(&mut self, conns: &mut ConnTable, slot: Slot, conn: Slot) -> Option<Entry> {
        let listed = conns.get_mut(conn)?;
        // From the end: a session that ends leaves its last entry first, so that many of them cost no square of their number.
        let at = listed.subs.iter().rposition(|sub| sub.entry == slot.index)?;
        let position = listed.subs.swap_remove(at).position as usize;
        if listed.subs.is_empty() {
            listed.subs.shrink_to_fit();
        }
        self.subscriptions -= 1;
        let entry = self.entry_mut(slot)?;
        let removed = entry.subscribers.swap_remove(position);
        assert_eq!(removed.conn, conn, "a subscriber's place is listed by its connection");
        if let Some(moved) = entry.subscribers.get(position).map(|subscriber| subscriber.conn) {
            let subs = conns.get_mut(moved).map(|conn| conn.subs.iter_mut());
            if let Some(sub) = subs.and_then(|mut subs| subs.find(|sub| sub.entry == slot.index)) {
                sub.position = u32::try_from(position).expect("it fitted before");
            }
        }
        if !entry.subscribers.is_empty() {
            return None;
        }
        let place = &mut self.places[slot.index as usize];
        place.generation = place.generation.wrapping_add(1);
        let entry = place.entry.take()?;
        if entry.group.is_none() {
            self.by_filter.remove(&(entry.tenant, entry.filter.clone()));
        }
        self.free.push(slot.index);
        Some(entry)
    }

    /// Merges the subscribers of several entries by connection: the highest QoS, every subscription id
    /// [MQTT-3.3.5-1] [MQTT5-3.3.4-3], Retain As Published if any asks for it. No Local speaks for its own subscription only.
    pub(crate) fn merge(&self, slots: &[Slot], publisher: PublisherKey, merged: &mut Vec<Merged>) {
        merged.clear();
        let entries = slots.iter().filter_map(|&slot| self.entry(slot));
        for subscriber in entries.flat_map(|entry| &entry.subscribers) {
            if subscriber.options.no_local && subscriber.key == publisher {
                continue;
            }
            let ids = subscriber.options.subscription_id.into_iter().collect();
            merged.push(Merged { conn: subscriber.conn, options: subscriber.options, ids });
        }
        merged.sort_by_key(|delivery| delivery.conn);
        merged.dedup_by(|next, first| {
            let same = next.conn == first.conn;
            if same {
                first.options.qos = first.options.qos.max(next.options.qos);
                first.options.retain_as_published |= next.options.retain_as_published;
                // One subscription that is permitted as a whole is enough.
                first.options.check_deliveries &= next.options.check_deliveries;
                first.ids.extend_from_slice(&next.ids);
            }
            same
        });
    }

    /// # Panics
    /// If an invariant of the module's page does not hold.
    #[cfg(test)]
    pub(crate) fn validate(&self, conns: &ConnTable) {
        let mut subscriptions = 0;
        for index in 0..u32::try_from(self.places.len()).expect("fewer than 2^32") {
            let Some(slot) = self.place(index) else { continue };
            let entry = self.entry(slot).expect("the place is taken");
            assert!(!entry.subscribers.is_empty(), "an entry without subscribers does not exist");
            assert!(entry.group.is_some() || self.find(entry.tenant, &entry.filter) == Some(slot));
            for (position, subscriber) in (0_u32..).zip(&entry.subscribers) {
                let conn = conns.get(subscriber.conn).expect("a subscriber is connected");
                let listed = conn.subs.iter().filter(|sub| sub.entry == index && sub.position == position).count();
                assert_eq!(listed, 1, "a subscriber's place is listed by its connection");
                subscriptions += 1;
            }
        }
        assert_eq!(subscriptions, self.subscriptions);
        assert_eq!(
            subscriptions,
            (0..conns.bound()).filter_map(|i| conns.get(conns.at(i)?)).map(|c| c.subs.len()).sum()
        );
    }

    fn slot(&self, index: u32) -> Slot {
        Slot { index, generation: self.places[index as usize].generation }
    }
}
