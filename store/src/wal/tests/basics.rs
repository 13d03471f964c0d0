//! What a shard can rely on while nothing fails.

use super::*;

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

fn indexes(entries: &[WalEntry]) -> Vec<u64> {
    entries.iter().map(WalEntry::index).collect()
}

#[test]
fn what_was_reported_durable_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = open(dir.path(), small());
    assert_eq!(bench.groups, []);
    let mut batch = append(A, 1..4, b"first");
    batch.put_record(A, Record::HARD_STATE, b"term 3".to_vec());
    batch.append(B, entries(10..12, b"second"));
    assert_eq!(bench.write(batch), []);
    drop(bench);

    let mut bench = open(dir.path(), small());
    let expected = [
        RecoveredGroup { group: A, entries: 1..4, records: vec![(Record::HARD_STATE, b"term 3".to_vec())] },
        RecoveredGroup { group: B, entries: 10..12, records: vec![] },
    ];
    assert_eq!(bench.groups, expected);
    assert_eq!(bench.read(A, 1..4), Ok(entries(1..4, b"first")));
    assert_eq!(bench.wal().read_now(B, 11..12, 1), Ok(entries(11..12, b"second")));
}

#[test]
fn an_append_replaces_a_conflicting_tail() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = open(dir.path(), small());
    bench.write(append(A, 1..10, b"old"));
    bench.write(append(A, 5..7, b"new"));
    let read = bench.read(A, 1..100).expect("there");
    assert_eq!(indexes(&read), [1, 2, 3, 4, 5, 6]);
    assert_eq!(read[3].payload(), b"old");
    assert_eq!(read[4].payload(), b"new");
}

#[test]
fn compaction_deletion_and_a_new_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = open(dir.path(), small());
    bench.write(append(A, 1..10, b"x"));
    let mut batch = WalBatch::default();
    batch.compact_to(A, 6);
    bench.write(batch);
    assert_eq!(bench.read(A, 5..7), Err(WalError::Compacted { first: 6 }));
    assert_eq!(bench.read(A, 6..7), Ok(entries(6..7, b"x")));
    // As after an installed snapshot at 99.
    let mut batch = WalBatch::default();
    batch.compact_to(A, 100);
    batch.append(A, entries(100..102, b"y"));
    assert_eq!(bench.write(batch), []);
    assert_eq!(bench.read(A, 100..200), Ok(entries(100..102, b"y")));
    let mut batch = append(B, 1..2, b"z");
    batch.put_record(A, Record(1), vec![1]);
    batch.delete_group(A);
    bench.write(batch);
    assert_eq!(bench.read(A, 100..200), Err(WalError::NotFound));
    drop(bench);
    let groups = open(dir.path(), small()).groups;
    assert_eq!(groups, [RecoveredGroup { group: B, entries: 1..2, records: vec![] }]);
}

#[test]
fn reads_are_bounded_in_bytes_and_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = open(dir.path(), WalConfig { reads_max: 2, ..small() });
    bench.write(append(A, 1..11, &[7; 1000]));
    assert_eq!(indexes(&bench.wal().read_now(A, 1..11, 1).expect("there")), [1]);
    assert_eq!(indexes(&bench.wal().read_now(A, 1..11, 3500).expect("there")), [1, 2, 3]);
    let accepted: Vec<bool> = (0..3).map(|request| bench.port.read(request, A, 1..11, 1)).collect();
    assert_eq!(accepted, [true, true, false], "answers are outstanding until polled");
    bench.events_until(|event| matches!(event, WalEvent::Entries { request: 1, .. }));
    assert!(bench.port.read(3, A, 1..11, 1));
}

#[test]
fn a_full_queue_gives_the_batch_back_and_takes_it_later() {
    let dir = tempfile::tempdir().expect("a directory");
    // The device stands still until told to go on.
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let probe: SyncProbe = Arc::new(move || {
        // Once the sender is gone, the device runs freely.
        let _go = gate.lock().expect("not poisoned").recv();
        Ok(())
    });
    let config = WalConfig { queue_batches: 4, sync_probe: Some(probe), file_bytes: 1 << 20, ..small() };
    // Opening syncs nothing that could wait at the gate but what these cover.
    for _ in 0..8 {
        go.send(()).expect("the gate listens");
    }
    let mut bench = open(dir.path(), WalConfig { purge_bytes: 1 << 20, ..config });
    let mut next = 1;
    let refused = loop {
        match bench.port.submit(append(A, next..next + 1, b"x")) {
            Ok(_) => next += 1,
            Err(batch) => break batch,
        }
    };
    assert_eq!(refused, append(A, next..next + 1, b"x"));
    drop(go);
    let last = bench.port.submitted();
    bench.events_until(|event| matches!(event, WalEvent::Durable { token } if *token == last));
    assert_eq!(bench.write(refused), []);
    assert_eq!(bench.read(A, 1..next + 1).map(|read| read.len() as u64), Ok(next));
}

#[test]
fn pinned_groups_are_named_until_they_compact() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bench = open(dir.path(), small());
    let payload = vec![0; 8000];
    for round in 0..100 {
        let mut batch = append(A, round * 10 + 1..round * 10 + 11, &payload);
        batch.append(B, entries(round + 1..round + 2, &payload));
        if round > 0 {
            batch.compact_to(B, round);
        }
        bench.write(batch);
    }
    let events = bench.events_until(|event| matches!(event, WalEvent::Pinned { .. }));
    let pinned: Vec<_> = events.into_iter().filter(|event| matches!(event, WalEvent::Pinned { .. })).collect();
    assert!(pinned.contains(&WalEvent::Pinned { group: A }), "{pinned:?}");
    assert!(!pinned.contains(&WalEvent::Pinned { group: B }), "{pinned:?}");
    let metrics = bench.wal().metrics();
    assert!(metrics.wal_purge_pinned.read() >= 1);
    assert_eq!(metrics.wal_appended_entries.read(), 1100);
}

#[test]
fn several_ports_share_one_write_and_each_hears_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let bench = open(dir.path(), small());
    let wal = bench.wal();
    let threads: Vec<_> = (1..=4)
        .map(|group| {
            let (ring, woken) = channel();
            let ring = Mutex::new(ring);
            let mut port = wal.port(Arc::new(move || {
                let _sent = ring.lock().expect("not poisoned").send(());
            }));
            std::thread::spawn(move || {
                let mut events = Vec::new();
                for index in 1..=200 {
                    port.submit(append(GroupId(group), index..index + 1, b"m")).expect("there is room");
                    while port.durable() < port.submitted() {
                        woken.recv_timeout(Duration::from_secs(20)).expect("woken");
                        port.poll(&mut events);
                    }
                }
                events.len()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 200);
    }
    let metrics = wal.metrics();
    assert_eq!(metrics.wal_write_batches.read(), 800);
    assert!(metrics.wal_writes.read() < 800, "some writes carried several batches");
}
