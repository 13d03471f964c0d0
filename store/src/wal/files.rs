//! The engine's view of its files: the operating system's, with a place before each fsync where tests can let the device fail.

use super::config::SyncProbe;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};
use std::io;
use std::path::Path;
use std::sync::Arc;

type SystemHandle = <DefaultFileSystem as FileSystem>::Handle;

/// Files of the log.
pub(super) struct LogFiles {
    system: DefaultFileSystem,
    probe: Option<SyncProbe>,
}

impl LogFiles {
    pub(super) fn new(probe: Option<SyncProbe>) -> Self {
        Self { system: DefaultFileSystem, probe }
    }
}

/// An open file.
pub(super) struct LogFile {
    system: Arc<SystemHandle>,
    probe: Option<SyncProbe>,
}

impl Handle for LogFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        Handle::truncate(&*self.system, offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.system.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(probe) = &self.probe {
            probe()?;
        }
        self.system.sync()
    }
}

impl FileSystem for LogFiles {
    type Handle = LogFile;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogFile> {
        Ok(LogFile { system: self.system.create(path)?.into(), probe: self.probe.clone() })
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogFile> {
        Ok(LogFile { system: self.system.open(path, permission)?.into(), probe: self.probe.clone() })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.system.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.system.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<LogFile>) -> io::Result<Self::Reader> {
        self.system.new_reader(handle.system.clone())
    }

    fn new_writer(&self, handle: Arc<LogFile>) -> io::Result<Self::Writer> {
        self.system.new_writer(handle.system.clone())
    }
}
