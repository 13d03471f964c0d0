//! Several hosts in one process: real logs and bases in directories of their own, a network that the test rules, and time that passes by
//! turns, so that a slow machine makes the test longer and nothing else.
//!
//! Each seat has an owner as the services will be one: it loads a range that it leads, records only then, holds what depends on gates,
//! and throws all away when it follows. What its gates let go is acknowledged: every later leader must have it.

use super::super::*;
use super::Records;
use crate::wal::Durability;
use bifro_core::ids::NodeId;
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bifro_raft::{Config, Group, Membership};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

pub(super) const RANGE: RangeId = RangeId(7);
const TICK: Duration = Duration::from_millis(2);

pub(super) struct Seat {
    pub(super) host: Host,
    /// Dropped after the host.
    node: Node,
    is_ready: bool,
    pub(super) loaded: Records,
    /// What was acknowledged when its reign began.
    expected: Records,
    held: VecDeque<(Gate, Vec<u8>, Vec<u8>)>,
    lost: Vec<Gate>,
}

/// The network. Every fault has a probability in percent.
#[derive(Default)]
pub(super) struct Net {
    /// Pairs of seats, in the direction of the frame, between which nothing gets through.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) delay_ms: u64,
    under_way: Vec<(Instant, usize, usize, Vec<u8>)>,
}

pub(super) struct Cluster {
    dirs: Vec<tempfile::TempDir>,
    pub(super) ids: Vec<NodeId>,
    founders: Membership,
    pub(super) settings: StoreConfig,
    pub(super) seats: Vec<Option<Seat>>,
    pub(super) net: Net,
    pub(super) rng: Prng,
    pub(super) now: Instant,
    /// What somebody was told is done. A key is written once.
    pub(super) acknowledged: Records,
}

impl Cluster {
    /// `founders` seats that founded the range, and `others` that did not.
    pub(super) fn new(founders: usize, others: usize, adapt: impl FnOnce(&mut StoreConfig)) -> Self {
        let mut settings = super::config();
        settings.wal.durability = Durability::Os;
        settings.replication.raft = Config { quiesce_after: Some(Duration::from_secs(2)), ..Config::DEFAULT };
        settings.replication.kept_entries = 5;
        settings.replication.chunk_timeout = Duration::from_millis(200);
        settings.replication.chunk_patience = Duration::from_secs(3);
        adapt(&mut settings);
        let dirs: Vec<_> = (0..founders + others).map(|_| tempfile::tempdir().expect("a directory")).collect();
        let id = |dir: &tempfile::TempDir| NodeDir::open(dir.path()).expect("a new directory").node();
        let ids: Vec<NodeId> = dirs.iter().map(id).collect();
        let founders = Membership::new(ids[..founders].iter().copied(), []);
        let seats = dirs.iter().map(|_| None).collect();
        let (net, rng, now) = (Net::default(), Prng::new(7), Instant::from_micros(1_000_000));
        let acknowledged = Records::new();
        let mut cluster = Self { dirs, ids, founders, settings, seats, net, rng, now, acknowledged };
        (0..cluster.seats.len()).for_each(|at| cluster.start(at));
        cluster
    }

    pub(super) fn start(&mut self, at: usize) {
        let fatal: Fatal = Arc::new(move |reason| panic!("seat {at}: {reason}"));
        let dir = NodeDir::open(self.dirs[at].path()).expect("a usable directory");
        let cluster = dir.alone(1).expect("nobody reads whose it is");
        let node = Node::open(dir, cluster, self.settings.clone(), fatal.clone()).expect("a usable directory");
        let ranges = [(RANGE, self.founders.clone())];
        let mut host = Host::open(&node, ranges, super::wake(), fatal, self.now).expect("replicas as they were left");
        host.recover(&node, self.now);
        let (loaded, expected, held, lost) = Default::default();
        self.seats[at] = Some(Seat { host, node, is_ready: false, loaded, expected, held, lost });
    }

    /// What the directory holds is what a crash leaves: nothing is ended in order.
    pub(super) fn stop(&mut self, at: usize) {
        self.seats[at] = None;
        self.net.under_way.retain(|(_, from, to, _)| *from != at && *to != at);
    }

    pub(super) fn host(&mut self, at: usize) -> &mut Host {
        &mut self.seats[at].as_mut().expect("it is up").host
    }

    pub(super) fn group(&self, at: usize) -> Option<&Group> {
        self.seats[at].as_ref()?.host.multi.group(RANGE)
    }

    pub(super) fn cut_off(&mut self, at: usize) {
        let others = (0..self.seats.len()).filter(|other| *other != at);
        self.net.cut.extend(others.flat_map(|other| [(at, other), (other, at)]));
    }

    /// The seat that leads and is loaded, of those the one with the newest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let ready = |at: &usize| self.seats[*at].as_ref().is_some_and(|seat| seat.is_ready);
        let leading = (0..self.seats.len()).filter(ready).filter(|at| self.group(*at).is_some());
        leading.max_by_key(|at| self.group(*at).expect("just seen").term())
    }

    pub(super) fn await_leader(&mut self) -> usize {
        self.until("somebody leads", |cluster| cluster.leader().is_some());
        self.leader().expect("just seen")
    }

    /// Records a key on a seat that leads. What depends on it is held.
    pub(super) fn record(&mut self, at: usize, key: &[u8], value: &[u8]) {
        let seat = self.seats[at].as_mut().expect("it is up");
        let mut changes = bifro_range::changes::Changes::new();
        changes.put(key, false, |out| out.extend_from_slice(value));
        seat.host.record(RANGE, changes.take());
        seat.held.push_back((seat.host.recorded(RANGE), key.to_vec(), value.to_vec()));
    }

    /// Records many keys, as long as there is a leader, and waits until they are acknowledged.
    pub(super) fn write(&mut self, keys: std::ops::Range<u64>, bytes: usize) {
        for key in keys {
            let key = key.to_be_bytes();
            while !self.acknowledged.contains_key(&key[..]) {
                let at = self.await_leader();
                self.record(at, &key, &vec![key[7]; bytes]);
                let held = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| !seat.held.is_empty());
                self.until("the gate opens, or never will", |cluster| !held(&cluster.seats[at]));
            }
        }
    }

    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let patience = std::time::Instant::now() + Duration::from_secs(120);
        while !wanted(self) {
            assert!(std::time::Instant::now() < patience, "it never comes: {what}");
            self.round();
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.round();
        }
    }

    /// One turn of everybody.
    pub(super) fn round(&mut self) {
        self.now = self.now + TICK;
        self.deliver();
        let mut is_idle = true;
        for at in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[at] else { continue };
            seat.host.poll(self.now);
            // What has opened before a reign ended in this turn has opened.
            seat.release(&mut self.acknowledged);
            seat.hear(&self.acknowledged);
            seat.host.end_turn(self.now);
            seat.host.multi.groups().for_each(Group::validate);
            seat.release(&mut self.acknowledged);
            is_idle &= seat.host.is_quiet();
            let frames: Vec<_> = seat.host.take_frames().collect();
            for (to, frame) in frames {
                let to = self.ids.iter().position(|id| *id == to).expect("frames go to seats");
                self.send(at, to, frame);
            }
        }
        if is_idle {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn send(&mut self, from: usize, to: usize, frame: Vec<u8>) {
        let mut happens = |percent: u64| percent > 0 && self.rng.below(100) < percent;
        let copies = if happens(self.net.loss) { 0 } else { 1 + usize::from(happens(self.net.repeat)) };
        for _ in 0..copies {
            let delay = Duration::from_micros(self.rng.below(1 + 1_000 * self.net.delay_ms));
            self.net.under_way.push((self.now + delay, from, to, frame.clone()));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.net.under_way).into_iter().partition(|(at, ..)| *at <= now);
        self.net.under_way = later;
        due.sort_by_key(|(at, ..)| *at);
        for (_, from, to, frame) in due {
            let sender = self.ids[from];
            if let Some(seat) = self.seats[to].as_mut().filter(|_| !self.net.cut.contains(&(from, to))) {
                seat.host.receive(now, sender, &frame).expect("hosts speak in frames");
            }
        }
    }

    /// Everything that a replica has applied.
    pub(super) fn records(&mut self, at: usize) -> Records {
        let now = self.now;
        let mut records = Records::new();
        let Seat { host, node, .. } = self.seats[at].as_mut().expect("it is up");
        let took = host.for_each(node, now, RANGE, |key, value| {
            records.insert(key.to_vec(), value.to_vec());
            Ok(())
        });
        took.expect("readable");
        records
    }

    /// Waits until these replicas have applied the same log to its end, and sees that they are equal and have all that was acknowledged.
    pub(super) fn await_agreement(&mut self, seats: &[usize]) {
        self.await_leader();
        let ends = |cluster: &Self, at: usize| {
            let group = cluster.group(at)?;
            (group.applied() == group.last().index).then(|| (group.last(), group.leader()))
        };
        self.until("replicas agree", |cluster| {
            let first = ends(cluster, seats[0]);
            first.is_some_and(|(_, leader)| leader.is_some()) && seats.iter().all(|at| ends(cluster, *at) == first)
        });
        let first = self.records(seats[0]);
        for (key, value) in &self.acknowledged {
            assert_eq!(first.get(key), Some(value), "acknowledged and lost");
        }
        for at in &seats[1..] {
            assert!(self.records(*at) == first, "seat {at} has applied something else");
        }
    }
}

impl Seat {
    /// What the owner does about changes.
    fn hear(&mut self, acknowledged: &Records) {
        for change in self.host.take_changes() {
            match change {
                Change::Leads { range, .. } => {
                    assert!(self.held.is_empty() && !self.is_ready, "a reign begins from nothing");
                    self.loaded.clear();
                    self.expected = acknowledged.clone();
                    self.host.begin_load(range);
                }
                Change::Follows { .. } => {
                    self.is_ready = false;
                    self.lost.extend(self.held.drain(..).map(|(gate, ..)| gate));
                }
                Change::Loaded { pairs, is_last, .. } => {
                    let pairs = pairs.into_iter().map(|(key, value)| (key.into_vec(), value.into_vec()));
                    for (key, value) in pairs {
                        let last = self.loaded.last_key_value().map(|(key, _)| key.clone());
                        assert!(last.is_none_or(|last| last < key), "pages are in the order of keys");
                        self.loaded.insert(key, value);
                    }
                    if is_last && self.host.leads(RANGE) {
                        self.is_ready = true;
                        for (key, value) in &self.expected {
                            assert_eq!(self.loaded.get(key), Some(value), "a leader lacks what was acknowledged");
                        }
                    }
                }
                Change::LoadFailed { error, .. } => panic!("{error}"),
            }
        }
    }

    fn release(&mut self, acknowledged: &mut Records) {
        let applied = self.host.applied(RANGE);
        while let Some((_, key, value)) = self.held.pop_front_if(|(gate, ..)| *gate <= applied) {
            acknowledged.insert(key, value);
        }
        assert!(self.lost.iter().all(|gate| *gate > applied), "the gate of a lost reign has opened");
    }

    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }
}
