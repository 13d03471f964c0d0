//! The session's subscriptions: full filter to options, sorted, in one allocation that grows with them.

use super::{Cx, Session, Token};
use crate::topic::{ParsedFilter, TopicLimits};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bifro_core::limits::TOPIC_LEVELS_HARD_MAX;
use bifro_core::ports::{GroupName, SubOptions};
use bifro_core::settings::Resource;

/// Longest filter there can be, in bytes: its length has two bytes.
const FILTER_BYTES_MAX: usize = 65_535;

/// What was within the limits once is within these.
const HARD_LIMITS: TopicLimits =
    TopicLimits { bytes_max: FILTER_BYTES_MAX, levels_max: TOPIC_LEVELS_HARD_MAX, level_bytes_max: FILTER_BYTES_MAX };

/// One subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Filter as the client wrote it.
    pub(super) full: Box<str>,
    pub(super) options: SubOptions,
    /// Of the request that last set it; none if it was restored.
    pub(super) token: Option<Token>,
}

/// The table; `entries` is sorted by filter.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    entries: Vec<Subscription>,
}

impl Subscriptions {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&self, full: &str) -> Option<&Subscription> {
        self.place(full).ok().and_then(|at| self.entries.get(at))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Subscription> {
        self.entries.iter_mut()
    }

    fn place(&self, full: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.full).cmp(full))
    }

    /// Adds or replaces a subscription; returns the options it had.
    pub(super) fn set(&mut self, full: &str, options: SubOptions, token: Option<Token>) -> Option<SubOptions> {
        match self.place(full) {
            Ok(at) => {
                let entry = &mut self.entries[at];
                entry.token = token;
                Some(core::mem::replace(&mut entry.options, options))
            }
            Err(at) => {
                if self.entries.capacity() == 0 {
                    self.entries.reserve_exact(1); // most sessions have one
                }
                self.entries.insert(at, Subscription { full: full.into(), options, token });
                None
            }
        }
    }

    /// A subscription of an earlier connection.
    pub(super) fn restore(&mut self, full: Box<str>, options: SubOptions) {
        self.set(&full, options, None);
    }

    pub(super) fn remove(&mut self, full: &str) -> Option<Subscription> {
        self.place(full).ok().map(|at| self.entries.remove(at))
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.entries.capacity() * size_of::<Subscription>()
            + self.entries.iter().map(|entry| entry.full.len()).sum::<usize>()
    }

    /// # Panics
    /// If the table is not sorted.
    pub(super) fn validate(&self) {
        assert!(self.entries.is_sorted_by(|a, b| a.full < b.full), "subscriptions are sorted and distinct");
    }
}

/// A full filter taken apart: filter without prefix, and group.
pub(super) fn take_apart(full: &str) -> (&str, Option<GroupName>) {
    match ParsedFilter::parse(full, &HARD_LIMITS) {
        Ok(parsed) => (parsed.filter, group_of(&parsed)),
        // Cannot be: it was parsed when it was subscribed. As a plain filter it is at worst ended as one.
        Err(_) => (full, None),
    }
}

/// The group of a shared filter.
pub(super) fn group_of(parsed: &ParsedFilter<'_>) -> Option<GroupName> {
    parsed.group.map(|(name, ordered)| GroupName { name: name.into(), ordered })
}

/// Whether a full filter that was accepted is shared.
fn is_shared(full: &str) -> bool {
    ParsedFilter::parse(full, &HARD_LIMITS).is_ok_and(|parsed| parsed.group.is_some())
}

impl Session {
    /// The subscriptions of the session: full filter as the client wrote it, and options. They can still be read when the
    /// session has ended, so that the driver may take down the routes of a transient session.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&str, &SubOptions)> {
        self.subscriptions.as_deref().into_iter().flat_map(Subscriptions::iter).map(|s| (&*s.full, &s.options))
    }

    /// Takes a transient session's share of the tenant's subscriptions; the inbox counts those of persistent ones.
    pub(super) fn acquire_subscription(&self, cx: &Cx<'_>, shared: bool) -> bool {
        let quota = &cx.tenant.quota;
        if self.is_persistent() {
            return true;
        }
        if !quota.acquire(Resource::TotalTransientSubscriptions, 1) {
            return false;
        }
        if shared && !quota.acquire(Resource::TotalSharedSubscriptions, 1) {
            quota.release(Resource::TotalTransientSubscriptions, 1);
            return false;
        }
        true
    }

    /// Gives back what [`Session::acquire_subscription`] took.
    pub(super) fn release_subscription(&self, cx: &Cx<'_>, full: &str) {
        if self.is_persistent() {
            return;
        }
        cx.tenant.quota.release(Resource::TotalTransientSubscriptions, 1);
        if is_shared(full) {
            cx.tenant.quota.release(Resource::TotalSharedSubscriptions, 1);
        }
    }

    /// Gives back the shares of all subscriptions at the end of the session.
    pub(super) fn release_subscriptions(&self, cx: &Cx<'_>) {
        for subscription in self.subscriptions.as_deref().into_iter().flat_map(Subscriptions::iter) {
            self.release_subscription(cx, &subscription.full);
        }
    }

    /// Removes a subscription with its share of the quota.
    pub(super) fn drop_subscription(&mut self, cx: &Cx<'_>, full: &str) -> Option<Subscription> {
        let removed = self.subscriptions.as_deref_mut()?.remove(full)?;
        self.release_subscription(cx, full);
        Some(removed)
    }
}
