//! An HTTP service decides.

use super::webhook_server::Server;
use super::{VERSIONS, login, refusal};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;
use bifro_tests::Broker;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_millis(400);

fn broker(service: SocketAddr) -> Broker {
    let config = format!(
        r#"
[auth.http]
url = "http://{service}/mqtt"
headers = {{ Authorization = "Bearer of the broker" }}
timeout_ms = {}
cache_ttl_s = 60
negative_cache_ttl_s = 0
[auth.anonymous]
ignore_credentials = true
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["http", "anonymous"]
"#,
        TIMEOUT.as_millis()
    );
    Broker::start_with(2, &config, &[])
}

#[test]
fn the_service_allows_denies_or_leaves_it_to_the_next() {
    let service = Server::start();
    let broker = broker(service.address);
    for version in VERSIONS {
        for user in ["allowed", "ignored"] {
            let client = login(broker.tcp(), version, "c", Some((user, "pw")));
            client.unwrap_or_else(|reason| panic!("{version:?} {user}: {reason}")).disconnect();
        }
        let denied = login(broker.tcp(), version, "c", Some(("denied", "pw")));
        assert_eq!(denied.err(), Some(refusal(version, Reason::BAD_USER_NAME_OR_PASSWORD)), "{version:?}");
    }
    let (authorization, question) = service.asked_about("denied").pop().expect("the service was asked");
    assert_eq!(authorization, "Bearer of the broker");
    assert_eq!((&question["client_id"], &question["password"]), (&"c".into(), &"pw".into()));
    assert_eq!((&question["protocol_version"], &question["transport"]), (&5.into(), &"tcp".into()));
    let peer = question["peer"].as_str().expect("a TCP connection has one");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    // The same credentials within the time an allowance is remembered: answered from memory, per version.
    let asked = service.asked_about("allowed").len();
    login(broker.tcp(), Version::V5, "c", Some(("allowed", "pw"))).expect("allowed").disconnect();
    assert_eq!(service.asked_about("allowed").len(), asked, "an allowance is remembered");
    login(broker.tcp(), Version::V5, "c", Some(("allowed", "other"))).expect("allowed").disconnect();
    assert_eq!(service.asked_about("allowed").len(), asked + 1, "other credentials are another question");
}

/// Fail closed: whatever is not a clear yes is a no, and never goes to the next provider, which would admit anybody here.
#[test]
fn a_service_in_trouble_admits_nobody() {
    let service = Server::start();
    let broker = broker(service.address);
    let unavailable = |version| refusal(version, Reason::SERVER_UNAVAILABLE);
    for user in ["failing", "garbled", "unknown-member", "endless"] {
        for version in [Version::V311, Version::V5] {
            let result = login(broker.tcp(), version, "c", Some((user, "pw")));
            assert_eq!(result.err(), Some(unavailable(version)), "{version:?} {user}");
        }
    }
    let begin = Instant::now();
    let result = login(broker.tcp(), Version::V5, "c", Some(("silent", "pw")));
    assert_eq!(result.err(), Some(Reason::SERVER_UNAVAILABLE));
    assert!(begin.elapsed() >= TIMEOUT, "the service had its time");
    drop(service);
    let result = login(broker.tcp(), Version::V5, "c", Some(("allowed", "new")));
    assert_eq!(result.err(), Some(Reason::SERVER_UNAVAILABLE), "the service is gone");
}

#[test]
fn the_service_names_user_tenant_and_rules() {
    let service = Server::start();
    let broker = broker(service.address);
    let mut client = login(broker.tcp(), Version::V5, "d1", Some(("renamed", "pw"))).expect("allowed");
    assert_eq!(client.subscribe("devices/d1/#", QoS::AtLeastOnce), 1);
    assert_eq!(client.subscribe("devices/#", QoS::AtLeastOnce), 0x87);
    assert_eq!(client.publish_acked("devices/d1/secret", b""), Reason::NOT_AUTHORIZED);
    assert_eq!(client.publish_acked("devices/d2/reading", b""), Reason::NOT_AUTHORIZED);
    // Another tenant's client, which has no rules, is not heard.
    let mut stranger = login(broker.tcp(), Version::V5, "d1", Some(("allowed", "pw"))).expect("allowed");
    assert_eq!(stranger.publish_acked("devices/d1/reading", b"stranger"), Reason::NO_MATCHING_SUBSCRIBERS);
    client.expect_silence();
}
