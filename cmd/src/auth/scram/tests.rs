//! The exchange as a client sees it, with the vector of RFC 7677 section 3.

use super::exchange::{Key, encode, hash, sign};
use super::file::ITERATIONS_MIN;
use super::*;
use crate::auth::testing::{TempFile, enhanced_request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifro_core::time::Instant;
use std::num::NonZeroU32;

const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

fn provider(login: &str, password: &str) -> Scram {
    let salt = STANDARD.decode(SALT).expect("the vector is Base64");
    let credential = Credential::derive(password.as_bytes(), &salt, NonZeroU32::new(4_096).expect("not zero"));
    let file = TempFile::new(&format!("# users\n{login}:{}\n", credential.to_line()));
    Scram::load(&ScramConfig { path: file.path().to_owned() }).expect("loads")
}

fn step(scram: &Scram, state: Option<Box<[u8]>>, data: &str) -> Answer {
    let mut request = enhanced_request(METHOD, Some(data.as_bytes()));
    if let Some(enhanced) = &mut request.enhanced {
        enhanced.state = state;
    }
    let call = Arc::new(Call::new(request, Instant::from_micros(0)));
    match Arc::new(Scram { file: scram.file.clone() }).attempt(&call) {
        Attempt::Now(answer) => answer,
        _ => panic!("SCRAM answers at once"),
    }
}

fn opened(scram: &Scram, user: &str) -> (String, Box<[u8]>) {
    match step(scram, None, &format!("n,,n={user},r={CLIENT_NONCE}")) {
        Answer::Continue { data, state } => (String::from_utf8(data.into()).expect("text"), state),
        other => panic!("expected a challenge, got {other:?}"),
    }
}

/// A client's last message for a challenge.
fn client_final(user: &str, password: &str, server_first: &str) -> String {
    let mut fields = server_first.split(',').map(|field| &field[2..]);
    let mut next = || fields.next().expect("the challenge has three fields");
    let (nonce, salt, iterations) = (next(), next(), next());
    let mut salted = Key::default();
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA256,
        iterations.parse().expect("number"),
        &STANDARD.decode(salt).expect("Base64"),
        password.as_bytes(),
        &mut salted,
    );
    let client_key = sign(&salted, b"Client Key");
    let without_proof = format!("c=biws,r={nonce}");
    let auth_message = format!("n={user},r={CLIENT_NONCE},{server_first},{without_proof}");
    let signature = sign(&hash(&client_key), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    format!("{without_proof},p={}", encode(&proof))
}

/// [MQTT5-4.12.0-2]
#[test]
fn the_vector_of_rfc_7677_authenticates_both_sides() {
    let scram = provider("user", "pencil");
    let opening = scram.open_with(&format!("n,,n=user,r={CLIENT_NONCE}"), SERVER_NONCE);
    let Some(Answer::Continue { data, state }) = opening else { panic!("expected a challenge, got {opening:?}") };
    assert_eq!(&*data, format!("r={CLIENT_NONCE}{SERVER_NONCE},s={SALT},i=4096").as_bytes());
    let last = format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let Answer::Granted(grant) = step(&scram, Some(state), &last) else { panic!("expected a grant") };
    assert_eq!(&*grant.user, "user");
    assert_eq!(grant.tenant, None);
    let signature: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(grant.data.as_deref(), Some(signature));
}

#[test]
fn a_login_may_name_its_tenant() {
    let scram = provider("acme/user", "pencil");
    let (challenge, state) = opened(&scram, "acme/user");
    let last = client_final("acme/user", "pencil", &challenge);
    let Answer::Granted(grant) = step(&scram, Some(state), &last) else { panic!("expected a grant") };
    assert_eq!((&*grant.user, grant.tenant.as_deref()), ("user", Some("acme")));
}

#[test]
fn a_wrong_password_a_replay_and_a_foreign_nonce_are_refused() {
    let scram = provider("user", "pencil");
    let (challenge, state) = opened(&scram, "user");
    let wrong = client_final("user", "pencils", &challenge);
    assert!(matches!(step(&scram, Some(state.clone()), &wrong), Answer::Refused(Refusal::BadCredentials)));
    let right = client_final("user", "pencil", &challenge);
    let (_, other_state) = opened(&scram, "user");
    assert!(matches!(step(&scram, Some(other_state), &right), Answer::Refused(Refusal::BadCredentials)));
    let rebound = right.replacen("c=biws", "c=eSws", 1);
    assert!(matches!(step(&scram, Some(state), &rebound), Answer::Refused(Refusal::BadCredentials)));
}

#[test]
fn an_unknown_user_looks_like_a_known_one_until_the_proof() {
    let scram = provider("user", "pencil");
    let (first, state) = opened(&scram, "nobody");
    let (second, _) = opened(&scram, "nobody");
    let salt = |challenge: &str| challenge.split(',').nth(1).map(str::to_owned);
    assert_eq!(salt(&first), salt(&second), "the decoy's salt does not change");
    assert!(first.ends_with(",i=4096"), "{first}");
    let last = client_final("nobody", "pencil", &first);
    assert!(matches!(step(&scram, Some(state), &last), Answer::Refused(Refusal::BadCredentials)));
}

#[test]
fn garbage_is_refused_at_either_step() {
    let scram = provider("user", "pencil");
    assert!(matches!(step(&scram, None, ""), Answer::Refused(Refusal::BadCredentials)));
    let (_, state) = opened(&scram, "user");
    assert!(matches!(step(&scram, Some(state), "p=,,"), Answer::Refused(Refusal::BadCredentials)));
    let request = enhanced_request(METHOD, None);
    let call = Arc::new(Call::new(request, Instant::from_micros(0)));
    let attempt = Arc::new(scram).attempt(&call);
    assert!(matches!(attempt, Attempt::Now(Answer::Refused(Refusal::BadCredentials))));
}

/// HOSTILE 10.
#[test]
fn a_malformed_line_refuses_the_whole_file() {
    let good = Credential::derive(b"x", b"12345678", NonZeroU32::new(ITERATIONS_MIN).expect("not zero")).to_line();
    for bad in [
        "alice".to_owned(),
        "alice:4096:AAAA".to_owned(),
        format!("alice:{}", good.replacen("4096", "1", 1)),
        format!("al:ice:{good}"),
        format!("bob:{good}"),
    ] {
        let file = TempFile::new(&format!("bob:{good}\n{bad}\n"));
        let error = ScramFile::load(file.path()).expect_err(&bad).to_string();
        assert!(error.contains(":2: "), "{error}");
    }
}
