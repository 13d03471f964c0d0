//! What can go wrong in `bifroctl`. Each message says what happened, where, and what to do.

use crate::auth::LoadError;
use bifro_mqtt::codec::DecodeError;
use bifro_mqtt::reason::Reason;
use bifro_net::links::CertificateFault;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// A file is malformed or cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file cannot be written.
    #[error("{path}: cannot {action} ({source}); check the permissions of the file and its directory")]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another edit of the file is under way.
    #[error(
        "{lock}: exists, so another bifroctl is changing the file; if none runs, one was killed: remove it and try again"
    )]
    Busy {
        /// The file that stands for the edit.
        lock: PathBuf,
    },
    /// A file is there that would have to be overwritten.
    #[error("{path}: exists already, and nothing was written; take another --dir or --name, or --force to replace it")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file of the CA does not do, or nodes would not take what was to become a file.
    #[error("{file}: {problem}; nothing was written")]
    CertificateFile {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A certificate or key could not be made.
    #[error("no certificate can be made ({0})")]
    Certificate(#[from] rcgen::Error),
    /// There is no such user in the file.
    #[error("{path}: no user {login:?}")]
    NoSuchUser {
        /// The file.
        path: PathBuf,
        /// Whom the command named.
        login: String,
    },
    /// The password is not the user's.
    #[error("wrong password for {login:?}")]
    WrongPassword {
        /// Whom the command named.
        login: String,
    },
    /// The command line, or what was typed, is not usable.
    #[error("{0}")]
    Usage(String),
    /// Standard input or the terminal could not be read.
    #[error("cannot read {what} ({source})")]
    Input {
        /// What was to be read.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever read the output has gone; no fault.
    #[error("standard output is closed")]
    OutputClosed,
    /// Standard output could not be written.
    #[error("cannot write to standard output ({0})")]
    Output(#[source] io::Error),
    /// An admin endpoint does not say what it was asked.
    #[error("{server}: {problem}; is this the address in admin.bind of a node?")]
    Admin {
        /// Host and port.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// No connection.
    #[error("{server}: cannot connect ({source}); check host and port, and that the broker listens there")]
    Connect {
        /// Host and port.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("{server}: no TLS connection ({problem}); check --cafile, --cert and --key, and that the port speaks TLS")]
    Tls {
        /// Host and port.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// The connection broke.
    #[error("{server}: connection lost while {doing} ({source})")]
    Lost {
        /// Host and port.
        server: String,
        /// What was under way.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{server}: no answer while {doing}; check that the port speaks MQTT, or raise --timeout")]
    Timeout {
        /// Host and port.
        server: String,
        /// What was under way.
        doing: &'static str,
    },
    /// The broker said no.
    #[error("{server}: the broker refused {what}: {reason}{detail}")]
    Refused {
        /// Host and port.
        server: String,
        /// What was refused.
        what: String,
        /// The reason code.
        reason: Reason,
        /// The broker's own words, if it gave any.
        detail: String,
    },
    /// The broker broke the protocol.
    #[error("{server}: the peer does not speak MQTT as asked for ({problem}); check the port and --protocol")]
    Protocol {
        /// Host and port.
        server: String,
        /// How.
        problem: String,
    },
}

impl From<CertificateFault> for CtlError {
    fn from(fault: CertificateFault) -> Self {
        Self::CertificateFile { file: fault.file, problem: fault.problem }
    }
}

impl CtlError {
    pub(super) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, action, source }
    }

    pub(super) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe { Self::OutputClosed } else { Self::Output(source) }
    }

    pub(super) fn malformed(server: &str, error: DecodeError) -> Self {
        Self::Protocol { server: server.to_owned(), problem: error.to_string() }
    }
}
