//! A stand-in for the underlay: each node learns, some time after, that another cannot be reached. Told once, until the other is back.

use crate::node::Node;
use crate::world::World;
use std::time::Duration;

/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// Looks that must fail in a row.
const MISSES: u32 = 3;

/// Who has missed whom how often.
#[derive(Debug)]
pub(crate) struct Underlay {
    misses: Vec<u32>,
    nodes: usize,
}

impl Underlay {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { misses: vec![0; nodes * nodes], nodes }
    }

    /// Whether `at` has declared `other` dead, and so drops what it still hears from it.
    pub(crate) fn has_given_up(&self, at: usize, other: usize) -> bool {
        self.misses[at * self.nodes + other] >= MISSES
    }

    /// Everybody looks for everybody. Returns who declares whom dead.
    pub(crate) fn look(&mut self, world: &World, nodes: &[Node]) -> Vec<(usize, usize)> {
        let now = world.queue.now();
        let lives = |node: usize| nodes[node].shard.is_some() && nodes[node].frozen_until <= now;
        let mut declared = Vec::new();
        for at in 0..self.nodes {
            for other in (0..self.nodes).filter(|other| *other != at) {
                let misses = &mut self.misses[at * self.nodes + other];
                let open = world.network.is_open(now, at, other) && world.network.is_open(now, other, at);
                if !lives(at) || (open && lives(other)) {
                    *misses = 0;
                    continue;
                }
                *misses += 1;
                if *misses == MISSES {
                    declared.push((at, other));
                }
            }
        }
        declared
    }
}
