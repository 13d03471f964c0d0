//! Changing one line of a credential file, so that whoever reads it at any moment sees the old file or the new one, whole.
//!
//! The new content is written beside the file under a fixed name that only one edit can hold, synced, and renamed over it. New
//! files are readable by their owner only; of existing ones owner and group stay, and so do their permissions, but for others'.

use super::error::CtlError;
use crate::auth::LoadError;
use crate::auth::name::parse_login;
use crate::auth::password::{FILE_BYTES_MAX, parse_hash, verify_password};
use crate::auth::scram::file::Credential;
use crate::auth::source;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// What a credential file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Argon2id hashes.
    Password,
    /// SCRAM-SHA-256 credentials.
    Scram,
}

/// An edit under way; dropping it leaves the file as it is.
#[derive(Debug)]
pub(super) struct Edit {
    path: PathBuf,
    lock: PathBuf,
    file: File,
    lines: Vec<String>,
}

impl Drop for Edit {
    fn drop(&mut self) {
        // After a rename it is gone already.
        let _ = fs::remove_file(&self.lock);
    }
}

/// What stands behind `login` in the file, if anything.
///
/// # Errors
/// [`LoadError`], with file and line.
pub(super) fn find(path: &Path, login: &str) -> Result<Option<(Format, String)>, LoadError> {
    for (number, line) in source::read_lines(path, FILE_BYTES_MAX)? {
        let (format, found) = parse(&line).map_err(|problem| LoadError::line(path, number, problem))?;
        if found == login {
            return Ok(Some((format, line[found.len() + 1..].to_owned())));
        }
    }
    Ok(None)
}

/// Whether `password` is the one of the line's rest that [`find`] gave.
pub(super) fn is_password(format: Format, rest: &str, login: &str, password: &[u8]) -> bool {
    match format {
        Format::Password => parse_hash(rest.trim_end()).is_ok_and(|hash| verify_password(password, &hash)),
        Format::Scram => Credential::parse(login, rest).is_ok_and(|credential| credential.admits(password)),
    }
}

/// Format and login of a line.
fn parse(line: &str) -> Result<(Format, &str), String> {
    let (login, rest) = line.split_once(':').ok_or("expected `user:` and a credential")?;
    parse_login(login)?;
    if rest.starts_with('$') {
        parse_hash(rest.trim_end()).map(|_| (Format::Password, login))
    } else {
        Credential::parse(login, rest).map(|_| (Format::Scram, login))
    }
}

impl Edit {
    /// Begins to change the file at `path`; it need not exist. All its credentials must be of `format`, if one is given.
    ///
    /// # Errors
    /// [`CtlError`] if the file is malformed or of another format, or another edit is under way.
    pub(super) fn begin(path: &Path, format: Option<Format>) -> Result<Self, CtlError> {
        let existing = match fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(CtlError::file(path, "look at it")(error)),
        };
        // A link stays a link: what it points to is replaced.
        let path = match existing {
            Some(_) => fs::canonicalize(path).map_err(CtlError::file(path, "follow it"))?,
            None => path.to_owned(),
        };
        let lock = lock_path(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                CtlError::Busy { lock: lock.clone() }
            } else {
                CtlError::file(&lock, "create it")(error)
            }
        })?;
        let mut edit = Self { path, lock, file, lines: Vec::new() };
        if let Some(metadata) = existing {
            fchown(&edit.file, Some(metadata.uid()), Some(metadata.gid()))
                .and_then(|()| edit.file.set_permissions(Permissions::from_mode(metadata.mode() & 0o660 | 0o600)))
                .map_err(CtlError::file(&edit.lock, "keep owner and permissions"))?;
            edit.read(format)?;
        }
        Ok(edit)
    }

    fn read(&mut self, format: Option<Format>) -> Result<(), CtlError> {
        for (number, line) in source::read_lines(&self.path, FILE_BYTES_MAX)? {
            let fail = |problem: String| LoadError::line(&self.path, number, problem);
            let (found, _) = parse(&line).map_err(fail)?;
            if format.is_some_and(|format| format != found) {
                let problem = match found {
                    Format::Password => "holds password hashes; use another file for SCRAM credentials",
                    Format::Scram => "holds SCRAM credentials; add --scram, or use another file",
                };
                return Err(fail(problem.to_owned()).into());
            }
        }
        // Comments and blank lines stay, so the lines are kept as they are.
        let content = source::read(&self.path, FILE_BYTES_MAX)?;
        self.lines = String::from_utf8_lossy(&content).lines().map(str::to_owned).collect();
        Ok(())
    }

    /// Sets the credential of `login`. Says whether there was one before.
    pub(super) fn set(&mut self, login: &str, credential: &str) -> bool {
        let line = format!("{login}:{credential}");
        match self.lines.iter_mut().find(|line| is_of(line, login)) {
            Some(old) => {
                *old = line;
                true
            }
            None => {
                self.lines.push(line);
                false
            }
        }
    }

    /// Removes the credential of `login`. Says whether there was one.
    pub(super) fn remove(&mut self, login: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !is_of(line, login));
        self.lines.len() < before
    }

    /// Puts the new content in place.
    ///
    /// # Errors
    /// [`CtlError::File`]; the file is as it was then.
    pub(super) fn commit(mut self) -> Result<(), CtlError> {
        let mut content = self.lines.join("\n");
        if !content.is_empty() {
            content.push('\n');
        }
        let written = self.file.write_all(content.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(CtlError::file(&self.lock, "write it"))?;
        fs::rename(&self.lock, &self.path).map_err(CtlError::file(&self.path, "replace it"))?;
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(CtlError::file(&self.path, "sync the directory of it"))
    }
}

fn is_of(line: &str, login: &str) -> bool {
    !line.trim_start().starts_with('#') && line.split_once(':').is_some_and(|(found, _)| found == login)
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".edit");
    path.with_file_name(name)
}
