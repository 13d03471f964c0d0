//! Bits that flip on disk are noticed when they are read.

use super::*;
use std::fs;

fn tables(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() { tables(&entry, found) } else { found.push(entry) }
    }
}

/// Whatever byte of whatever file of the base is flipped: the base refuses to open, or says so at the read, or the byte was of no
/// consequence; but it never answers with a wrong value.
#[test]
fn no_flipped_byte_on_disk_becomes_a_wrong_value() {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = || (0..200_u64).map(|number| format!("key-{number:05}"));
    {
        let base = fjall(dir.path());
        let (keys, value): (Vec<String>, String) = (keys().collect(), "v".repeat(100));
        let changes: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(value.as_str()))).collect();
        conformance::commit(&base, SpaceId(1), &changes, 5).expect("committed");
    }
    let mut files = Vec::new();
    tables(&dir.path().join("kv"), &mut files);
    let (mut noticed, mut tried) = (0, 0);
    for file in files.iter().filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0)) {
        let intact = fs::read(file).expect("readable");
        for part in 1..8 {
            let mut damaged = intact.clone();
            let at = damaged.len() * part / 8;
            damaged[at] ^= 0x10;
            let copy = tempfile::tempdir().expect("a directory");
            copy_dir(dir.path(), copy.path());
            fs::write(copy.path().join(file.strip_prefix(dir.path()).expect("below")), &damaged).expect("written");
            tried += 1;
            noticed += usize::from(!reads_right(copy.path(), keys()));
        }
    }
    assert!(tried > 0 && noticed > 0, "{noticed} of {tried} noticed");
}

/// False if damage was noticed.
fn reads_right(dir: &Path, keys: impl Iterator<Item = String>) -> bool {
    let data = DataDir::open(dir).expect("the marker is intact");
    let opened = std::panic::catch_unwind(|| FjallBase::open(&data, FjallConfig::default()));
    let Ok(Ok(base)) = opened else { return false };
    // A torn journal is cut at its damage, as after a crash: what it held is in the Raft log, and the applied index goes back with it.
    let applied = base.state(SpaceId(1)).expect("from memory").applied;
    for key in keys {
        match base.get(SpaceId(1), key.as_bytes()) {
            Ok(Some(value)) => assert_eq!(*value, *"v".repeat(100).as_bytes(), "{key}"),
            Ok(None) => assert_eq!(applied, 0, "{key} is missing from what is said to be applied"),
            Err(_) => return false,
        }
    }
    applied == 5
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("a directory").map(|entry| entry.expect("readable")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
