//! Who may connect, and as whom: every way to authenticate, and the access rules behind it, against a real node.

mod access;
mod anonymous;
mod certificate;
mod jwt;
mod keys;
mod password;
mod reauthentication;
mod scram;
mod tenants;
mod webhook;
mod webhook_server;

use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions, process};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// What a refused client hears: the reason in 5.0, the return code in 3.x.
pub(crate) fn refusal(version: Version, reason: Reason) -> Reason {
    if version == Version::V5 { reason } else { Reason(reason.to_v3_connack()) }
}

/// Connects with these credentials.
pub(crate) fn login(
    address: SocketAddr,
    version: Version,
    client_id: &str,
    credentials: Option<(&str, &str)>,
) -> Result<Client, Reason> {
    let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
    let options = ConnectOptions { credentials, ..ConnectOptions::new(version, client_id) };
    let mut client = Client::open(address, version);
    client.login(&options).map(|_| client)
}

/// [`login`], and it must succeed.
pub(crate) fn admitted(address: SocketAddr, client_id: &str, user: &str, password: &str) -> Client {
    login(address, Version::V5, client_id, Some((user, password)))
        .unwrap_or_else(|reason| panic!("{user} is refused: {reason}"))
}

/// Adds a user to a credential file with `bifroctl passwd add`.
pub(crate) fn add_user(file: &Path, user: &str, password: &str, flags: &[&str]) {
    let mut command = Command::new(process::binaries().join("bifroctl"));
    command.args(["passwd", "add", "--password-stdin"]).arg(file).arg(user).args(flags);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bifroctl starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // It may end without having read everything; its status then says whether that is an error.
    let _ = writeln!(stdin, "{password}");
    drop(stdin);
    let output = child.wait_with_output().expect("bifroctl ends");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The content of a password file with these users, each with the password `<user>-password`.
pub(crate) fn password_file(users: &[&str]) -> Vec<u8> {
    let dir = process::fresh_dir("passwd");
    let file = dir.join("passwords");
    for user in users {
        let password = format!("{user}-password");
        match user.split_once('/') {
            Some((tenant, user)) => add_user(&file, user, &password, &["--tenant", tenant]),
            None => add_user(&file, user, &password, &[]),
        }
    }
    let content = std::fs::read(&file).expect("bifroctl has written it");
    std::fs::remove_dir_all(dir).expect("it is the test's own");
    content
}
