//! Free space of the log's file system, asked ahead of writes so that the engine does not meet a full disk in the middle of one.
//!
//! ```text
//! free ≥ reserve          Ample: everything goes
//! reserve > free ≥ half   Short: shards refuse new proposals, what is on its way is still appended
//! half > free             appends are refused too; records, compactions and deletes are written
//! ```
//! Ample again only a quarter above the reserve, lest the state flap.

use super::config::{SpaceProbe, WalConfig};
use super::error::WalError;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether new proposals are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// They are.
    Ample,
    /// Refuse them; consumption, which frees space in the end, goes on.
    Short,
}

/// Bytes an unprivileged process could still write to the file system of `dir`.
///
/// # Errors
/// The system's.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut figures = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string, and the system fills the figures it is given room for.
    if unsafe { libc::statvfs(path.as_ptr(), figures.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the figures are there.
    let figures = unsafe { figures.assume_init() };
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// The writer's idea of free space, refreshed now and then and reduced by what it writes in between.
pub(super) struct SpaceGauge {
    probe: SpaceProbe,
    reserve: u64,
    free: u64,
    state: Space,
    /// Bytes written since the last look.
    since_look: u64,
}

/// Bytes written after which the gauge looks again, whatever the time.
const LOOK_BYTES: u64 = 4 << 20;

impl SpaceGauge {
    pub(super) fn new(dir: &Path, config: &WalConfig) -> io::Result<Self> {
        let dir = dir.to_owned();
        let probe = config.space_probe.clone().unwrap_or_else(|| std::sync::Arc::new(move || free_bytes(&dir)));
        let free = probe()?;
        let mut gauge = Self { probe, reserve: config.reserve_bytes, free, state: Space::Ample, since_look: 0 };
        gauge.judge();
        Ok(gauge)
    }

    /// Asks the system. A system that does not answer changes nothing.
    pub(super) fn look(&mut self) -> Space {
        if let Ok(free) = (self.probe)() {
            self.free = free;
            self.since_look = 0;
        }
        self.judge()
    }

    /// Counts a write; looks if enough has been written.
    pub(super) fn wrote(&mut self, bytes: u64) -> Space {
        self.since_look += bytes;
        self.free = self.free.saturating_sub(bytes);
        if self.since_look >= LOOK_BYTES { self.look() } else { self.judge() }
    }

    fn judge(&mut self) -> Space {
        let limit = match self.state {
            Space::Ample => self.reserve,
            Space::Short => self.reserve + self.reserve / 4,
        };
        self.state = if self.free < limit { Space::Short } else { Space::Ample };
        self.state
    }

    /// Whether `bytes` of entries, on top of `already` merged, may be written.
    pub(super) fn admit(&self, already: usize, bytes: usize) -> Result<(), WalError> {
        let needed = self.reserve / 2 + (already + bytes) as u64;
        if self.free < needed { Err(self.refusal()) } else { Ok(()) }
    }

    /// What a refused shard is told.
    pub(super) fn refusal(&self) -> WalError {
        WalError::NoSpace { free_bytes: self.free, reserve_bytes: self.reserve }
    }

    /// A write met a full disk: nothing is free, whatever the system said.
    pub(super) fn exhausted(&mut self) {
        self.free = 0;
        self.judge();
    }

    pub(super) fn state(&self) -> Space {
        self.state
    }

    pub(super) fn free(&self) -> u64 {
        self.free
    }
}
