//! Why authentication or access rules could not be loaded. Whoever gets one of these keeps what was in force before, or
//! does not start: nothing is ever half loaded.

use super::config::ProviderKind;
use std::io;
use std::path::{Path, PathBuf};

/// A configuration of `[auth]` or `[acl]`, or a file it names, is not usable. Each message says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be read.
    #[error("{path}: cannot be read ({source}); check that it exists and that the broker's user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any sensible one.
    #[error("{path}: larger than {bytes_max} bytes; check that it is the right file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: usize,
    },
    /// One line of a file is wrong, so none of it is used.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A file as a whole is wrong.
    #[error("{path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A key of the configuration has a value that cannot be.
    #[error("configuration key {key}: {problem}")]
    Setting {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A listener names a provider that is not configured.
    #[error(
        "listener {listener}: `auth` names \"{provider}\", but there is no [auth.{provider}]; add the section or remove the \
         name"
    )]
    NotConfigured {
        /// Index of the listener.
        listener: usize,
        /// The provider.
        provider: ProviderKind,
    },
    /// The system's source of randomness failed.
    #[error("the system gives no random numbers; check that getrandom(2) is permitted")]
    Random,
    /// Threads could not be started.
    #[error("password threads cannot be started ({0}); check the limit on processes")]
    Threads(#[source] io::Error),
}

impl LoadError {
    pub(crate) fn setting(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { key, problem: problem.into() }
    }

    pub(crate) fn line(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, problem: problem.into() }
    }

    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), problem: problem.into() }
    }
}
