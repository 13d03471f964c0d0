//! Topic names → values, asked with a filter: which retained messages, which cached topics does a subscription concern?
//!
//! The tree is implicit: topics lie in one ordered map, sorted by bytes, where every subtree is a run of neighbours, and
//! a filter is answered by stepping from candidate to candidate (`seek.rs`). This takes no memory for inner nodes, leaves
//! nothing behind on removal, and makes each topic's name its own bookmark: a walk can stop anywhere and go on later
//! although topics came and went in between.
//!
//! **Cost of a match.** Each step looks at one stored topic that was not looked at before, at O(bytes of the topic) plus one
//! search in the map. Steps are matches plus subtrees passed by: `a/#` takes one per match, `+/a` three per distinct first
//! level at most, whatever lies below. [`TopicTree::scan`] bounds them. Nothing recurses over levels.

use super::seek::{Step, first_candidate, step};
use alloc::boxed::Box;
use alloc::collections::btree_map::{BTreeMap, Range};
use alloc::string::String;
use core::ops::Bound::{Included, Unbounded};
use core::ops::ControlFlow;

/// A map from topic names to values that is searched by filters.
#[derive(Clone, Debug)]
pub struct TopicTree<V> {
    topics: BTreeMap<Box<str>, V>,
}

impl<V> TopicTree<V> {
    /// An empty tree.
    pub const fn new() -> Self {
        Self { topics: BTreeMap::new() }
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// No topic at all.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Sets the value of a topic and gives the one it had.
    pub fn insert(&mut self, topic: &str, value: V) -> Option<V> {
        if let Some(current) = self.topics.get_mut(topic) {
            return Some(core::mem::replace(current, value));
        }
        self.topics.insert(topic.into(), value)
    }

    /// The value of a topic.
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.topics.get(topic)
    }

    /// The value of a topic, to change in place.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut V> {
        self.topics.get_mut(topic)
    }

    /// Removes a topic and gives its value.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.topics.remove(topic)
    }

    /// Removes all topics.
    pub fn clear(&mut self) {
        self.topics.clear();
    }

    /// Topics and values, by topic.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.topics.iter().map(|(topic, value)| (&**topic, value))
    }

    /// Hands every topic that `filter` matches to `found`, by topic, until it breaks.
    pub fn for_each_match(&self, filter: &str, found: impl FnMut(&str, &V) -> ControlFlow<()>) {
        self.scan(filter, "", usize::MAX, found);
    }

    /// As [`TopicTree::for_each_match`], for one page of at most `steps_max` stored topics looked at: begins at the bookmark
    /// `from` (the empty string is the beginning) and gives the bookmark to go on from, or none if the filter is done.
    /// A topic that is there all the time is handed out exactly once over all pages, whatever else changes in between.
    pub fn scan(
        &self,
        filter: &str,
        from: &str,
        steps_max: usize,
        mut found: impl FnMut(&str, &V) -> ControlFlow<()>,
    ) -> Option<String> {
        let mut walk = Walk::new(&self.topics, filter, from);
        for _ in 0..steps_max {
            match walk.step() {
                Look::Match(topic, value) if found(topic, value).is_break() => break,
                Look::Match(..) | Look::Other => {}
                Look::End => return None,
            }
        }
        walk.ahead.next().map(|(next, _)| String::from(&**next))
    }

    /// Removes every topic that `filter` matches and hands them to `removed`, by topic. Takes no steps beyond those of a
    /// match, but searches the map anew for each topic removed.
    pub fn remove_matching(&mut self, filter: &str, mut removed: impl FnMut(&str, V)) {
        let mut bookmark = String::new();
        while self.next_match(filter, &mut bookmark) {
            if let Some((topic, value)) = self.topics.remove_entry(bookmark.as_str()) {
                removed(&topic, value);
            }
        }
    }

    /// Moves the bookmark to the first match at or behind it; false if there is none.
    fn next_match(&self, filter: &str, bookmark: &mut String) -> bool {
        let mut walk = Walk::new(&self.topics, filter, bookmark);
        loop {
            match walk.step() {
                Look::Match(topic, _) => {
                    bookmark.replace_range(.., topic);
                    return true;
                }
                Look::Other => {}
                Look::End => return false,
            }
        }
    }
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// What one step of a [`Walk`] saw.
enum Look<'t, V> {
    Match(&'t str, &'t V),
    /// A topic that does not match.
    Other,
    /// No match is left.
    End,
}

/// A walk over the topics that match a filter.
struct Walk<'t, 'f, V> {
    topics: &'t BTreeMap<Box<str>, V>,
    filter: &'f str,
    /// The topics not looked at yet, without those that cannot match.
    ahead: Range<'t, Box<str>, V>,
    target: String,
}

impl<'t, 'f, V> Walk<'t, 'f, V> {
    fn new(topics: &'t BTreeMap<Box<str>, V>, filter: &'f str, from: &str) -> Self {
        let mut target = String::new();
        first_candidate(filter, &mut target);
        let begin = from.max(target.as_str());
        Self { topics, filter, ahead: topics.range::<str, _>((Included(begin), Unbounded)), target }
    }

    /// Looks at one topic.
    fn step(&mut self) -> Look<'t, V> {
        let Some((topic, value)) = self.ahead.next() else { return Look::End };
        match step(self.filter, topic, &mut self.target) {
            Step::Match => return Look::Match(topic, value),
            Step::End => return Look::End,
            Step::Seek => {}
        }
        // Often the next topic is the candidate, and no search is needed.
        if self.ahead.clone().next().is_some_and(|(next, _)| **next < *self.target) {
            self.ahead = self.topics.range::<str, _>((Included(self.target.as_str()), Unbounded));
        }
        Look::Other
    }
}
