//! Failing devices and full disks.

use super::*;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

#[test]
fn a_failed_fsync_ends_the_process_and_is_never_reported_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let reasons = Reasons::default();
    let failing = Arc::new(AtomicBool::new(false));
    let device = failing.clone();
    let probe: SyncProbe =
        Arc::new(
            move || {
                if device.load(Ordering::Relaxed) { Err(io::Error::other("the device is gone")) } else { Ok(()) }
            },
        );
    let (named, ended) = channel();
    let note = noting(&reasons);
    let named = Mutex::new(named);
    let fatal: Fatal = Arc::new(move |reason| {
        note(reason);
        named.lock().expect("not poisoned").send(()).expect("the test waits");
    });
    let config = WalConfig { sync_probe: Some(probe), ..small() };
    let mut bench = try_open(dir.path(), config, fatal).expect("the log opens");
    bench.write(append(A, 1..2, b"good"));
    failing.store(true, Ordering::Relaxed);
    let lost = bench.port.submit(append(A, 2..3, b"lost")).expect("there is room");
    ended.recv_timeout(Duration::from_secs(20)).expect("the hook is called");
    let reasons = reasons.lock().expect("not poisoned").clone();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].starts_with("write-ahead log: writing or syncing failed"), "{reasons:?}");
    assert!(reasons[0].contains("the device is gone"), "{reasons:?}");
    let mut events = Vec::new();
    bench.port.poll(&mut events);
    assert_eq!(events, []);
    assert!(bench.port.durable() < lost);
    assert!(bench.port.submit(append(A, 2..3, b"more")).is_err(), "a dead log takes nothing");
    failing.store(false, Ordering::Relaxed);
}

/// A log whose free space is what the returned cell says.
fn with_space(dir: &Path, free: u64) -> (Bench, Arc<AtomicU64>) {
    let cell = Arc::new(AtomicU64::new(free));
    let said = cell.clone();
    let probe: SpaceProbe = Arc::new(move || Ok(said.load(Ordering::Relaxed)));
    let config = WalConfig { reserve_bytes: 1_000_000, space_probe: Some(probe), ..small() };
    (open(dir, config), cell)
}

#[test]
fn short_of_space_proposals_are_to_be_refused_while_appends_on_their_way_pass() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut bench, free) = with_space(dir.path(), 2_000_000);
    assert_eq!(bench.port.space(), Space::Ample);
    free.store(900_000, Ordering::Relaxed);
    bench.events_until(|event| *event == WalEvent::SpaceChanged(Space::Short));
    assert_eq!(bench.port.space(), Space::Short);
    assert_eq!(bench.write(append(A, 1..2, b"on its way")), []);
    // Not yet a quarter above the reserve.
    free.store(1_200_000, Ordering::Relaxed);
    bench.write(append(A, 2..3, b"on its way"));
    free.store(1_300_000, Ordering::Relaxed);
    bench.events_until(|event| *event == WalEvent::SpaceChanged(Space::Ample));
}

#[test]
fn without_space_appends_are_refused_and_everything_else_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut bench, free) = with_space(dir.path(), 2_000_000);
    bench.write(append(A, 1..5, b"before"));
    free.store(100_000, Ordering::Relaxed);
    bench.events_until(|event| *event == WalEvent::SpaceChanged(Space::Short));
    let mut batch = append(A, 5..7, b"refused");
    batch.put_record(A, Record::HARD_STATE, b"vote".to_vec());
    batch.compact_to(A, 3);
    let events = bench.write(batch);
    assert!(
        matches!(&events[..], [WalEvent::Refused { group: A, from: 5, error: WalError::NoSpace { .. }, .. }]),
        "{events:?}"
    );
    assert_eq!(bench.read(A, 3..9), Ok(entries(3..5, b"before")), "reads and compaction go on");

    free.store(2_000_000, Ordering::Relaxed);
    bench.events_until(|event| *event == WalEvent::SpaceChanged(Space::Ample));
    let events = bench.write(append(A, 7..8, b"follows the refused"));
    assert!(
        matches!(&events[..], [WalEvent::Refused { from: 7, error: WalError::Hole { from: 7 }, .. }]),
        "{events:?}"
    );
    assert_eq!(bench.write(append(A, 5..8, b"again")), []);
    drop(bench);
    let found = open(dir.path(), small()).groups;
    let expected = RecoveredGroup { group: A, entries: 3..8, records: vec![(Record::HARD_STATE, b"vote".to_vec())] };
    assert_eq!(found, [expected]);
}

/// A small file system of its own, unmounted with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={bytes}");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "unmounted");
    }
}

/// There is no reserve to speak of, so that the engine itself meets the full disk: in the middle of a write, and when it begins a file.
#[test]
fn a_disk_that_really_is_full_refuses_appends_keeps_records_and_recovers() {
    let Some(disk) = SmallDisk::mount(2 << 20) else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let dir = disk.0.path().join("data");
    // Blind to free space, so that nothing is refused before the write.
    let probe: SpaceProbe = Arc::new(|| Ok(u64::MAX / 2));
    let config = WalConfig { space_probe: Some(probe), reserve_bytes: 1, ..small() };
    let mut bench = open(&dir, config.clone());
    bench.write(append(B, 1..2, b"the other group"));
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 600 << 10]).expect("it fits");
    let (mut next, mut refused) = (1, false);
    while !refused {
        let mut batch = append(A, next..next + 1, &[3; 20_000]);
        batch.put_record(B, Record(1), next.to_le_bytes().to_vec());
        let token = bench.port.submit(batch).expect("there is room");
        // The record may have to wait until the ballast is gone; the refusal comes with it.
        let events = bench.events_until(|event| match event {
            WalEvent::SpaceChanged(Space::Short) => {
                std::fs::remove_file(&ballast).ok();
                false
            }
            WalEvent::Durable { token: done } => *done >= token,
            _ => false,
        });
        for event in events {
            if let WalEvent::Refused { from, error, .. } = event {
                assert_eq!((from, matches!(error, WalError::NoSpace { .. })), (next, true));
                refused = true;
            }
        }
        next += u64::from(!refused);
        assert!(next < 500, "the disk never filled");
    }
    assert_eq!(bench.read(A, 1..next).map(|read| read.len() as u64), Ok(next - 1), "what was durable is readable");
    std::fs::remove_file(&ballast).ok();
    let again = || append(A, next..next + 1, b"there is space again");
    let begun = std::time::Instant::now();
    while bench.write(again()).iter().any(|event| matches!(event, WalEvent::Refused { .. })) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "refused though there is space");
        std::thread::yield_now();
    }
    drop(bench);
    let bench = open(&dir, config);
    assert_eq!(bench.groups[0].entries, 1..next + 1);
    assert_eq!(bench.groups[1].record(Record(1)), Some(&next.to_le_bytes()[..]));
}
