//! A message of QoS 2 comes to one member of a shared group, whatever dies and however often it is tried; it may come again under its place in the same session. What was
//! acknowledged comes to one if the members all have sessions, and one of them had subscribed before it was published.
//!
//! A connection without a session may have had a message on a node that is taken for dead since, and that nobody can ask any more. So where some members are such connections, this
//! is looked at only while no node can be taken for dead that lives.

use super::super::talk::{ConnId, Mark, SESSIONS, is_for};
use crate::queue::Moment;
use bifro_core::ids::InboxSeq;
use std::collections::{BTreeMap, BTreeSet};

/// Which member has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Session(usize, InboxSeq),
    Conn(ConnId),
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// No node is taken for dead that lives.
    pub(crate) is_calm: bool,
    /// By filter of the group.
    had: BTreeMap<(usize, Mark), Member>,
    /// Published while it was calm.
    calm: BTreeSet<Mark>,
    /// Since when there is a member with a session whose members all have one.
    since: Option<Moment>,
    /// To be had by a member of that group.
    owed: BTreeSet<Mark>,
}

impl Groups {
    /// A session has SUBACK.
    pub(crate) fn joined(&mut self, filter: usize, since: Moment) {
        if filter == SESSIONS {
            self.since.get_or_insert(since);
        }
    }

    /// A message is published for the first time.
    pub(crate) fn published(&mut self, mark: Mark, at: Moment) {
        if self.is_calm {
            self.calm.insert(mark);
        }
        if self.since.is_some_and(|since| since <= at) && is_for(mark.topic, SESSIONS) {
            self.owed.insert(mark);
        }
    }

    /// Nobody needs to have it.
    pub(crate) fn refused(&mut self, mark: Mark) {
        self.owed.remove(&mark);
    }

    /// A member has it.
    pub(crate) fn got(&mut self, filter: usize, mark: Mark, member: Member) {
        if filter == SESSIONS {
            self.owed.remove(&mark);
        }
        if !mark.once {
            return;
        }
        let first = *self.had.entry((filter, mark)).or_insert(member);
        let is_owed_once = filter == SESSIONS || self.calm.contains(&mark);
        assert!(first == member || !is_owed_once, "{mark:?} comes to {first:?} and {member:?} of one group");
    }

    /// What of these was never had.
    pub(crate) fn missed(&self, mut is_acknowledged: impl FnMut(Mark) -> bool) -> Option<Mark> {
        self.owed.iter().copied().find(|mark| is_acknowledged(*mark))
    }
}
