//! The password file: whom it admits, what it costs, and that it fails closed.

use super::*;
use crate::auth::chain::{Answer, Attempt};
use crate::auth::testing::{NOW, Plane, TempFile, granted, immediate, password_request, plain_request, refused};
use crate::auth::{AuthConfig, ProviderKind};
use bifro_core::ids::ReqId;

/// A hash that is cheap enough for tests.
fn cheap_hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).expect("valid parameters");
    hash_with(&Argon2::from(params), password.as_bytes()).expect("randomness").to_string()
}

fn config(file: &TempFile) -> AuthConfig {
    let password_file = PasswordFileConfig { path: file.path().to_owned(), cache_ttl_s: 300, cache_entries_max: 100 };
    AuthConfig { password_file: Some(password_file), ..AuthConfig::default() }
}

fn users() -> TempFile {
    let (alice, bob) = (cheap_hash("wonderland"), cheap_hash("builder"));
    TempFile::new(&format!("# users\n\nalice:{alice}\r\nacme/bob:{bob}\n"))
}

fn provider(file: &TempFile, slots: usize) -> Arc<PasswordFile> {
    let pool = Arc::new(HashPool::start(1, slots).expect("threads"));
    let config = config(file).password_file.expect("just set");
    Arc::new(PasswordFile::load(&config, pool).expect("loads"))
}

fn call(username: &str, password: &str) -> Arc<Call> {
    Arc::new(Call::new(password_request(username, password), NOW))
}

fn compute(attempt: Attempt) -> Answer {
    match attempt {
        Attempt::Compute(_slot, work) => work(),
        Attempt::Now(answer) => panic!("expected work for the pool, got {answer:?}"),
        Attempt::Wait(_) => panic!("expected work for the pool, not for the runtime"),
    }
}

#[test]
fn the_right_password_grants_the_user_and_tenant_of_the_line() {
    let file = users();
    let mut plane = Plane::new(&config(&file), &[ProviderKind::PasswordFile]);
    let alice = granted(plane.ask(password_request("alice", "wonderland")));
    assert_eq!((&*alice.user, alice.tenant), ("alice", None));
    let bob = granted(plane.ask(password_request("acme/bob", "builder")));
    assert_eq!((&*bob.user, bob.tenant.as_deref()), ("bob", Some("acme")));
}

#[test]
fn wrong_passwords_unknown_users_and_missing_credentials_are_refused() {
    let file = users();
    let mut plane = Plane::new(&config(&file), &[ProviderKind::PasswordFile]);
    assert_eq!(refused(plane.ask(password_request("alice", "builder"))), Refusal::BadCredentials);
    assert_eq!(refused(plane.ask(password_request("bob", "builder"))), Refusal::BadCredentials);
    assert_eq!(refused(plane.ask(password_request("alice", ""))), Refusal::BadCredentials);
    assert_eq!(refused(plane.ask(plain_request())), Refusal::NotAuthorized);
}

#[test]
fn a_wrong_password_ends_the_chain_and_an_unknown_user_does_not() {
    let file = users();
    let mut config = config(&file);
    config.anonymous.ignore_credentials = true;
    let mut plane = Plane::new(&config, &[ProviderKind::PasswordFile, ProviderKind::Anonymous]);
    assert_eq!(refused(plane.ask(password_request("alice", "guess"))), Refusal::BadCredentials);
    assert_eq!(&*granted(plane.ask(password_request("mallory", "guess"))).user, "");
}

#[test]
fn an_unknown_user_costs_a_verification_like_a_known_one() {
    let provider = provider(&users(), 8);
    assert!(matches!(compute(Arc::clone(&provider).attempt(&call("nobody", "x"))), Answer::NotMine));
    let known = provider.entries.get("alice").map(|entry| entry.hash.params.clone());
    assert_eq!(Some(provider.decoy.params.clone()), known, "the decoy costs what users cost");
}

#[test]
fn a_verified_password_is_remembered_and_only_that() {
    let provider = provider(&users(), 8);
    assert!(matches!(compute(Arc::clone(&provider).attempt(&call("alice", "wonderland"))), Answer::Granted(_)));
    let again = immediate(Arc::clone(&provider).attempt(&call("alice", "wonderland")));
    assert!(matches!(again, Answer::Granted(_)));
    assert!(matches!(compute(Arc::clone(&provider).attempt(&call("alice", "wonder"))), Answer::Refused(_)));
    assert!(matches!(compute(Arc::clone(&provider).attempt(&call("alice", "wonder"))), Answer::Refused(_)));
    let later = Call::new(password_request("alice", "wonderland"), NOW + Duration::from_secs(301));
    assert!(matches!(provider.attempt(&Arc::new(later)), Attempt::Compute(..)), "not for ever");
}

#[test]
fn a_reload_forgets_passwords_that_were_changed() {
    let file = users();
    let config = config(&file);
    let chain = [ProviderKind::PasswordFile];
    let mut plane = Plane::new(&config, &chain);
    granted(plane.ask(password_request("alice", "wonderland")));
    file.rewrite(&format!("alice:{}\n", cheap_hash("looking-glass")));
    granted(plane.ask(password_request("alice", "wonderland")));
    plane.plane.reload(&config, &[chain.to_vec()]).expect("the file is valid");
    assert_eq!(refused(plane.ask(password_request("alice", "wonderland"))), Refusal::BadCredentials);
    granted(plane.ask(password_request("alice", "looking-glass")));
}

/// HOSTILE 10.
#[test]
fn a_bad_reload_keeps_what_was_in_force_and_says_where_it_is_bad() {
    let file = users();
    let config = config(&file);
    let chains = [vec![ProviderKind::PasswordFile]];
    let mut plane = Plane::new(&config, &chains[0]);
    file.rewrite("alice:plain-text-password\n");
    let error = plane.plane.reload(&config, &chains).expect_err("the file is malformed").to_string();
    assert!(error.contains(":1: ") && error.contains("bifroctl passwd add"), "{error}");
    granted(plane.ask(password_request("alice", "wonderland")));
    std::fs::remove_file(file.path()).expect("it is there");
    let error = plane.plane.reload(&config, &chains).expect_err("the file is gone").to_string();
    assert!(error.contains("cannot be read"), "{error}");
    granted(plane.ask(password_request("acme/bob", "builder")));
}

/// HOSTILE 10.
#[test]
fn a_malformed_line_refuses_the_whole_file() {
    let good = format!("alice:{}", cheap_hash("x"));
    let costly = good.replace("m=8,t=1", "m=4294967295,t=1");
    let other = good.replace("argon2id", "argon2i").replace("alice", "bob");
    for bad in ["alice", ":", "alice:", "a/b/c:x", &good, &costly.replace("alice", "bob"), &other, "bob:$argon2id$v=19"]
    {
        let file = TempFile::new(&format!("{good}\n# comment\n{bad}\n"));
        let error = read_entries(file.path()).expect_err(bad).to_string();
        assert!(error.contains(":3: "), "{bad:?}: {error}");
    }
    let binary = TempFile::bytes(b"alice:\xff\n");
    assert!(read_entries(binary.path()).is_err());
}

#[test]
fn an_empty_file_admits_nobody() {
    let file = TempFile::new("");
    let mut plane = Plane::new(&config(&file), &[ProviderKind::PasswordFile]);
    assert_eq!(refused(plane.ask(password_request("alice", ""))), Refusal::BadCredentials);
}

#[test]
fn a_full_pool_refuses_at_once_and_does_not_fall_through() {
    let provider = provider(&users(), 1);
    let taken = Arc::clone(&provider).attempt(&call("alice", "wonderland"));
    let overflow = immediate(Arc::clone(&provider).attempt(&call("alice", "wonderland")));
    assert!(matches!(overflow, Answer::Refused(Refusal::Unavailable)));
    assert_eq!(provider.pool.refused(), 1);
    drop(taken);
    assert!(matches!(provider.attempt(&call("alice", "wonderland")), Attempt::Compute(..)));
}

#[test]
fn work_for_clients_that_have_gone_is_skipped_but_still_answered() {
    let file = users();
    let mut config = config(&file);
    config.hash_threads = 1;
    let mut plane = Plane::new(&config, &[ProviderKind::PasswordFile]);
    let mut pending = Vec::new();
    for _ in 0..20 {
        let (req, outcome) = plane.start(password_request("alice", "wrong"), NOW);
        assert!(outcome.is_none());
        bifro_core::plugin::Authenticator::cancel(&mut plane.shard, req);
        pending.push(req);
    }
    let mut answered: Vec<ReqId> = pending.iter().map(|_| plane.answers.recv().expect("an answer").0).collect();
    answered.sort_unstable();
    assert_eq!(answered, pending);
    granted(plane.ask(password_request("alice", "wonderland")));
}

#[test]
fn new_hashes_are_argon2id_and_verify() {
    let hash = hash_password(b"secret").expect("randomness");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let parsed = parse_hash(&hash).expect("what is written can be read");
    assert!(verify_password(b"secret", &parsed));
    assert!(!verify_password(b"Secret", &parsed));
}
