//! The host over a real log and base in a directory of its own.

mod cluster;
mod leading;
mod members;
mod random;
mod snapshots;

use super::*;
use crate::fatal::Wake;
use crate::wal::{Durability, Space};
use bifro_core::time::Instant;
use bifro_raft::Membership;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const A: RangeId = RangeId(1);
const B: RangeId = RangeId(2);

/// A host that is driven as a shard drives it.
struct Rig {
    host: Host,
    node: Node,
    fatal: Arc<AtomicUsize>,
    now: Instant,
}

fn config() -> StoreConfig {
    StoreConfig {
        wal: WalConfig::default(),
        kv: FjallConfig::default(),
        space: SpaceLimits::default(),
        replication: Replication::default(),
    }
}

fn wake() -> Wake {
    let shard = std::thread::current();
    Arc::new(move || shard.unpark())
}

impl Rig {
    fn open(dir: &tempfile::TempDir, config: StoreConfig) -> Self {
        let fatal = Arc::new(AtomicUsize::new(0));
        let count = fatal.clone();
        let hook: Fatal = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let dir = NodeDir::open(dir.path()).expect("a usable directory");
        let cluster = dir.alone(2).expect("a cluster of its own");
        let node = Node::open(dir, cluster, config, hook.clone()).expect("a usable directory");
        let now = Instant::from_micros(1_000_000);
        let alone = [A, B].map(|range| (range, Membership::single(node.genesis().node)));
        let mut host = Host::open(&node, alone, wake(), hook, now).expect("replicas as they were left");
        host.recover(&node, now);
        let leads = host.take_changes().iter().filter(|change| matches!(change, Change::Leads { .. })).count();
        assert_eq!(leads, 2, "a range with one voter is led once it is recovered");
        Self { host, node, fatal, now }
    }

    fn record(&mut self, range: RangeId, key: &[u8], value: Option<&[u8]>) -> Gate {
        let mut changes = bifro_range::changes::Changes::new();
        match value {
            Some(value) => changes.put(key, false, |out| out.extend_from_slice(value)),
            None => changes.delete(key),
        }
        self.host.record(range, changes.take());
        self.host.recorded(range)
    }

    fn turn(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        self.host.poll(self.now);
        self.host.end_turn(self.now);
    }

    /// Turns until it holds.
    fn turn_until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while !wanted(self) {
            assert!(std::time::Instant::now() < patience, "it never comes");
            self.turn();
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn wait(&mut self, range: RangeId, gate: Gate) {
        self.turn_until(|rig| rig.host.applied(range) >= gate);
    }

    fn records(&mut self, range: RangeId) -> Records {
        let mut records = Records::new();
        let took = self.host.for_each(&self.node, self.now, range, |key, value| {
            assert!(records.insert(key.to_vec(), value.to_vec()).is_none(), "each key once");
            Ok(())
        });
        took.expect("readable");
        records
    }
}

fn figure(rig: &Rig, wanted: &str) -> u64 {
    let mut figure = None;
    rig.node.cells().each(|name, _, _, value| figure = figure.or((name == wanted).then_some(value)));
    figure.expect("there is such a figure")
}

fn number(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

#[test]
fn gates_open_in_order_and_only_when_the_batch_is_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::open(&dir, config());
    let first = rig.record(A, b"k", Some(b"1"));
    let second = rig.record(A, b"k", Some(b"2"));
    let other = rig.record(B, b"k", Some(b"3"));
    assert!(first < second && rig.host.applied(A) < first, "nothing is durable before the turn has ended");
    rig.wait(A, second);
    rig.wait(B, other);
    assert_eq!(rig.records(A), Records::from([(b"k".to_vec(), b"2".to_vec())]));
    assert_eq!(rig.records(B), Records::from([(b"k".to_vec(), b"3".to_vec())]));
}

#[test]
fn a_turn_s_changes_of_many_ranges_are_one_write_to_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::open(&dir, config());
    let before = figure(&rig, "wal_writes");
    let (a, b) = (rig.record(A, b"k", Some(b"1")), rig.record(B, b"k", Some(b"1")));
    rig.wait(A, a);
    rig.wait(B, b);
    assert_eq!(figure(&rig, "wal_writes") - before, 1);
}

#[test]
fn what_was_applied_is_there_after_a_crash_with_and_without_checkpoints() {
    for overlay_bytes in [usize::MAX, 4_096] {
        let dir = tempfile::tempdir().expect("a directory");
        let small = StoreConfig { space: SpaceLimits { overlay_bytes, ..SpaceLimits::default() }, ..config() };
        let mut expected = Records::new();
        for round in 0..4_u64 {
            let mut rig = Rig::open(&dir, small.clone());
            assert_eq!(rig.records(A), expected, "round {round}");
            let mut gate = Gate(0);
            for step in 0..500 {
                let key = number((round * 37 + step) % 300);
                let value = vec![round as u8; 40];
                if step % 5 == 0 {
                    gate = rig.record(A, &key, None);
                    expected.remove(&key);
                } else {
                    gate = rig.record(A, &key, Some(&value));
                    expected.insert(key, value);
                }
                if step % 7 == 0 {
                    rig.turn();
                }
            }
            rig.wait(A, gate);
            if overlay_bytes < usize::MAX {
                rig.turn_until(|rig| figure(rig, "kv_checkpoints") > 0);
            }
            // Nothing is ended in order: what the directory holds is what a crash leaves.
            drop(rig);
        }
    }
}

#[test]
fn a_log_larger_than_what_is_kept_in_memory_is_applied_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let all_hot =
        StoreConfig { space: SpaceLimits { overlay_bytes: usize::MAX, ..SpaceLimits::default() }, ..config() };
    let mut rig = Rig::open(&dir, all_hot.clone());
    // More than `Config::pending_bytes_max`, in the range of one replica.
    let value = vec![7; 1 << 20];
    for key in 0..40 {
        let gate = rig.record(A, &number(key), Some(&value));
        rig.wait(A, gate);
    }
    drop(rig);
    let mut rig = Rig::open(&dir, all_hot);
    assert_eq!(rig.records(A).len(), 40);
}

#[test]
fn appends_that_find_no_space_are_kept_and_written_when_there_is_some() {
    let dir = tempfile::tempdir().expect("a directory");
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let probe = free.clone();
    let mut settings = config();
    settings.wal.space_probe = Some(Arc::new(move || Ok(probe.load(Ordering::SeqCst))));
    let mut rig = Rig::open(&dir, settings);
    let gate = rig.record(A, b"before", Some(b"1"));
    rig.wait(A, gate);
    free.store(0, Ordering::SeqCst);
    rig.turn_until(|rig| {
        std::thread::sleep(Duration::from_millis(20));
        matches!(rig.host.space(), Space::Short) || rig.host.held_bytes() > 1 << 20
    });
    let first = rig.record(A, b"during", Some(b"2"));
    rig.turn();
    let second = rig.record(A, b"during", Some(b"3"));
    for _ in 0..300 {
        rig.turn();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(rig.host.applied(A) < first, "nothing was written, so nothing is said to be");
    assert!(figure(&rig, "wal_refused_appends") > 0);
    free.store(u64::MAX, Ordering::SeqCst);
    rig.wait(A, second);
    assert_eq!(rig.records(A).get(&b"during"[..]), Some(&b"3".to_vec()));
    drop(rig);
    let mut rig = Rig::open(&dir, config());
    assert_eq!(rig.records(A).len(), 2);
}

#[test]
fn a_failing_fsync_ends_the_process_and_opens_no_gate() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicUsize::new(0));
    let probe = broken.clone();
    let mut settings = config();
    settings.wal.durability = Durability::Fsync;
    settings.wal.sync_probe = Some(Arc::new(move || match probe.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(std::io::Error::other("the disk is gone")),
    }));
    let mut rig = Rig::open(&dir, settings);
    broken.store(1, Ordering::SeqCst);
    let gate = rig.record(A, b"k", Some(b"1"));
    rig.turn_until(|rig| rig.fatal.load(Ordering::SeqCst) > 0);
    rig.turn();
    assert!(rig.host.applied(A) < gate);
    // The engine syncs once more when it is dropped.
    broken.store(0, Ordering::SeqCst);
}

#[test]
fn two_nodes_cannot_have_one_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let _first = Rig::open(&dir, config());
    let second = NodeDir::open(dir.path());
    let said = second.expect_err("refused").to_string();
    assert!(said.contains("in use by process"), "{said}");
}
