//! `bifroctl passwd`, checked with the providers that read what it writes.

use super::{TempDir, bifroctl, is_refused, mode};
use crate::auth::config::{PasswordFileConfig, ScramConfig};
use crate::auth::testing::{Plane, granted, password_request};
use crate::auth::{AuthConfig, ProviderKind};
use crate::ctl::CtlError;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

fn file_in(dir: &TempDir) -> String {
    dir.0.join("users").display().to_string()
}

#[test]
fn an_added_user_can_log_in_and_a_deleted_one_is_gone() {
    let (dir, users) = (TempDir::new(), |dir: &TempDir| fs::read_to_string(file_in(dir)).expect("it exists"));
    let file = file_in(&dir);
    let run = bifroctl(&["passwd", "add", &file, "alice", "--tenant", "acme"], b"", &["wonderland", "wonderland"]);
    run.result.expect("added");
    assert!(run.notes.contains("added \"acme/alice\"") && run.output.is_empty(), "{}", run.notes);
    assert_eq!(mode(&file), 0o600);
    assert!(users(&dir).starts_with("acme/alice:$argon2id$"));
    let password_file = PasswordFileConfig { path: file.clone().into(), cache_ttl_s: 0, cache_entries_max: 1 };
    let config = AuthConfig { password_file: Some(password_file), ..AuthConfig::default() };
    let mut plane = Plane::new(&config, &[ProviderKind::PasswordFile]);
    assert_eq!(granted(plane.ask(password_request("acme/alice", "wonderland"))).tenant.as_deref(), Some("acme"));
    bifroctl(&["passwd", "delete", &file, "acme/alice"], b"", &[]).result.expect("deleted");
    assert_eq!(users(&dir), "");
    let error = bifroctl(&["passwd", "delete", &file, "acme/alice"], b"", &[]).error();
    assert!(error.contains("no user \"acme/alice\""), "{error}");
}

#[test]
fn a_scram_credential_is_one_that_the_provider_reads_and_verify_knows() {
    let dir = TempDir::new();
    let file = file_in(&dir);
    let add = ["passwd", "add", &file, "alice", "--scram", "--iterations", "4096", "--password-stdin"];
    bifroctl(&add, b"pencil\n", &[]).result.expect("added");
    let text = fs::read_to_string(&file).expect("it exists");
    assert!(text.starts_with("alice:4096:") && !text.contains("pencil"), "{text}");
    let config = AuthConfig { scram: Some(ScramConfig { path: file.clone().into() }), ..AuthConfig::default() };
    Plane::new(&config, &[ProviderKind::Scram]);
    bifroctl(&["passwd", "verify", &file, "alice"], b"", &["pencil"]).result.expect("right");
    let wrong = bifroctl(&["passwd", "verify", &file, "alice"], b"", &["pen"]);
    assert!(matches!(wrong.result, Err(CtlError::WrongPassword { .. })));
    assert!(is_refused(&["passwd", "add", &file, "alice", "--scram", "--iterations", "1"]));
    let error = bifroctl(&add, "crayón\n".as_bytes(), &[]).error();
    assert!(error.contains("printable ASCII"), "{error}");
}

#[test]
fn verify_tells_right_from_wrong_from_unknown() {
    let dir = TempDir::new();
    let file = file_in(&dir);
    bifroctl(&["passwd", "add", &file, "bob", "--password-stdin"], b"builder\r\nignored", &[]).result.expect("added");
    bifroctl(&["passwd", "verify", &file, "bob", "--password-stdin"], b"builder", &[]).result.expect("right");
    let wrong = bifroctl(&["passwd", "verify", &file, "bob", "--password-stdin"], b"Builder", &[]);
    assert!(matches!(wrong.result, Err(CtlError::WrongPassword { .. })));
    let unknown = bifroctl(&["passwd", "verify", &file, "eve", "--password-stdin"], b"x", &[]);
    assert!(matches!(unknown.result, Err(CtlError::NoSuchUser { .. })));
}

#[test]
fn a_change_keeps_comments_order_links_and_permissions() {
    let dir = TempDir::new();
    let (real, link) = (dir.0.join("real"), file_in(&dir));
    fs::write(&real, "# staff\n\n").expect("writable");
    symlink(&real, &link).expect("a link");
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).expect("ours");
    for user in ["alice", "bob", "alice"] {
        bifroctl(&["passwd", "add", &link, user, "--password-stdin"], b"x\n", &[]).result.expect("written");
    }
    let text = fs::read_to_string(&real).expect("it exists");
    let logins: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(logins, ["# staff", "", "alice", "bob"]);
    assert_eq!(mode(&real), 0o640, "others lose what they had");
    assert!(fs::symlink_metadata(&link).expect("it exists").is_symlink());
    assert_eq!(fs::read_dir(&dir.0).expect("ours").count(), 2, "nothing is left behind");
}

#[test]
fn a_failed_change_leaves_the_file_as_it_was() {
    let dir = TempDir::new();
    let file = file_in(&dir);
    bifroctl(&["passwd", "add", &file, "alice", "--password-stdin"], b"x\n", &[]).result.expect("added");
    let before = fs::read_to_string(&file).expect("it exists");
    let differ = bifroctl(&["passwd", "add", &file, "alice"], b"", &["one", "two"]);
    assert!(differ.error().contains("differ"), "{}", differ.error());
    assert!(bifroctl(&["passwd", "add", &file, "alice", "--password-stdin"], b"\n", &[]).error().contains("1 to"));
    let no_terminal = bifroctl(&["passwd", "add", &file, "alice"], b"", &[]);
    assert!(no_terminal.error().contains("terminal"));
    let mixed = bifroctl(&["passwd", "add", &file, "carol", "--scram", "--password-stdin"], b"x\n", &[]);
    assert!(mixed.error().contains(":1: holds password hashes"), "{}", mixed.error());
    for user in ["a:b", "", "#x", "a/b/c"] {
        assert!(bifroctl(&["passwd", "add", &file, user, "--password-stdin"], b"x\n", &[]).result.is_err(), "{user:?}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it exists"), before);
    fs::write(&file, format!("{before}garbage\n")).expect("writable");
    let malformed = bifroctl(&["passwd", "add", &file, "bob", "--password-stdin"], b"x\n", &[]);
    assert!(malformed.error().contains(":2: "), "{}", malformed.error());
    assert_eq!(fs::read_dir(&dir.0).expect("ours").count(), 1, "nothing is left behind");
}

#[test]
fn two_changes_at_once_are_one_too_many() {
    let dir = TempDir::new();
    fs::write(dir.0.join(".users.edit"), "").expect("writable");
    let busy = bifroctl(&["passwd", "add", &file_in(&dir), "alice", "--password-stdin"], b"x\n", &[]);
    assert!(busy.error().contains(".users.edit: exists"), "{}", busy.error());
    assert!(dir.0.join(".users.edit").exists(), "it is the other's");
    assert!(!Path::new(&file_in(&dir)).exists());
}
