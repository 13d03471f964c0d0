//! The seed list as the places of acceptors: who was heard where, and what a majority is.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;
use core::time::Duration;

/// What is known of the place of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// Its name has not been looked up.
    Unknown,
    /// It is this node's own address.
    Mine,
    /// It is another address.
    Elsewhere,
    /// It stands for several addresses: it can be asked, and has no vote.
    Shared,
}

/// Whom a node waits for that knows of no cluster yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Seeds that are there and have a vote, this node included if it is one.
    pub heard: usize,
    /// All seeds.
    pub seeds: usize,
    /// This node is one of them: if none it only asks, and creates nothing.
    pub is_seed: bool,
    /// Places of seeds that were not heard.
    pub missing: Vec<usize>,
    /// Places of seeds that are there and have no vote: they keep nothing, or stand for several addresses.
    pub without_vote: Vec<usize>,
}

/// When a seed was heard last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    node: NodeId,
    at: Instant,
    has_vote: bool,
}

/// The votes of one phase: by place, so that nobody who comes to an address after another counts besides it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Vec<Option<NodeId>>);

impl Tally {
    /// With the votes of `me` at its own places.
    pub(crate) fn new(seats: &Seats, me: NodeId) -> Self {
        Self(seats.0.iter().map(|(seat, _)| (*seat == Seat::Mine).then_some(me)).collect())
    }

    pub(crate) fn add(&mut self, seat: usize, node: NodeId) {
        if let Some(place) = self.0.get_mut(seat) {
            place.get_or_insert(node);
        }
    }

    pub(crate) fn has(&self, seat: usize) -> bool {
        self.0.get(seat).is_some_and(Option::is_some)
    }

    /// Who has voted, each once.
    pub(crate) fn nodes(&self) -> BTreeSet<NodeId> {
        self.0.iter().flatten().copied().collect()
    }

    /// A node at several places has one vote: the others of its places are never filled, and count all the same.
    pub(crate) fn is_majority(&self) -> bool {
        self.nodes().len() > self.0.len() / 2
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

/// The places, in the order of the seed list.
#[derive(Clone, Debug)]
pub(crate) struct Seats(Vec<(Seat, Option<Heard>)>);

impl Seats {
    pub(crate) fn new(count: usize) -> Self {
        Self(vec![(Seat::Unknown, None); count])
    }

    pub(crate) fn set(&mut self, seat: usize, to: Seat) {
        self.0[seat].0 = to;
    }

    pub(crate) fn at(&self, seat: usize) -> Seat {
        self.0[seat].0
    }

    pub(crate) fn contains_me(&self) -> bool {
        self.0.iter().any(|(seat, _)| *seat == Seat::Mine)
    }

    /// Places that can be asked.
    pub(crate) fn others(&self) -> Vec<usize> {
        let places = self.0.iter().enumerate();
        places.filter(|(_, (seat, _))| matches!(seat, Seat::Elsewhere | Seat::Shared)).map(|(at, _)| at).collect()
    }

    pub(crate) fn hear(&mut self, seat: usize, node: NodeId, has_vote: bool, now: Instant) {
        self.0[seat].1 = Some(Heard { node, at: now, has_vote });
    }

    /// Who is there and has a vote.
    pub(crate) fn present(&self, me: NodeId, now: Instant, freshness: Duration) -> Tally {
        let mut tally = Tally::new(self, me);
        for (at, (seat, heard)) in self.0.iter().enumerate() {
            if let (Seat::Elsewhere, Some(heard)) = (seat, heard)
                && heard.has_vote
                && now.since(heard.at) < freshness
            {
                tally.add(at, heard.node);
            }
        }
        tally
    }

    pub(crate) fn waiting(&self, me: NodeId, now: Instant, freshness: Duration) -> Waiting {
        let present = self.present(me, now, freshness);
        let (mut missing, mut without_vote) = (Vec::new(), Vec::new());
        for (at, (_, heard)) in self.0.iter().enumerate() {
            if present.has(at) {
                continue;
            }
            match heard.is_some_and(|heard| now.since(heard.at) < freshness) {
                true => without_vote.push(at),
                false => missing.push(at),
            }
        }
        Waiting {
            heard: present.nodes().len(),
            seeds: self.0.len(),
            is_seed: self.contains_me(),
            missing,
            without_vote,
        }
    }
}
