//! JSON Web Tokens in the password.

use super::keys::{Signer, in_seconds, unsigned_token};
use super::{VERSIONS, login, refusal};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;
use bifro_tests::Broker;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn broker(keys: &str, files: &[(&str, &[u8])]) -> Broker {
    let config = format!(
        r#"
[auth.jwt]
{keys}
leeway_s = 0
tenant_claim = "tenant"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["jwt"]
"#
    );
    Broker::start_with(2, &config, files)
}

fn with_secret() -> Broker {
    broker("secret_file = \"secret\"", &[("secret", SECRET)])
}

fn claims(more: Value) -> Value {
    let mut claims = json!({"sub": "meter", "tenant": "acme", "exp": in_seconds(600)});
    let all = claims.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    all.retain(|_, value| !value.is_null());
    claims
}

#[test]
fn a_valid_token_admits_and_a_wrong_one_does_not() {
    let broker = with_secret();
    let signer = Signer::secret(SECRET);
    let good = signer.token(None, &claims(json!({})));
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let wrong = [
        ("signed by another", Signer::secret(b"another secret of more than 32 bytes").token(None, &claims(json!({})))),
        ("expired", signer.token(None, &claims(json!({"exp": in_seconds(-1)})))),
        ("without exp", signer.token(None, &claims(json!({"exp": null})))),
        ("with exp as text", signer.token(None, &claims(json!({"exp": "tomorrow"})))),
        ("not valid yet", signer.token(None, &claims(json!({"nbf": in_seconds(600)})))),
        ("without a tenant", signer.token(None, &claims(json!({"tenant": null})))),
        ("without a user", signer.token(None, &claims(json!({"sub": null})))),
        ("of the algorithm none", unsigned_token(&claims(json!({})))),
        ("without its signature", format!("{head}.")),
        ("cut", good[..good.len() - signature.len() / 2].to_owned()),
        ("no token at all", "hunter2".to_owned()),
    ];
    for version in VERSIONS {
        login(broker.tcp(), version, "c", Some(("", &good))).expect("a good token").disconnect();
        for (what, token) in &wrong {
            let result = login(broker.tcp(), version, "c", Some(("", token)));
            let expected = refusal(version, Reason::BAD_USER_NAME_OR_PASSWORD);
            assert_eq!(result.err(), Some(expected), "{version:?}: a token {what}");
        }
    }
}

/// An MQTT 5 client hears why; a 3.x client sees its connection closed.
#[test]
fn a_session_ends_when_its_token_expires() {
    let broker = with_secret();
    let signer = Signer::secret(SECRET);
    // Whole seconds: the token lives for at least one and at most two.
    let token = signer.token(None, &claims(json!({"exp": in_seconds(2)})));
    let mut clients = VERSIONS.map(|version| {
        let id = format!("c{}", version as u8);
        login(broker.tcp(), version, &id, Some(("", &token))).expect("it has not expired yet")
    });
    for client in &mut clients {
        client.expect_disconnect(Reason::NOT_AUTHORIZED);
    }
    assert!(login(broker.tcp(), Version::V5, "late", Some(("", &token))).is_err());
}

#[test]
fn rules_in_the_token_are_all_that_its_bearer_may_do() {
    let broker = with_secret();
    let acl = json!({"pub": ["meters/%c/reading"], "sub": ["meters/%c/#", "news/%u/+"], "all": ["shared/%t"]});
    let token = Signer::secret(SECRET).token(None, &claims(json!({"acl": acl})));
    let mut client = login(broker.tcp(), Version::V5, "m7", Some(("", &token))).expect("a good token");
    for (filter, granted) in [
        ("meters/m7/#", 1),
        ("meters/m7/reading", 1),
        ("news/meter/today", 1),
        ("shared/acme", 1),
        ("meters/#", 0x87),
        ("meters/m8/#", 0x87),
        ("#", 0x87),
        ("$share/g/meters/m8/reading", 0x87),
        ("shared/globex", 0x87),
    ] {
        assert_eq!(client.subscribe(filter, QoS::AtLeastOnce), granted, "{filter}");
    }
    client.unsubscribe("meters/m7/#");
    client.unsubscribe("meters/m7/reading");
    assert!(!client.publish_acked("meters/m7/reading", b"1").is_error());
    for topic in ["meters/m8/reading", "meters/m7/commands", "news/meter/today", "shared/globex"] {
        assert_eq!(client.publish_acked(topic, b"1"), Reason::NOT_AUTHORIZED, "{topic}");
        assert_eq!(client.publish_exactly_once(topic, b"1"), Reason::NOT_AUTHORIZED, "{topic}");
    }
    client.expect_silence();
}

#[test]
fn a_key_set_chooses_the_key_by_its_id_and_the_algorithm_by_the_key() {
    let elliptic = Signer::elliptic();
    let Some(rsa) = Signer::rsa() else {
        assert!(std::env::var_os("CI").is_none(), "openssl is not installed; scripts/ci.sh installs it");
        eprintln!("skipped: openssl is not installed; scripts/ci.sh installs it");
        return;
    };
    let set = json!({"keys": [rsa.jwk("r"), elliptic.jwk("e")]}).to_string();
    let broker = broker("jwks_file = \"keys.json\"", &[("keys.json", set.as_bytes())]);
    let claims = claims(json!({}));
    let confused = Signer::secret(set.as_bytes());
    for (what, token, admitted) in [
        ("RS256", rsa.token(Some("r"), &claims), true),
        ("ES256", elliptic.token(Some("e"), &claims), true),
        ("RS256 without a key id", rsa.token(None, &claims), true),
        ("RS256 with the other key's id", rsa.token(Some("e"), &claims), false),
        ("ES256 with an unknown key id", elliptic.token(Some("x"), &claims), false),
        ("ES256 of another key", Signer::elliptic().token(Some("e"), &claims), false),
        ("HS256 with public material as the secret", confused.token(Some("r"), &claims), false),
    ] {
        let result = login(broker.tcp(), Version::V5, "c", Some(("", &token)));
        assert_eq!(result.is_ok(), admitted, "{what}: {:?}", result.err());
    }
}
