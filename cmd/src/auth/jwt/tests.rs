//! Tokens good and bad, and keys that move.

use super::super::testing::{
    NOW, Plane, Runtime, TempFile, again_as, enhanced_request, granted, plain_request, refused,
};
use super::super::webhook::tests::serve;
use super::super::{AuthConfig, ProviderKind};
use super::*;
use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bifro_core::plugin::{Action, AuthRequest, Effect};
use bifro_core::time::Instant;
use jsonwebtoken::{EncodingKey, Header};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SECRET: &str = "a secret of at least thirty-two bytes";
const NOW_S: u64 = NOW.as_unix_secs();

fn sign(algorithm: Algorithm, kid: Option<&str>, claims: &Value, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).expect("signs")
}

fn hs256(claims: &Value) -> String {
    sign(Algorithm::HS256, None, claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW_S + 60})
}

/// The good claims with `name` set; null removes it.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().expect("an object");
    if value.is_null() {
        drop(map.remove(name))
    } else {
        drop(map.insert(name.to_owned(), value))
    }
    claims
}

fn config(text: &str) -> AuthConfig {
    AuthConfig { jwt: Some(toml::from_str(text).expect("valid")), ..AuthConfig::default() }
}

fn secret_plane(extra: &str) -> (Plane, TempFile) {
    let secret = TempFile::new(&format!("{SECRET}\n"));
    let config = config(&format!("secret_file = '{}'\n{extra}", secret.path().display()));
    (Plane::new(&config, &[ProviderKind::Jwt, ProviderKind::Anonymous]), secret)
}

fn bearer(token: &str) -> AuthRequest {
    AuthRequest { username: Some("ignored".into()), password: Some(token.as_bytes().into()), ..plain_request() }
}

/// A pair of Ed25519 keys: what signs, and the public key as a JWK.
fn ed25519(kid: &str) -> (EncodingKey, Value) {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("randomness");
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("just made");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "use": "sig", "x": x});
    (EncodingKey::from_ed_der(document.as_ref()), jwk)
}

#[test]
fn a_valid_token_grants_its_subject_until_it_expires() {
    let (mut plane, _secret) = secret_plane("leeway_s = 5");
    let grant = granted(plane.ask(bearer(&hs256(&claims()))));
    assert_eq!((&*grant.user, grant.tenant), ("alice", None));
    assert_eq!(
        grant.expires_at,
        Some(NOW + Duration::from_secs(65)),
        "the session ends with the token, leeway included"
    );
    assert!(grant.rules.is_empty());
}

#[test]
fn times_are_judged_with_leeway_and_by_type() {
    let (mut plane, _secret) = secret_plane("leeway_s = 5");
    for (name, good) in [("exp", json!(NOW_S - 4)), ("exp", json!(NOW_S as f64 + 0.5)), ("nbf", json!(NOW_S + 4))] {
        granted(plane.ask(bearer(&hs256(&claims_with(name, good)))));
    }
    for (name, bad) in [
        ("exp", json!(NOW_S - 5)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!("never")),
        ("exp", json!((NOW_S + 60).to_string())),
        ("exp", json!([NOW_S + 60])),
        ("exp", Value::Null),
        ("nbf", json!(NOW_S + 6)),
        ("nbf", json!("yesterday")),
    ] {
        let outcome = plane.ask(bearer(&hs256(&claims_with(name, bad.clone()))));
        assert_eq!(refused(outcome), Refusal::BadCredentials, "{name} = {bad}");
    }
    let never = hs256(&claims_with("exp", json!(u64::MAX)));
    granted(plane.ask(bearer(&never)));
}

#[test]
fn exp_may_be_optional_but_a_wrong_one_is_still_wrong() {
    let (mut plane, _secret) = secret_plane("require_exp = false");
    assert_eq!(granted(plane.ask(bearer(&hs256(&claims_with("exp", Value::Null))))).expires_at, None);
    assert_eq!(refused(plane.ask(bearer(&hs256(&claims_with("exp", json!("x")))))), Refusal::BadCredentials);
}

#[test]
fn issuer_and_audience_must_be_named_where_configured() {
    let (mut plane, _secret) = secret_plane("issuer = ['https://id.example']\naudience = ['mqtt', 'other']");
    let token = |iss: Value, aud: Value| {
        let mut claims = claims_with("iss", iss);
        if !aud.is_null() {
            claims["aud"] = aud;
        }
        bearer(&hs256(&claims))
    };
    let issuer = json!("https://id.example");
    granted(plane.ask(token(issuer.clone(), json!("mqtt"))));
    granted(plane.ask(token(issuer.clone(), json!(["web", "other"]))));
    for (iss, aud) in [
        (issuer.clone(), Value::Null),
        (issuer.clone(), json!("web")),
        (issuer.clone(), json!([])),
        (issuer, json!(7)),
        (Value::Null, json!("mqtt")),
        (json!("https://evil.example"), json!("mqtt")),
    ] {
        assert_eq!(refused(plane.ask(token(iss, aud))), Refusal::BadCredentials);
    }
}

#[test]
fn claims_name_user_tenant_and_client() {
    let extra = "user_claim = 'name'\ntenant_claim = 'org'\nclient_id_claim = 'device'";
    let (mut plane, _secret) = secret_plane(extra);
    let good = json!({"name": "bob", "org": "acme", "device": "c1", "exp": NOW_S + 60});
    let grant = granted(plane.ask(bearer(&hs256(&good))));
    assert_eq!((&*grant.user, grant.tenant.as_deref()), ("bob", Some("acme")));
    for (name, bad) in [
        ("name", json!("")),
        ("name", json!(7)),
        ("name", Value::Null),
        ("org", json!("a/b")),
        ("org", Value::Null),
        ("device", json!("c2")),
        ("device", Value::Null),
    ] {
        let mut claims = good.clone();
        claims[name] = bad.clone();
        assert_eq!(refused(plane.ask(bearer(&hs256(&claims)))), Refusal::BadCredentials, "{name} = {bad}");
    }
}

#[test]
fn an_acl_claim_is_complete_and_a_malformed_one_refuses() {
    let (mut plane, _secret) = secret_plane("");
    let acl = json!({"pub": ["a/%c/#"], "sub": ["b", "c/+"], "all": []});
    let rules = granted(plane.ask(bearer(&hs256(&claims_with("acl", acl))))).rules;
    let mut listed: Vec<_> = rules.iter().map(|rule| (rule.effect, rule.action, &*rule.pattern)).collect();
    assert_eq!(listed.pop(), Some((Effect::Deny, None, "#")), "what is not listed is denied");
    assert_eq!(listed.len(), 3);
    assert!(listed.contains(&(Effect::Allow, Some(Action::Publish), "a/%c/#")));
    assert!(listed.contains(&(Effect::Allow, Some(Action::Subscribe), "c/+")));
    assert_eq!(granted(plane.ask(bearer(&hs256(&claims_with("acl", json!({})))))).rules.len(), 1, "nothing is allowed");
    for bad in [
        json!([]),
        json!("all"),
        json!({"pub": "a"}),
        json!({"pub": [1]}),
        json!({"publish": ["a"]}),
        json!({"pub": ["a/#/b"]}),
    ] {
        let outcome = plane.ask(bearer(&hs256(&claims_with("acl", bad.clone()))));
        assert_eq!(refused(outcome), Refusal::BadCredentials, "{bad}");
    }
}

#[test]
fn a_token_that_is_not_valid_ends_the_chain_and_what_is_no_token_does_not() {
    let (mut plane, _secret) = secret_plane("");
    let good = hs256(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = signed.split_once('.').expect("three parts");
    let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "admin", "exp": NOW_S + 60}).to_string());
    let foreign =
        sign(Algorithm::HS256, None, &claims(), &EncodingKey::from_secret(b"somebody else's secret, also long"));
    for bad in [format!("{header}.{forged}.{signature}"), format!("{signed}."), format!("{signed}.AAAA"), foreign] {
        assert_eq!(refused(plane.ask(bearer(&bad))), Refusal::BadCredentials, "{bad}");
    }
    let oversize = format!("{signed}.{}", "A".repeat(TOKEN_BYTES_MAX));
    assert_eq!(refused(plane.ask(bearer(&oversize))), Refusal::BadCredentials);
    assert_eq!(&*granted(plane.ask(plain_request())).user, "", "anonymous comes next");
    assert_eq!(refused(plane.ask(bearer("a.b.c"))), Refusal::BadCredentials, "nobody's credentials");
}

#[test]
fn the_token_may_stand_in_the_user_name() {
    let (mut plane, _secret) = secret_plane("token = 'username'");
    let request = AuthRequest { username: Some(hs256(&claims()).into()), password: None, ..plain_request() };
    assert_eq!(&*granted(plane.ask(request)).user, "alice");
    assert_eq!(refused(plane.ask(bearer(&hs256(&claims())))), Refusal::BadCredentials);
}

/// RFC 8725 section 2.1: the token does not choose what its key is.
#[test]
fn algorithms_cannot_be_confused() {
    let (key, jwk) = ed25519("k");
    let spki = {
        let raw = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("text")).expect("Base64");
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend_from_slice(&raw);
        base64::engine::general_purpose::STANDARD.encode(der)
    };
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    let file = TempFile::new(&pem);
    let config = config(&format!("public_key_file = '{}'", file.path().display()));
    let mut plane = Plane::new(&config, &[ProviderKind::Jwt]);
    granted(plane.ask(bearer(&sign(Algorithm::EdDSA, None, &claims(), &key))));
    // The public key, which everybody knows, used as an HMAC secret.
    let confused = sign(Algorithm::HS256, None, &claims(), &EncodingKey::from_secret(pem.as_bytes()));
    assert_eq!(refused(plane.ask(bearer(&confused))), Refusal::BadCredentials);
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None","typ":"JWT"}"#, r#"{"alg":"RS256"}"#, r#"{"alg":""}"#] {
        let header = URL_SAFE_NO_PAD.encode(header);
        let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
        for signature in ["", "AAAA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(refused(plane.ask(bearer(&token))), Refusal::BadCredentials, "{token}");
        }
    }
}

#[test]
fn public_keys_of_every_type_verify_their_own_algorithms_only() {
    let plane = |pem: &str| {
        let file = TempFile::new(pem);
        Plane::new(&config(&format!("public_key_file = '{}'", file.path().display())), &[ProviderKind::Jwt])
    };
    let elliptic = |algorithm, kind: &'static rcgen::SignatureAlgorithm| {
        let pair = rcgen::KeyPair::generate_for(kind).expect("a key");
        let token = sign(algorithm, None, &claims(), &EncodingKey::from_ec_der(&pair.serialize_der()));
        (pair.public_key_pem(), token)
    };
    let (p256, es256) = elliptic(Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256);
    let (p384, es384) = elliptic(Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384);
    let (rs256, ps256) = (rsa_vectors::RS256.to_owned(), rsa_vectors::PS256.to_owned());
    let tokens = [&es256, &es384, &rs256, &ps256];
    for (pem, valid) in [(&*p256, &[&es256][..]), (&p384, &[&es384]), (rsa_vectors::PUBLIC_KEY, &[&rs256, &ps256])] {
        let mut plane = plane(pem);
        for token in tokens {
            let outcome = plane.ask(bearer(token));
            if valid.contains(&token) {
                assert_eq!(&*granted(outcome).user, "alice");
            } else {
                assert_eq!(refused(outcome), Refusal::BadCredentials);
            }
        }
    }
}

#[test]
fn only_listed_algorithms_are_accepted_and_extensions_are_not() {
    let (mut plane, _secret) = secret_plane("algorithms = ['HS512']");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    granted(plane.ask(bearer(&sign(Algorithm::HS512, None, &claims(), &key))));
    assert_eq!(refused(plane.ask(bearer(&hs256(&claims())))), Refusal::BadCredentials);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS512","crit":["b64"],"b64":false}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims().to_string()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS512).expect("signs");
    assert_eq!(refused(plane.ask(bearer(&format!("{signed}.{signature}")))), Refusal::BadCredentials);
}

#[test]
fn unusable_keys_are_refused_at_load() {
    let runtime = Runtime::start();
    let load = |text: String| {
        let config = config(&text).jwt.expect("just set");
        Jwt::load(&config, &runtime.handle, None).expect_err("refused").to_string()
    };
    let file = |content: &str| TempFile::new(content);
    let short = file("short");
    assert!(load(format!("secret_file = '{}'", short.path().display())).contains("too short"));
    let private = file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(load(format!("public_key_file = '{}'", private.path().display())).contains("private key"));
    let garbage = file("garbage");
    assert!(load(format!("public_key_file = '{}'", garbage.path().display())).contains("no PEM public key"));
    assert!(load(format!("jwks_file = '{}'", garbage.path().display())).contains("not a JSON Web Key Set"));
    let empty = file(r#"{"keys": [{"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB"}, {"kty": "?"}]}"#);
    assert!(load(format!("jwks_file = '{}'", empty.path().display())).contains("no key in it"));
    let secret = file(SECRET);
    let path = secret.path().display();
    assert!(load(format!("secret_file = '{path}'\nalgorithms = ['none']")).contains("\"none\""));
    assert!(load(format!("secret_file = '{path}'\nalgorithms = ['RS256']")).contains("lists none"));
    assert!(load("jwks_url = 'file:///etc/passwd'".to_owned()).contains("must be http or https"));
}

/// MQTT 5 section 4.12.1: a fresh token on a live connection, for the same user only.
#[test]
fn the_jwt_method_authenticates_and_re_authenticates() {
    let (mut plane, _secret) = secret_plane("");
    let request = |token: &str| enhanced_request("JWT", Some(token.as_bytes()));
    let again = |token: &str| again_as("default", "alice", "JWT", Some(token.as_bytes()));
    let token = hs256(&claims());
    assert_eq!(&*granted(plane.ask(request(&token))).user, "alice");
    let later = hs256(&claims_with("exp", json!(NOW_S + 600)));
    let grant = granted(plane.ask(again(&later)));
    assert_eq!(grant.expires_at.map(Instant::as_unix_secs), Some(NOW_S + 605));
    let other = hs256(&claims_with("sub", json!("bob")));
    assert_eq!(refused(plane.ask(again(&other))), Refusal::NotAuthorized);
    assert_eq!(refused(plane.ask(request("garbage"))), Refusal::BadCredentials);
    assert_eq!(refused(plane.ask(enhanced_request("JWT", None))), Refusal::BadCredentials);
}

/// A key server whose set the test changes.
struct Issuer {
    url: String,
    body: Arc<Mutex<String>>,
    fetched: Arc<AtomicUsize>,
}

impl Issuer {
    fn start(runtime: &Runtime, body: String) -> Self {
        let (body, fetched) = (Arc::new(Mutex::new(body)), Arc::new(AtomicUsize::new(0)));
        let (current, count) = (Arc::clone(&body), Arc::clone(&fetched));
        let handler = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let body = current.lock().expect("no panic inside").clone();
            async move { body }
        };
        let url = format!("{}/keys", serve(runtime, Router::new().route("/keys", get(handler))));
        Self { url, body, fetched }
    }

    fn publish(&self, keys: &[&Value]) {
        *self.body.lock().expect("no panic inside") = set(keys);
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

fn set(keys: &[&Value]) -> String {
    json!({ "keys": keys }).to_string()
}

#[test]
fn keys_rotate_without_a_restart_and_tokens_cannot_cause_a_storm_of_fetches() {
    let ((old_key, old_jwk), (new_key, new_jwk), (foreign_key, _)) =
        (ed25519("old"), ed25519("new"), ed25519("foreign"));
    let runtime = Runtime::start();
    let issuer = Issuer::start(&runtime, set(&[&old_jwk]));
    let mut plane = Plane::on(runtime, &config(&format!("jwks_url = '{}'", issuer.url)), &[ProviderKind::Jwt]);
    let token = |kid: &str, key: &EncodingKey| bearer(&sign(Algorithm::EdDSA, Some(kid), &claims(), key));
    granted(plane.ask(token("old", &old_key)));
    assert_eq!(issuer.fetched(), 1, "a token that comes before the keys waits for them");
    issuer.publish(&[&new_jwk]);
    granted(plane.ask(token("new", &new_key)));
    assert_eq!(issuer.fetched(), 2, "an unknown key is looked for");
    assert_eq!(refused(plane.ask(token("old", &old_key))), Refusal::BadCredentials, "withdrawn");
    for n in 0..20 {
        let unknown = token(&format!("x{n}"), &foreign_key);
        assert_eq!(refused(plane.ask(unknown)), Refusal::BadCredentials);
    }
    assert_eq!(issuer.fetched(), 2, "not more often than configured");
}

#[test]
fn keys_survive_a_failing_issuer_and_a_reload() {
    let (key, jwk) = ed25519("k");
    let runtime = Runtime::start();
    let issuer = Issuer::start(&runtime, set(&[&jwk]));
    let config = config(&format!("jwks_url = '{}'", issuer.url));
    let chain = vec![ProviderKind::Jwt];
    let mut plane = Plane::on(runtime, &config, &chain);
    let good = bearer(&sign(Algorithm::EdDSA, Some("k"), &claims(), &key));
    granted(plane.ask(good.clone()));
    *issuer.body.lock().expect("no panic inside") = "garbage".to_owned();
    let unknown = bearer(&sign(Algorithm::EdDSA, Some("unknown"), &claims(), &key));
    assert_eq!(refused(plane.ask(unknown)), Refusal::BadCredentials);
    assert_eq!(plane.plane.usage().jwks_failures, 1);
    granted(plane.ask(good.clone()));
    plane.plane.reload(&config, &[chain]).expect("valid");
    let (_, outcome) = plane.start(good, NOW);
    assert!(outcome.is_some(), "the keys are still there");
}

#[test]
fn without_keys_nobody_is_admitted() {
    let (key, _) = ed25519("k");
    let runtime = Runtime::start();
    // Secrets do not belong on a public place: a set with nothing else is none.
    let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let issuer = Issuer::start(&runtime, set(&[&secret]));
    let config = config(&format!("jwks_url = '{}'", issuer.url));
    let mut plane = Plane::on(runtime, &config, &[ProviderKind::Jwt, ProviderKind::Anonymous]);
    let token = bearer(&sign(Algorithm::EdDSA, Some("k"), &claims(), &key));
    assert_eq!(refused(plane.ask(token)), Refusal::Unavailable);
    assert_eq!(refused(plane.ask(bearer(&hs256(&claims())))), Refusal::Unavailable);
}
