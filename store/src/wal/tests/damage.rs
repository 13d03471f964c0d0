//! Torn writes are cut off, damage is named, and neither is served.

use super::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const A: GroupId = GroupId(1);

/// Three synced batches of one entry each, with payloads that are easy to find.
fn written(dir: &Path) -> PathBuf {
    let mut bench = open(dir, small());
    for index in 1..=3 {
        bench.write(append(A, index..index + 1, format!("payload number {index}").as_bytes()));
    }
    drop(bench);
    dir.join("wal").join(format!("{:016}.raftlog", 1))
}

fn place_of(path: &Path, needle: &str) -> u64 {
    let bytes = std::fs::read(path).expect("there");
    let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
    found.expect("the payload is in the file") as u64
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("there");
    file.write_all_at(bytes, offset).expect("written");
}

fn refusal(dir: &Path) -> String {
    let fatal: Fatal = Arc::new(|reason| panic!("fatal: {reason}"));
    let Err(error) = try_open(dir, small(), fatal) else { panic!("opened in spite of damage") };
    error.to_string()
}

#[test]
fn a_flipped_bit_before_intact_records_is_damage_and_nothing_is_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(dir.path());
    overwrite(&path, place_of(&path, "payload number 2"), b"Q");
    let before = std::fs::read(&path).expect("there");
    let said = refusal(dir.path());
    assert!(said.contains("is damaged at byte") && said.contains("repair"), "{said}");
    assert_eq!(std::fs::read(&path).expect("there"), before);
}

#[test]
fn a_damaged_file_header_is_not_taken_for_an_empty_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(dir.path());
    overwrite(&path, 3, b"#");
    assert!(refusal(dir.path()).contains("is damaged at byte 0"));
}

#[test]
fn a_last_record_with_torn_entries_is_cut_though_its_footer_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(dir.path());
    overwrite(&path, place_of(&path, "payload number 3"), &[0; 4]);
    let mut bench = open(dir.path(), small());
    assert_eq!(bench.groups[0].entries, 1..3);
    assert_eq!(bench.read(A, 2..9).map(|read| read.len()), Ok(1));
    bench.write(append(A, 3..4, b"again"));
    drop(bench);
    assert_eq!(open(dir.path(), small()).groups[0].entries, 1..4);
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_record_opens_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = written(dir.path());
    let whole = std::fs::read(&path).expect("there");
    let begin = place_of(&path, "payload number 3") as usize - 8 - 4 - 16;
    for length in begin + 4..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("written");
        assert_eq!(open(dir.path(), small()).groups[0].entries, 1..3, "cut at {length} of {}", whole.len());
    }
    std::fs::write(&path, &whole).expect("written");
    assert_eq!(open(dir.path(), small()).groups[0].entries, 1..4);
}

#[test]
fn damage_in_an_older_file_is_reported_to_the_reader() {
    let dir = tempfile::tempdir().expect("a directory");
    let quiet = WalConfig { purge_interval: Duration::from_secs(600), ..small() };
    let mut bench = open(dir.path(), quiet.clone());
    bench.write(append(A, 1..2, b"to be damaged"));
    for index in 2..40 {
        bench.write(append(A, index..index + 1, &[1; 4000]));
    }
    drop(bench);
    let path = dir.path().join("wal").join(format!("{:016}.raftlog", 1));
    overwrite(&path, place_of(&path, "to be damaged"), b"T");
    let mut bench = open(dir.path(), quiet);
    let read = bench.read(A, 1..2);
    assert!(matches!(read, Err(WalError::Corrupt(_))), "{read:?}");
    assert_eq!(bench.wal().metrics().wal_read_failures.read(), 1);
    assert_eq!(bench.read(A, 2..3), Ok(entries(2..3, &[1; 4000])));
}
