//! How commands and records are written: the bytes of the log's entries and of the state at rest.
//!
//! An encoding starts with [`FORMAT`] and is read to its last byte. Integers are little-endian, strings and byte strings carry a
//! four-byte length that is checked against what is there before anything is allocated. What is read comes from a disk or
//! from a peer, so nothing about it is asserted: whatever is wrong with it is a [`RecordError`].

mod carried;
mod stored;
#[cfg(test)]
mod tests;

pub(crate) use carried::by_clock_here;
pub use carried::{decode_client, decode_message, encode_client, encode_message};
pub(crate) use stored::{read_client, read_message, write_client, write_message};

use crate::limits::RECORD_BYTES_MAX;
use alloc::vec::Vec;
use bifro_core::time::Instant;

/// Version of every encoding of this crate. A newer one is refused, not guessed at.
pub const FORMAT: u8 = 1;

/// What is wrong with an encoding. Nothing has been changed by what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordError {
    /// It is longer than [`RECORD_BYTES_MAX`].
    TooLong,
    /// It ends before what it announces.
    Truncated,
    /// It goes on after its end.
    Trailing,
    /// It is in a format that this version does not know.
    Format(u8),
    /// A string is not UTF-8.
    Utf8,
    /// A field has a value that nobody writes; its name.
    Value(&'static str),
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong => f.write_str("longer than any record may be"),
            Self::Truncated => f.write_str("ends too early"),
            Self::Trailing => f.write_str("goes on after its end"),
            Self::Format(format) => write!(f, "in format {format}, this version reads {FORMAT}"),
            Self::Utf8 => f.write_str("a string is not UTF-8"),
            Self::Value(field) => write!(f, "no such {field}"),
        }
    }
}

impl core::error::Error for RecordError {}

/// Writes one encoding behind what is there already. Whether it is within [`RECORD_BYTES_MAX`] is asked of the reader.
#[derive(Debug)]
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// An encoding of which only the format is written.
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(FORMAT);
        Self(out)
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("what is counted came in packets of less than 256 MiB"));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn maybe_instant(&mut self, at: Option<Instant>) {
        self.u8(u8::from(at.is_some()));
        if let Some(at) = at {
            self.u64(at.as_micros());
        }
    }
}

/// Reads one encoding.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        let mut reader = Self(bytes);
        match reader.u8()? {
            FORMAT => Ok(reader),
            other => Err(RecordError::Format(other)),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    /// How many elements follow. Each takes at least a byte, so a count beyond what is left is refused.
    pub(crate) fn count(&mut self) -> Result<usize, RecordError> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > self.0.len() { Err(RecordError::Truncated) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let len = self.count()?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, RecordError> {
        core::str::from_utf8(self.bytes()?).map_err(|_| RecordError::Utf8)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, RecordError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Value("flag")),
        }
    }

    pub(crate) fn instant(&mut self) -> Result<Instant, RecordError> {
        self.u64().map(Instant::from_micros)
    }

    pub(crate) fn maybe_instant(&mut self) -> Result<Option<Instant>, RecordError> {
        if self.flag()? { self.instant().map(Some) } else { Ok(None) }
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends the reading.
    pub(crate) fn finish(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Trailing) }
    }
}
