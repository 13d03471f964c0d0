//! The log in memory, as the simulator has it: what is left of it when a process ends.

use super::*;

fn open(disk: &MemoryLog) -> (Wal, WalPort, Vec<RecoveredGroup>) {
    let fatal: Fatal = Arc::new(|reason| panic!("fatal: {reason}"));
    let (wal, groups) = Wal::stepped(disk, small(), fatal);
    let port = wal.port(Arc::new(|| {}));
    (wal, port, groups)
}

fn ends(groups: &[RecoveredGroup]) -> Vec<u64> {
    groups.iter().map(|group| group.entries.end).collect()
}

#[test]
fn what_is_written_is_durable_when_the_write_is_finished_and_not_before() {
    let disk = MemoryLog::default();
    let (wal, mut port, _) = open(&disk);
    let token = port.submit(append(GroupId(1), 1..3, b"x")).expect("there is room");
    let mut events = Vec::new();
    port.poll(&mut events);
    assert!(events.is_empty() && wal.begin_write() && port.is_quiet());
    wal.finish_write();
    port.poll(&mut events);
    assert_eq!(events, [WalEvent::Durable { token }]);
    assert_eq!(ends(&open(&disk).2), [3]);
}

#[test]
fn of_a_write_that_is_cut_off_the_first_batches_are_there_each_as_a_whole() {
    for kept in 0..4 {
        let disk = MemoryLog::default();
        let (wal, mut port, _) = open(&disk);
        for group in 1..4 {
            port.submit(append(GroupId(group), 1..3, b"x")).expect("there is room");
        }
        assert!(wal.begin_write());
        port.submit(append(GroupId(9), 1..2, b"later")).expect("there is room");
        wal.cut_write(kept);
        assert_eq!(ends(&open(&disk).2), vec![3; kept]);
    }
}

#[test]
fn entries_are_replaced_compacted_and_read_back_as_from_files() {
    let disk = MemoryLog::default();
    let (wal, mut port, _) = open(&disk);
    let mut batch = append(GroupId(1), 1..6, b"old");
    batch.append(GroupId(1), entries(4..5, b"new"));
    batch.compact_to(GroupId(1), 3);
    port.submit(batch).expect("there is room");
    assert!(wal.begin_write());
    wal.finish_write();
    assert_eq!(open(&disk).2[0].entries, 3..5);
    let read = wal.read_now(GroupId(1), 3..9, usize::MAX).expect("they are there");
    assert_eq!(read.iter().map(WalEntry::payload).collect::<Vec<_>>(), [b"old", b"new"]);
    assert_eq!(wal.read_now(GroupId(1), 2..4, usize::MAX), Err(WalError::Compacted { first: 3 }));
    assert_eq!(wal.read_now(GroupId(1), 5..6, usize::MAX), Err(WalError::NotFound));
}
