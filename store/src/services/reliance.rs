//! For how long a node relies on what the shards of another have told it, and how those know when it does not any more.
//!
//! A subscriber that was told of on some node has its SUBACK only when that node has answered, or does not rely on what it was told. A node that died does
//! not; but one that is taken for dead may live, cut off in one direction, and think nothing of it. So reliance is lent for a time, by the clock of whoever relies:
//!
//! ```text
//!   shard r of node A, which tells                       shard s of node B, which relies on it
//!             │ ◄──────────── Relies { at: t } ──────────────────┤ at t, every RELIANCE_ASKED
//!    at e ≥ t ├───────────────── MayRely { at: t } ────────────► │ until t + RELIANCE, whenever it arrives
//! ```
//! B relies on r until t + [`RELIANCE`] by its own clock. The question came before the answer: t ≤ e in true time. If B's clock is no more than a tenth slower
//! than A's, reliance is over when A's shows e + [`RELIANCE_OVER`], however long anything was on its way and whoever stood still meanwhile. So that long r waits for
//! a node that it takes for dead, from its last answer on; it answers only those it takes to live, over the link by which it has told everything. A process that
//! was killed asks no more from then on, and declaring it dead takes about as long (bifro-swim: a probe, then a suspicion of 800 ms): publishing and subscribing go on as soon as
//! before. A node whose reliance is over holds A for unheard, and sends it every message: if A cannot be reached, publishers wait, for an answer or
//! for A's death. Pauses of some 100 ms do nothing: only after more than two lost questions anybody is unheard.
//!
//! # Between the shards of a node
//! All shards of B rely on what s has heard, and s may stand still while they go on. So each shard shows in a cell until when everything holds that it says it has
//! heard ([`HearingCells`]), and the others believe it until then. A shard whose reliance on somebody ends says so in a message, and shows a later time only
//! then, with the number of losses that it has told: whoever has not heard that many from it does not believe it. What a shard looks at is at most
//! as old as its turn, and [`Services::begin_turn`](bifro_core::ports::Services::begin_turn) has been told the time after what clients say was taken from the kernel: so a message
//! that was published after a SUBACK is routed by what held after it.

use super::RangeServices;
use super::hearing::Extent;
use super::wire::Remote;
use bifro_core::ids::{NodeIdx, ShardId};
use bifro_core::limits::{RELIANCE, RELIANCE_ASKED, RELIANCE_OVER};
use bifro_core::ports::Via;
use bifro_core::time::{Instant, earlier};
use hashbrown::HashSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one shard shows the others of its node.
#[derive(Debug)]
#[repr(align(128))]
struct Cell {
    /// All that it says it has heard holds until then, in microseconds.
    until: AtomicU64,
    /// Losses that it has told.
    losses: AtomicU64,
}

/// What the shards of a node show each other. See the module's page.
#[derive(Debug)]
pub struct HearingCells(Box<[Cell]>);

impl HearingCells {
    /// Of so many shards.
    pub fn new(shards: u16) -> Arc<Self> {
        let nothing_heard = |_| Cell { until: AtomicU64::new(NEVER.as_micros()), losses: AtomicU64::new(0) };
        Arc::new(Self((0..shards).map(nothing_heard).collect()))
    }
}

/// What a shard here relies on of a shard of another node.
#[derive(Debug, Default)]
pub(super) struct Reliance {
    /// There is a link.
    is_linked: bool,
    until: Instant,
    /// The shards here have been told that everything is heard, and nothing else since.
    pub(super) is_told: bool,
}

/// What a shard believes of the others, and which nodes believe it.
#[derive(Debug)]
pub(super) struct Trust {
    shard: ShardId,
    cells: Arc<HearingCells>,
    now: Instant,
    /// Losses heard from each shard.
    losses: Vec<u64>,
    /// Shards here that are not believed.
    doubted: Vec<bool>,
    /// When the first of what is believed is none any more.
    look_at: Instant,
    /// What shards here have heard and nobody may rely on.
    lapsed: HashSet<(NodeIdx, ShardId)>,
    /// Until when the first of what this shard has told the others it relies on holds.
    until: Instant,
    /// When nodes are asked next; none if there are none.
    ask_at: Option<Instant>,
    /// When each node was answered last.
    answered: BTreeMap<NodeIdx, Instant>,
    /// Answered in this turn.
    just_answered: Vec<NodeIdx>,
    /// Nodes that are taken for dead, and until when they may rely on what they were told.
    gone: BTreeMap<NodeIdx, Instant>,
}

const NEVER: Instant = Instant::from_micros(u64::MAX);

impl Trust {
    pub(super) fn new(shard: ShardId, cells: Arc<HearingCells>) -> Self {
        let shards = cells.0.len();
        Self {
            shard,
            cells,
            now: Instant::default(),
            losses: vec![0; shards],
            doubted: vec![false; shards],
            look_at: NEVER,
            lapsed: HashSet::new(),
            until: NEVER,
            ask_at: None,
            answered: BTreeMap::new(),
            just_answered: Vec::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Looks at what the others show.
    pub(super) fn look(&mut self) {
        self.look_at = NEVER;
        for (at, cell) in self.cells.0.iter().enumerate() {
            let until = Instant::from_micros(cell.until.load(Ordering::Acquire));
            let doubted = until <= self.now || cell.losses.load(Ordering::Acquire) != self.losses[at];
            self.doubted[at] = doubted;
            self.look_at = self.look_at.min(if doubted { Instant::default() } else { until });
        }
    }

    /// Whether what a shard of another node has told a shard here is to be relied on.
    pub(super) fn is_reliable(&self, of: (NodeIdx, ShardId), heard_by: ShardId) -> bool {
        !self.doubted[heard_by.index()] && !self.lapsed.contains(&of)
    }

    pub(super) fn holds(&self, reliance: &Reliance) -> bool {
        reliance.is_linked && reliance.until > self.now
    }

    /// This shard tells the others that it has lost something.
    pub(super) fn tells_loss(&self) {
        self.cells.0[self.shard.index()].losses.fetch_add(1, Ordering::Release);
    }

    /// A shard here says how much it has heard of a shard of another node, which `counts` unless another one here has heard it since.
    pub(super) fn hears(&mut self, from: ShardId, of: (NodeIdx, ShardId), extent: Extent, counts: bool) {
        self.losses[from.index()] += u64::from(extent != Extent::Everything);
        match extent {
            Extent::Lapsed if counts => drop(self.lapsed.insert(of)),
            Extent::Everything | Extent::Nothing if counts => drop(self.lapsed.remove(&of)),
            _ => {}
        }
    }

    /// Nothing of a node that has died is relied on.
    pub(super) fn forget(&mut self, node: NodeIdx) {
        self.lapsed.retain(|(of, _)| *of != node);
    }

    /// Dead nodes that may rely on what they were told.
    pub(super) fn gone(&self) -> impl Iterator<Item = NodeIdx> {
        self.gone.keys().copied()
    }

    /// A node is taken for dead. True if it may rely on what it was told even so.
    pub(super) fn has_gone(&mut self, now: Instant, node: NodeIdx) -> bool {
        let over = self.answered.remove(&node).map(|answered| answered + RELIANCE_OVER).filter(|over| *over > now);
        self.gone.extend(over.map(|over| (node, over)));
        over.is_some()
    }

    /// It is not dead.
    pub(super) fn is_back(&mut self, node: NodeIdx) {
        self.gone.remove(&node);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let gone = self.gone.values().copied().min();
        earlier(earlier(gone, self.ask_at), Some(self.until).filter(|until| *until < NEVER))
    }
}

impl RangeServices {
    /// See [`Services::begin_turn`](bifro_core::ports::Services::begin_turn).
    pub(super) fn look_at_time(&mut self, now: Instant) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let trust = &mut cluster.trust;
        trust.now = trust.now.max(now);
        // Their questions may have come at any time of the turn before.
        for node in trust.just_answered.drain(..) {
            if let Some(answered) = trust.answered.get_mut(&node) {
                *answered = now;
            } else if let Some(over) = trust.gone.get_mut(&node) {
                *over = now + RELIANCE_OVER;
            }
        }
        if trust.until <= now {
            self.lapse_reliance();
            self.settle(now);
            return true;
        }
        if trust.look_at <= now {
            cluster.find_unheard();
        }
        false
    }

    /// The link of another node's shard is there.
    pub(super) fn begin_reliance(&mut self, now: Instant, node: NodeIdx, shard: ShardId) {
        let Some(cluster) = &mut self.cluster else { return };
        let new = Reliance { is_linked: true, ..Reliance::default() };
        let before = cluster.heard.get_mut(&(node, shard)).map(|heard| std::mem::replace(&mut heard.reliance, new));
        cluster.trust.ask_at.get_or_insert(now + RELIANCE_ASKED);
        if before.is_some_and(|before| before.is_told) {
            // Nobody has said yet that the earlier link is over.
            self.tell_shards_heard(node, shard, Extent::Nothing);
        }
        self.send_remote(Via::From(node, shard), None, &Remote::Relies { at: now.as_micros() });
    }

    /// It has ended; the others hear of it next.
    pub(super) fn end_reliance(&mut self, node: NodeIdx, shard: ShardId) {
        let heard = self.cluster.as_mut().and_then(|cluster| cluster.heard.get_mut(&(node, shard)));
        if let Some(heard) = heard {
            heard.reliance = Reliance::default();
        }
    }

    /// A node has died, as this shard hears. Others may hear it later.
    pub(super) fn rely_no_more(&mut self, node: NodeIdx) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.trust.forget(node);
        let of_node = cluster.heard.iter_mut().filter(|((of, _), _)| *of == node);
        let mut lost: Vec<_> = of_node
            .filter_map(|((_, shard), heard)| std::mem::take(&mut heard.reliance).is_told.then_some(*shard))
            .collect();
        lost.sort_unstable();
        for shard in lost {
            self.tell_shards_heard(node, shard, Extent::Nothing);
        }
    }

    /// Asks those whose links arrive here whether they are to be relied on further.
    pub(super) fn ask_for_reliance(&mut self, now: Instant) {
        let Some(cluster) = self.cluster.as_mut().filter(|of| of.trust.ask_at.is_some_and(|at| at <= now)) else {
            return;
        };
        let linked = cluster.heard.iter().filter(|(_, heard)| heard.reliance.is_linked).map(|(&of, _)| of);
        let mut linked: Vec<_> = linked.collect();
        linked.sort_unstable();
        cluster.trust.ask_at = (!linked.is_empty()).then_some(now + RELIANCE_ASKED);
        for (node, shard) in linked {
            self.send_remote(Via::From(node, shard), None, &Remote::Relies { at: now.as_micros() });
        }
    }

    /// A node asks whether it may rely on what this shard has told it, or will have when everything is told.
    pub(super) fn hear_relies(&mut self, now: Instant, node: NodeIdx, at: u64) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up(node)) else { return };
        cluster.trust.answered.insert(node, now);
        cluster.trust.just_answered.push(node);
        self.send_remote(Via::To(node), None, &Remote::MayRely { at });
    }

    /// This node may.
    pub(super) fn hear_may_rely(&mut self, now: Instant, node: NodeIdx, shard: ShardId, at: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(heard) = cluster.heard.get_mut(&(node, shard)).filter(|heard| heard.reliance.is_linked) else {
            return;
        };
        // Nobody has asked in the future.
        let asked = Instant::from_micros(at).min(now);
        heard.reliance.until = heard.reliance.until.max(asked + RELIANCE);
        self.show_reliance();
        self.finish_hearing(node, shard);
    }

    /// Tells the shards here of whom nothing was heard for too long.
    fn lapse_reliance(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut lapsed = Vec::new();
        for (&of, heard) in &mut cluster.heard {
            if heard.reliance.is_told && heard.reliance.until <= cluster.trust.now {
                heard.reliance.is_told = false;
                lapsed.push(of);
            }
        }
        lapsed.sort_unstable();
        for (node, shard) in lapsed {
            self.tell_shards_heard(node, shard, Extent::Lapsed);
        }
    }

    /// Shows the other shards until when what they were told holds.
    pub(super) fn show_reliance(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let told = cluster.heard.values().filter(|heard| heard.reliance.is_told);
        let until = told.map(|heard| heard.reliance.until).min().unwrap_or(NEVER);
        cluster.trust.until = until;
        cluster.trust.cells.0[cluster.trust.shard.index()].until.store(until.as_micros(), Ordering::Release);
    }

    /// Dead nodes that cannot rely on what they were told any more are not waited for.
    pub(super) fn release_gone(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        let over: Vec<_> = cluster.trust.gone.extract_if(.., |_, over| *over <= now).map(|(node, _)| node).collect();
        if !over.is_empty() {
            self.release_additions(|node| over.contains(&node));
        }
    }
}
