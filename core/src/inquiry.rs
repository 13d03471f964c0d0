//! Which groups have a QoS 2 publish that may have been tried before, as the publisher's node knows it, and who may have noted that.
//!
//! ```text
//! Known ──offered to groups──► Unknown ──tried again──► Asking ──all have answered──► Known: the groups found have it, the others are offered it
//!                                                       ▲    │
//!                                                       └────┘ an answer was lost: asked once more
//! ```

use crate::ids::{NodeIdx, RangeIdx};
use crate::origins::group_id;
use crate::ports::{GroupMatch, Origin};
use alloc::vec::Vec;

/// Which groups have a QoS 2 publish?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Whose it is; tries up to this one are over.
    pub origin: Origin,
    /// See [`content_of`](crate::delivered::content_of).
    pub content: u64,
}

/// Who was given a publish, and may have noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Connections of this node.
    Live,
    /// Inboxes of a range.
    Range(RangeIdx),
    /// Another node's connections.
    Node(NodeIdx),
}

/// What is known of the groups that have a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// Nothing.
    Unknown,
    /// These do, by the answers so far.
    Asking(Vec<u64>),
    /// These do, and no others.
    Known(Vec<u64>),
}

impl Groups {
    /// Of a publish that was offered to none.
    pub const NONE: Self = Self::Known(Vec::new());

    /// Of one whose client may have sent it before, or not.
    #[must_use]
    pub const fn of(is_repeated: bool) -> Self {
        if is_repeated { Self::Unknown } else { Self::NONE }
    }

    /// Whether a group is known to have it.
    #[must_use]
    pub fn include(&self, group: &GroupMatch) -> bool {
        matches!(self, Self::Known(found) if found.contains(&group_id(&group.filter, &group.group)))
    }

    /// Somebody has answered that these do.
    pub fn hear(&mut self, groups: &[u64]) {
        if let Self::Asking(found) = self {
            found.extend(groups);
        }
    }

    /// All have answered. False: nobody was asked.
    pub fn settle(&mut self) -> bool {
        let Self::Asking(found) = self else { return false };
        *self = Self::Known(core::mem::take(found));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::GroupName;

    #[test]
    fn groups_have_a_publish_if_somebody_says_so_and_all_have_answered() {
        let group = |name: &str| GroupMatch {
            group: GroupName { name: name.into(), ordered: false },
            filter: "t".into(),
            members: Vec::new(),
        };
        let id = |of: &GroupMatch| group_id(&of.filter, &of.group);
        let mut groups = Groups::of(true);
        groups.hear(&[id(&group("a"))]);
        assert_eq!((groups.settle(), &groups), (false, &Groups::Unknown), "nobody was asked");
        groups = Groups::Asking(Vec::new());
        groups.hear(&[id(&group("a"))]);
        assert!(!groups.include(&group("a")), "another may say so, too");
        assert!(groups.settle() && groups.include(&group("a")) && !groups.include(&group("b")));
        assert!(!groups.settle() && !Groups::of(false).include(&group("a")));
    }
}
