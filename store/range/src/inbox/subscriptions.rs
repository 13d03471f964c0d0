//! The subscriptions of one session, each with the state of its route.

use crate::dist::RouteFilter;
use crate::key::ReplyTo;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ports::{PortError, SubOptions};
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Those who have subscribed to a filter whose route is on its way, and whether the filter was subscribed when they did.
pub(super) type Waiting = SmallVec<[(ReplyTo, bool); 1]>;

#[derive(Debug)]
pub(super) enum Route {
    /// Being added; these hear of it.
    Pending(Waiting),
    /// In place: every publish finds it.
    Added,
}

#[derive(Debug)]
pub(super) struct Subscription {
    /// Filter as the client wrote it.
    pub(super) full: Arc<str>,
    pub(super) target: Arc<RouteFilter>,
    pub(super) options: SubOptions,
    pub(super) route: Route,
}

/// Ordered by place, which grows with every new subscription and is never used again.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    ordered: Vec<(u32, Subscription)>,
    places: HashMap<Arc<str>, u32>,
    next: u32,
}

impl Subscriptions {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Subscription)> {
        self.ordered.iter().map(|(place, subscription)| (*place, subscription))
    }

    pub(super) fn at(&self, place: u32) -> Option<&Subscription> {
        self.index(place).map(|index| &self.ordered[index].1)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut Subscription> {
        self.index(place).map(|index| &mut self.ordered[index].1)
    }

    /// The subscription to `full` with its place, if there is one.
    pub(super) fn find(&self, full: &str) -> Option<(u32, &Subscription)> {
        let place = *self.places.get(full)?;
        Some((place, self.at(place)?))
    }

    /// Puts a subscription that an earlier process left in its place, behind all others; its route is to be added.
    pub(super) fn restore(&mut self, place: u32, full: &str, target: Arc<RouteFilter>, options: SubOptions) {
        let full: Arc<str> = full.into();
        self.next = place.saturating_add(1);
        self.places.insert(full.clone(), place);
        self.ordered.push((place, Subscription { full, target, options, route: Route::Pending(SmallVec::new()) }));
    }

    /// The subscription to `full`, if there is one.
    pub(super) fn find_mut(&mut self, full: &str) -> Option<&mut Subscription> {
        let place = *self.places.get(full)?;
        self.at_mut(place)
    }

    /// Adds a subscription to a filter that has none, its route pending, and returns its place.
    ///
    /// # Errors
    /// After 2^32 subscriptions the session has no places left.
    pub(super) fn add(
        &mut self,
        full: &str,
        target: Arc<RouteFilter>,
        options: SubOptions,
        to: ReplyTo,
    ) -> Result<u32, PortError> {
        let place = self.next;
        self.next = place.checked_add(1).ok_or(PortError::QuotaExceeded)?;
        let full: Arc<str> = full.into();
        let route = Route::Pending(SmallVec::from_iter([(to, false)]));
        self.places.insert(full.clone(), place);
        self.ordered.push((place, Subscription { full, target, options, route }));
        Ok(place)
    }

    pub(super) fn remove(&mut self, full: &str) -> Option<(u32, Subscription)> {
        let place = self.places.remove(full)?;
        self.index(place).map(|index| self.ordered.remove(index))
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (u32, Subscription)> {
        self.places.clear();
        self.ordered.drain(..)
    }

    fn index(&self, place: u32) -> Option<usize> {
        self.ordered.binary_search_by_key(&place, |&(place, _)| place).ok()
    }
}
