//! The rules of a history, see the page of [`super`].

use super::{Event, Guarantee, History, Mark, Promise};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// Acknowledged to the publisher, never kept by the audience.
    Lost {
        /// Who misses it.
        audience: u32,
        /// What.
        mark: Mark,
    },
    /// Came again, and had no reason to.
    Repeated {
        /// To whom.
        audience: u32,
        /// What.
        mark: Mark,
    },
    /// Came for the first time after a later one.
    OutOfOrder {
        /// To whom.
        audience: u32,
        /// What.
        mark: Mark,
        /// The later one's number.
        after: u32,
    },
    /// Was not published before, or not promised to this audience.
    Unexpected {
        /// To whom.
        audience: u32,
        /// What.
        mark: Mark,
    },
    /// Two connections were served for one client id after both had been told that it is theirs.
    TwoOwners {
        /// Client id.
        id: u32,
        /// The connections.
        conns: (u32, u32),
    },
}

impl Violation {
    /// The audience and message it is about, if it is about any.
    pub const fn concerns(&self) -> Option<(u32, Mark)> {
        match *self {
            Self::Lost { audience, mark }
            | Self::Repeated { audience, mark }
            | Self::OutOfOrder { audience, mark, .. }
            | Self::Unexpected { audience, mark } => Some((audience, mark)),
            Self::TwoOwners { .. } => None,
        }
    }
}

/// What one audience has seen of one stream.
#[derive(Debug, Default)]
struct Seen {
    /// Highest number.
    last: Option<u32>,
    marks: HashMap<u32, Copies>,
}

/// What came of one message.
#[derive(Debug, Default)]
struct Copies {
    /// Members it came to, in order.
    members: Vec<u32>,
    /// Without DUP: copies of a message of its own, as the broker sees it.
    fresh: u32,
    /// Somebody kept it.
    kept: bool,
}

#[derive(Debug, Default)]
struct Owner {
    connected: usize,
    last_cause: Option<usize>,
}

struct Checker<'p> {
    promises: HashMap<(u32, u32), &'p Promise>,
    sent: HashMap<Mark, u32>,
    acknowledged: HashMap<u32, HashSet<u32>>,
    seen: HashMap<(u32, u32), Seen>,
    departed: HashSet<(u32, u32)>,
    owners: BTreeMap<u32, BTreeMap<u32, Owner>>,
    violations: Vec<Violation>,
}

/// Every promise that was broken, in the order of discovery.
///
/// # Panics
/// If two promises speak of the same audience and stream.
pub fn check(history: &History, promises: &[Promise]) -> Vec<Violation> {
    let mut checker = Checker {
        promises: promises.iter().map(|promise| ((promise.audience, promise.stream), promise)).collect(),
        sent: HashMap::new(),
        acknowledged: HashMap::new(),
        seen: HashMap::new(),
        departed: HashSet::new(),
        owners: BTreeMap::new(),
        violations: Vec::new(),
    };
    assert_eq!(checker.promises.len(), promises.len(), "one promise per audience and stream");
    for (time, event) in history.events().iter().enumerate() {
        checker.step(time, *event);
    }
    checker.find_lost(promises);
    checker.find_double_owners();
    checker.violations
}

impl Checker<'_> {
    fn step(&mut self, time: usize, event: Event) {
        match event {
            Event::Published { mark } => *self.sent.entry(mark).or_default() += 1,
            Event::Acknowledged { mark } => {
                self.acknowledged.entry(mark.stream).or_default().insert(mark.seq);
            }
            Event::Received { audience, member, mark, dup, kept } => self.received(audience, member, mark, dup, kept),
            Event::Departed { audience, member } => {
                self.departed.insert((audience, member));
            }
            Event::Connected { id, conn } => {
                self.owners.entry(id).or_default().insert(conn, Owner { connected: time, last_cause: None });
            }
            Event::Served { id, conn, cause } => {
                if let Some(owner) = self.owners.entry(id).or_default().get_mut(&conn) {
                    owner.last_cause = owner.last_cause.max(Some(cause));
                }
            }
        }
    }

    fn received(&mut self, audience: u32, member: u32, mark: Mark, dup: bool, kept: bool) {
        let promise = self.promises.get(&(audience, mark.stream));
        let (Some(promise), Some(&sent)) = (promise, self.sent.get(&mark)) else {
            self.violations.push(Violation::Unexpected { audience, mark });
            return;
        };
        let seen = self.seen.entry((audience, mark.stream)).or_default();
        let copies = seen.marks.entry(mark.seq).or_default();
        let first = copies.members.is_empty();
        if !first {
            let passed_on = copies.members.iter().any(|&earlier| self.departed.contains(&(audience, earlier)));
            let sent_again = copies.fresh < sent;
            let may_repeat = match promise.guarantee {
                Guarantee::AtMostOnce => sent_again,
                Guarantee::AtLeastOnce => sent_again || passed_on || dup,
                Guarantee::ExactlyOnce => false,
            };
            if !may_repeat {
                self.violations.push(Violation::Repeated { audience, mark });
            }
        }
        copies.members.push(member);
        copies.fresh += u32::from(!dup);
        copies.kept |= kept;
        // What the publisher sent again comes behind what it sent meanwhile, and is the first to be seen if the first copy was lost on its
        // way to a subscriber of QoS 0, as it may be.
        let is_second_copy = promise.guarantee == Guarantee::AtMostOnce && sent > 1;
        let is_first = first && promise.ordered && !is_second_copy;
        if let Some(last) = seen.last.filter(|&last| is_first && mark.seq < last) {
            self.violations.push(Violation::OutOfOrder { audience, mark, after: last });
        }
        seen.last = seen.last.max(Some(mark.seq));
    }

    fn find_lost(&mut self, promises: &[Promise]) {
        for promise in promises.iter().filter(|promise| promise.guarantee != Guarantee::AtMostOnce) {
            let Some(acknowledged) = self.acknowledged.get(&promise.stream) else { continue };
            let seen = self.seen.get(&(promise.audience, promise.stream));
            let kept = |seq: &u32| seen.and_then(|seen| seen.marks.get(seq)).is_some_and(|copies| copies.kept);
            let mut lost: Vec<u32> =
                acknowledged.iter().copied().filter(|seq| *seq >= promise.from && !kept(seq)).collect();
            lost.sort_unstable();
            self.violations.extend(
                lost.into_iter().map(|seq| Violation::Lost {
                    audience: promise.audience,
                    mark: Mark { stream: promise.stream, seq },
                }),
            );
        }
    }

    fn find_double_owners(&mut self) {
        for (&id, conns) in &self.owners {
            let conns: Vec<_> = conns.iter().collect();
            for (index, &(&a, first)) in conns.iter().enumerate() {
                for &(&b, second) in &conns[index + 1..] {
                    let both = first.connected.max(second.connected);
                    let served = |owner: &Owner| owner.last_cause.is_some_and(|cause| cause > both);
                    if served(first) && served(second) {
                        self.violations.push(Violation::TwoOwners { id, conns: (a, b) });
                    }
                }
            }
        }
    }
}
