//! Looks at the end of the log before the engine does, to tell a torn write from damage.
//!
//! The engine cuts the newest file at the first record it cannot read, and does not look at the entries of a record at all until
//! somebody reads them. Both would drop acknowledged entries silently if a bit has flipped, and the second would serve a write that
//! was only half done when the power went. But a write begins only after the one before it was synced, so only the very last record
//! can be torn: if an intact record follows a bad one, the bad one is damaged. Then the node must not start by itself; otherwise the
//! file is cut. A flip in the very last record cannot be told from a torn write by anybody; peers hold the copy.
//!
//! The format, from raft-engine 0.4.2 (`log_batch.rs`, `file_pipe_log/format.rs`), integers big-endian unless noted:
//! ```text
//! file    magic 53 bytes | version u64 = 2 | alignment u64 = 0 | record...
//! record  length u56, compression u8 | footer offset u64 | entries, crc32 (little-endian) | footer, crc32 (little-endian) xor file number
//! ```

use super::error::OpenError;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

const FILE_HEADER_BYTES: usize = 53 + 8 + 8;
const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const RECORD_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// Checks the newest file of both queues and cuts a torn record off. `synced` says that each record was synced before the next was
/// begun; without, several may be torn and nothing is called damage.
///
/// # Errors
/// [`OpenError::Damaged`] with nothing changed, or what the system says.
pub(super) fn mend(dir: &Path, synced: bool) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io { path: dir.to_owned(), source };
    for suffix in [".raftlog", ".rewrite"] {
        if let Some((path, number)) = newest(dir, suffix).map_err(failed)? {
            mend_file(&path, number, synced).map_err(failed)??;
        }
    }
    Ok(())
}

/// The file with the highest number.
fn newest(dir: &Path, suffix: &str) -> io::Result<Option<(PathBuf, u64)>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(suffix).and_then(|digits| digits.parse::<u64>().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(_, highest)| number > *highest)
        {
            newest = Some((path, number));
        }
    }
    Ok(newest)
}

/// The outer error is the system's.
fn mend_file(path: &Path, number: u64, synced: bool) -> io::Result<Result<(), OpenError>> {
    let bytes = std::fs::read(path)?;
    // The header was synced before the first record: without it there are no records, or it is damaged.
    let headed = bytes.len() >= FILE_HEADER_BYTES && bytes.starts_with(FILE_MAGIC);
    let mut offset = if headed { FILE_HEADER_BYTES } else { 0 };
    while headed && let Some(length) = intact(&bytes[offset..], number) {
        offset += length;
    }
    if offset == bytes.len() {
        return Ok(Ok(()));
    }
    if synced && another_follows(&bytes[offset..], number) {
        return Ok(Err(OpenError::Damaged { path: path.to_owned(), offset: offset as u64 }));
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(offset as u64)?;
    file.sync_all()?;
    Ok(Ok(()))
}

/// Length and footer offset, if they could be a record's.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    let first = u64::from_be_bytes(*first);
    let footer = usize::try_from(u64::from_be_bytes(*rest.first_chunk::<8>()?)).ok()?;
    let (length, compression) = (usize::try_from(first >> 8).ok()?, first & 0xff);
    let fits = length <= bytes.len() && RECORD_HEADER_BYTES <= footer && footer + CHECKSUM_BYTES < length;
    (fits && compression == 0).then_some((length, footer))
}

/// The length of the record that begins here, if it is as it was written to file `number`.
fn intact(bytes: &[u8], number: u64) -> Option<usize> {
    let (length, footer) = lengths(bytes)?;
    let entries = &bytes[RECORD_HEADER_BYTES..footer];
    // The file's number is xored into the footer's checksum, so that leftovers of a recycled file do not pass.
    let signature = number as u32;
    let passes = (entries.is_empty() || matches(entries, 0)) && matches(&bytes[footer..length], signature);
    passes.then_some(length)
}

fn matches(bytes: &[u8], signature: u32) -> bool {
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else { return false };
    crc32fast::hash(content) ^ signature == u32::from_le_bytes(*checksum)
}

/// Whether an intact record begins anywhere after the bad one at the beginning.
fn another_follows(bytes: &[u8], number: u64) -> bool {
    // Past the bad record if its length can be believed: what clients wrote into it must not be taken for a record.
    let from = lengths(bytes).map_or(1, |(length, _)| length);
    (from..bytes.len()).any(|offset| intact(&bytes[offset..], number).is_some())
}
