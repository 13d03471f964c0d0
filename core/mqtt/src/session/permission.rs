//! Answers of the authorizer that the session remembers. The authorizer is pure between two reloads, so an answer holds
//! until [`Session::handle_reloaded`](super::Session::handle_reloaded) or a re-authentication clears the cache.

use super::{Cx, Session};
use alloc::boxed::Box;
use bifro_core::limits::PERMISSION_CACHE_ENTRIES_MAX;
use bifro_core::plugin::{Action, Verdict};
use hashbrown::HashMap;

/// Verdicts per topic name; subscriptions to filters are rare and are not cached.
#[derive(Debug, Default)]
pub(super) struct PermissionCache {
    entries: HashMap<Box<str>, Verdicts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Verdicts {
    publish: Option<bool>,
    receive: Option<bool>,
}

impl Verdicts {
    const fn of(&mut self, action: Action) -> &mut Option<bool> {
        match action {
            Action::Publish => &mut self.publish,
            Action::Subscribe => &mut self.receive,
        }
    }
}

impl PermissionCache {
    /// Bytes on the heap, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        let entry = size_of::<(Box<str>, Verdicts)>() + 1;
        self.entries.capacity() * entry + self.entries.keys().map(|topic| topic.len()).sum::<usize>()
    }
}

impl Session {
    /// May the client publish to this topic name?
    pub(super) fn may_publish(&mut self, cx: &Cx<'_>, topic: &str) -> bool {
        self.may(cx, Action::Publish, topic)
    }

    /// May the client receive messages of this topic name?
    pub(super) fn may_receive(&mut self, cx: &Cx<'_>, topic: &str) -> bool {
        self.may(cx, Action::Subscribe, topic)
    }

    fn may(&mut self, cx: &Cx<'_>, action: Action, topic: &str) -> bool {
        // Nobody is permitted anything before authentication has said who it is.
        let Some(client) = self.client.as_deref() else { return false };
        let cache = self.permissions.get_or_insert_default();
        if let Some(verdicts) = cache.entries.get_mut(topic) {
            let verdict = verdicts.of(action);
            return *verdict.get_or_insert_with(|| cx.authorizer.check(client, action, topic) == Verdict::Allowed);
        }
        // A topic name is covered as a whole or not at all: `Partly` makes no sense for it, and denies.
        let allowed = cx.authorizer.check(client, action, topic) == Verdict::Allowed;
        if cache.entries.len() >= PERMISSION_CACHE_ENTRIES_MAX {
            cache.entries.clear();
        }
        *cache.entries.entry(topic.into()).or_default().of(action) = Some(allowed);
        allowed
    }
}
