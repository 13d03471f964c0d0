//! The data directory of a node: held by one process at a time, and of a format this version understands.
//!
//! ```text
//! data/LOCK      held by flock while the process lives; contains its process id
//! data/FORMAT    "bifro-uring data format N"
//! data/wal/      the write-ahead log          data/kv/      the key-value base
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The format this version writes. Raised when an older version could misread what is written.
pub const FORMAT: u32 = 1;

/// What the marker file says before the number.
const FORMAT_PREFIX: &str = "bifro-uring data format ";

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error(
        "the data directory {path} is in use by process {holder}: stop that process, or give this node another [node] data_dir"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Process id the holder wrote, or "unknown".
        holder: String,
    },
    /// A newer version wrote it.
    #[error("the data directory {path} has format {found}, this version reads up to {FORMAT}: start the newer version")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The marker is not ours.
    #[error(
        "{path} is no data directory of bifro-uring (its FORMAT file says {found:?}): choose another [node] data_dir"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The beginning of what the marker says.
        found: String,
    },
    /// There is data but no marker.
    #[error("{path} holds files but no FORMAT marker: choose an empty directory, or restore the marker")]
    Unmarked {
        /// The directory.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

/// A locked data directory. The lock goes with the value, or with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory if need be, locks it and checks its format.
    ///
    /// # Errors
    /// As [`DataDirError`] lists.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        std::fs::create_dir_all(path).map_err(io("create", path))?;
        let lock_path = path.join("LOCK");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(&lock_path).map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if read { holder.trim().to_owned() } else { "unknown".to_owned() };
                return Err(DataDirError::Locked { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        check_format(path)?;
        let process = std::process::id();
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(io("write", &lock_path))?;
        writeln!(lock, "{process}").map_err(io("write", &lock_path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses what is foreign or newer; marks what is new. The marker is written before any data and synced.
fn check_format(path: &Path) -> Result<(), DataDirError> {
    let marker = path.join("FORMAT");
    let io = |action| {
        let path = marker.clone();
        move |source| DataDirError::Io { action, path, source }
    };
    let text = match std::fs::read(&marker) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return mark(path, &marker).map_err(io("write"))?,
        Err(error) => return Err(io("read")(error)),
    };
    match text.strip_prefix(FORMAT_PREFIX).and_then(|number| number.trim().parse::<u32>().ok()) {
        Some(found) if found > FORMAT => Err(DataDirError::Newer { path: path.to_owned(), found }),
        Some(_) => Ok(()),
        None => Err(DataDirError::Foreign { path: path.to_owned(), found: text.chars().take(40).collect() }),
    }
}

/// Marks a directory without data; the outer error is the system's.
fn mark(path: &Path, marker: &Path) -> io::Result<Result<(), DataDirError>> {
    if path.join("wal").exists() || path.join("kv").exists() {
        return Ok(Err(DataDirError::Unmarked { path: path.to_owned() }));
    }
    // Renamed into place, so that a crash leaves no half a marker.
    let draft = path.join("FORMAT.new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{FORMAT_PREFIX}{FORMAT}")?;
    file.sync_all()?;
    std::fs::rename(&draft, marker)?;
    File::open(path)?.sync_all()?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<DataDir, DataDirError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn a_second_holder_is_told_who_has_the_directory_and_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = DataDir::open(dir.path()).expect("free");
        let said = message(DataDir::open(dir.path()));
        assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
        assert!(said.contains("data_dir"), "{said}");
        drop(held);
        DataDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(DataDir::open(dir.path()).expect("free"));
        let newer = format!("{FORMAT_PREFIX}{}\n", FORMAT + 1);
        std::fs::write(dir.path().join("FORMAT"), &newer).expect("written");
        assert!(message(DataDir::open(dir.path())).contains("start the newer version"));
        assert_eq!(std::fs::read_to_string(dir.path().join("FORMAT")).expect("there"), newer);
    }

    #[test]
    fn foreign_markers_and_unmarked_data_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("FORMAT"), b"mosquitto\xff").expect("written");
        assert!(message(DataDir::open(dir.path())).contains("no data directory of bifro-uring"));
        std::fs::remove_file(dir.path().join("FORMAT")).expect("there");
        std::fs::create_dir(dir.path().join("wal")).expect("created");
        assert!(message(DataDir::open(dir.path())).contains("no FORMAT marker"));
    }
}
