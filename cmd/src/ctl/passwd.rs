//! `bifroctl passwd`: files of password hashes and SCRAM credentials.

use super::credential_file::{Edit, Format, find, is_password};
use super::{Console, CtlError};
use crate::auth::name::parse_login;
use crate::auth::password::hash_password;
use crate::auth::scram::file::{Credential, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN};
use clap::{Args, Subcommand};
use std::io::{self, BufRead, BufReader, Read};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Longest password, in bytes: what MQTT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// Arguments of `bifroctl passwd`.
#[derive(Debug, Args)]
pub(super) struct PasswdArgs {
    #[command(subcommand)]
    command: PasswdCommand,
}

#[derive(Debug, Subcommand)]
enum PasswdCommand {
    /// Add a user, or change a user's password. Creates the file if there is none.
    Add {
        #[command(flatten)]
        who: Who,
        /// Write a SCRAM-SHA-256 credential instead of an Argon2id hash.
        #[arg(long)]
        scram: bool,
        /// Iterations of the SCRAM credential; the client pays for them at each connection.
        #[arg(long, requires = "scram", default_value_t = ITERATIONS_DEFAULT,
              value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
        iterations: u32,
        /// Read the password from the first line of standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user.
    Delete {
        #[command(flatten)]
        who: Who,
    },
    /// Check a user's password; exit code 1 if it is wrong.
    Verify {
        #[command(flatten)]
        who: Who,
        /// Read the password from the first line of standard input instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Debug, Args)]
struct Who {
    /// The credential file.
    file: PathBuf,
    /// The user; `tenant/user` names the tenant as well.
    user: String,
    /// Tenant of the user; the client then logs in as `tenant/user`.
    #[arg(long)]
    tenant: Option<String>,
}

impl Who {
    fn login(&self) -> Result<String, CtlError> {
        let login = match &self.tenant {
            Some(tenant) => format!("{tenant}/{}", self.user),
            None => self.user.clone(),
        };
        parse_login(&login).map_err(CtlError::Usage)?;
        if login.trim_start() != login || login.starts_with('#') {
            return Err(CtlError::Usage(format!("the login {login:?} would be read as a comment or lose its blanks")));
        }
        Ok(login)
    }
}

impl PasswdArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        match &self.command {
            PasswdCommand::Add { who, scram, iterations, password_stdin } => {
                let iterations = scram.then_some(*iterations).and_then(NonZeroU32::new);
                add(console, who, iterations, *password_stdin)
            }
            PasswdCommand::Delete { who } => delete(console, who),
            PasswdCommand::Verify { who, password_stdin } => verify(console, who, *password_stdin),
        }
    }
}

fn add(console: &mut Console<'_>, who: &Who, scram: Option<NonZeroU32>, from_stdin: bool) -> Result<(), CtlError> {
    let login = who.login()?;
    let format = if scram.is_some() { Format::Scram } else { Format::Password };
    // Before the password is asked for, so that nobody types it in vain.
    let mut edit = Edit::begin(&who.file, Some(format))?;
    let password = new_password(console, from_stdin)?;
    let credential = match scram {
        Some(iterations) => {
            if ![login.as_str(), &password].iter().all(|text| is_printable_ascii(text)) {
                let problem = "SCRAM users and passwords are kept to printable ASCII, because clients differ in how they \
                               prepare anything else; choose another one, or use a password file";
                return Err(CtlError::Usage(problem.to_owned()));
            }
            Credential::derive(password.as_bytes(), &Credential::fresh_salt()?, iterations).to_line()
        }
        None => hash_password(password.as_bytes())?,
    };
    let existed = edit.set(&login, &credential);
    edit.commit()?;
    let done = if existed { "changed" } else { "added" };
    writeln!(console.notes, "{}: {done} {login:?}; reload the broker to use it", who.file.display())
        .map_err(CtlError::output)
}

fn delete(console: &mut Console<'_>, who: &Who) -> Result<(), CtlError> {
    let login = who.login()?;
    let mut edit = Edit::begin(&who.file, None)?;
    if !edit.remove(&login) {
        return Err(CtlError::NoSuchUser { path: who.file.clone(), login });
    }
    edit.commit()?;
    writeln!(console.notes, "{}: removed {login:?}; reload the broker to use it", who.file.display())
        .map_err(CtlError::output)
}

fn verify(console: &mut Console<'_>, who: &Who, from_stdin: bool) -> Result<(), CtlError> {
    let login = who.login()?;
    let Some((format, rest)) = find(&who.file, &login)? else {
        return Err(CtlError::NoSuchUser { path: who.file.clone(), login });
    };
    let password = if from_stdin { read_password(console.input)? } else { ask(console, "Password: ")? };
    if !is_password(format, &rest, &login, password.as_bytes()) {
        return Err(CtlError::WrongPassword { login });
    }
    writeln!(console.notes, "{}: the password of {login:?} is right", who.file.display()).map_err(CtlError::output)
}

fn new_password(console: &mut Console<'_>, from_stdin: bool) -> Result<String, CtlError> {
    let password = if from_stdin {
        read_password(console.input)?
    } else {
        let password = ask(console, "New password: ")?;
        if ask(console, "Again: ")? != password {
            return Err(CtlError::Usage("the two passwords differ; nothing was changed".to_owned()));
        }
        password
    };
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        let problem = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes; nothing was changed");
        return Err(CtlError::Usage(problem));
    }
    Ok(password)
}

fn ask(console: &mut Console<'_>, text: &str) -> Result<String, CtlError> {
    (console.prompt)(text).map_err(|source| CtlError::Input { what: "the password; is there a terminal?", source })
}

/// The first line, without its line break.
fn read_password(input: &mut dyn Read) -> Result<String, CtlError> {
    let mut line = Vec::new();
    let limit = PASSWORD_BYTES_MAX as u64 + 2;
    let failed = |source| CtlError::Input { what: "the password from standard input", source };
    BufReader::new(input.take(limit)).read_until(b'\n', &mut line).map_err(failed)?;
    let line = String::from_utf8(line).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
