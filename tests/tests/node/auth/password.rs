//! Users and passwords in a file that `bifroctl passwd` writes.

use super::{VERSIONS, login, password_file, refusal};
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::Broker;

const CONFIG: &str = r#"
[auth.password_file]
path = "passwords"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["password_file"]
"#;

#[test]
fn the_right_password_admits_and_everything_else_is_refused() {
    let passwords = password_file(&["alice", "acme/bob"]);
    assert!(!String::from_utf8_lossy(&passwords).contains("-password"), "the file must not hold passwords");
    let broker = Broker::start_with(2, CONFIG, &[("passwords", &passwords)]);
    for version in VERSIONS {
        for (user, password) in [("alice", "alice-password"), ("acme/bob", "acme/bob-password")] {
            let client = login(broker.tcp(), version, "c", Some((user, password)));
            client.unwrap_or_else(|reason| panic!("{user} is refused: {reason}")).disconnect();
        }
        let bad = refusal(version, Reason::BAD_USER_NAME_OR_PASSWORD);
        for (user, password) in
            [("alice", "bob-password"), ("alice", ""), ("bob", "acme/bob-password"), ("nobody", "x"), ("", "")]
        {
            let result = login(broker.tcp(), version, "c", Some((user, password)));
            assert_eq!(result.err(), Some(bad), "{version:?} {user:?} {password:?}");
        }
        let result = login(broker.tcp(), version, "c", None);
        assert_eq!(result.err(), Some(refusal(version, Reason::NOT_AUTHORIZED)), "{version:?} without credentials");
    }
    assert_eq!(broker.metric("bifro_auth_failures_total"), 18.0);
    assert_eq!(broker.metric("bifro_connects_refused_total"), 18.0);
}

/// HOSTILE 10: an empty file admits nobody.
#[test]
fn an_empty_password_file_admits_nobody() {
    let broker = Broker::start_with(1, CONFIG, &[("passwords", b"")]);
    assert!(login(broker.tcp(), Version::V5, "c", Some(("alice", "alice-password"))).is_err());
    assert!(login(broker.tcp(), Version::V5, "c", None).is_err());
}
