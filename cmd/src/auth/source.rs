//! Reading the files that decide who may do what: bounded, whole, and with the line at hand for messages.

use super::error::LoadError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The whole of a file, if it has no more than `bytes_max` bytes.
///
/// # Errors
/// [`LoadError::Read`] or [`LoadError::TooLarge`].
pub(crate) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// The lines of a file that say something, with their numbers from 1: no blank lines, no comments (`#` in the first
/// column that is not blank), no trailing carriage return.
///
/// # Errors
/// Those of [`read`], and [`LoadError::Line`] for the first line that is not UTF-8.
pub(crate) fn read_lines(path: &Path, bytes_max: usize) -> Result<Vec<(usize, String)>, LoadError> {
    let bytes = read(path, bytes_max)?;
    let mut lines = Vec::new();
    for (index, raw) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let line = std::str::from_utf8(raw)
            .map_err(|_| LoadError::line(path, number, "not UTF-8; save the file as UTF-8"))?
            .trim_end_matches('\r');
        let start = line.trim_start();
        if !start.is_empty() && !start.starts_with('#') {
            lines.push((number, line.to_owned()));
        }
    }
    Ok(lines)
}
