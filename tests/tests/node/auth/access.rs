//! The access rule file: first rule that applies, placeholders, overlapping filters, wills, and names made to deceive.

use super::{admitted, login, password_file};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions};

const CONFIG: &str = r#"
[acl]
file = "acl"
[auth.password_file]
path = "passwords"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["password_file", "anonymous"]
"#;

const ACL: &str = "\
# The first rule that applies decides.
deny  publish                           by-client/%c/read-only
allow all                               by-client/%c/#
allow all                               by-user/%u/#
allow all                               by-tenant/%t/#
deny  subscribe                         mixed/secret/#
allow all                               mixed/#
allow all       user=admin              #
allow subscribe client=meter-7          only/meter-7
allow publish   tenant=acme user=alice  only/alice-of-acme
deny  all       peer=10.0.0.0/8         here/#
allow all       peer=127.0.0.0/8        here/#
allow publish                           \"with space/+\"
";

fn broker() -> Broker {
    let passwords = password_file(&["alice", "admin", "acme/alice"]);
    Broker::start_with(2, CONFIG, &[("acl", ACL.as_bytes()), ("passwords", &passwords)])
}

fn may_publish(client: &mut Client, topic: &str) -> bool {
    match client.publish_acked(topic, b"x") {
        Reason::NOT_AUTHORIZED => false,
        reason => {
            assert!(!reason.is_error(), "{topic}: {reason}");
            true
        }
    }
}

fn may_subscribe(client: &mut Client, filter: &str) -> bool {
    match client.subscribe(filter, QoS::AtMostOnce) {
        0x87 => false,
        0 => {
            client.unsubscribe(filter);
            true
        }
        other => panic!("{filter}: 0x{other:02x}"),
    }
}

#[test]
fn placeholders_and_conditions_select_who_a_rule_is_for() {
    let broker = broker();
    let mut alice = admitted(broker.tcp(), "c1", "alice", "alice-password");
    for (topic, allowed) in [
        ("by-client/c1/x", true),
        ("by-client/c1/read-only", false),
        ("by-client/c2/x", false),
        ("by-user/alice/x", true),
        ("by-user/bob/x", false),
        ("by-tenant/default/x", true),
        ("by-tenant/acme/x", false),
        ("only/alice-of-acme", false),
        ("here/x", true),
        ("with space/x", true),
        ("nowhere", false),
    ] {
        assert_eq!(may_publish(&mut alice, topic), allowed, "{topic}");
    }
    for (filter, allowed) in [
        ("by-client/c1/read-only", true),
        ("by-client/+/x", false),
        ("by-client/#", false),
        ("by-user/alice/#", true),
        ("$share/g/by-user/alice/#", true),
        ("$share/g/by-user/bob/#", false),
        ("with space/x", false),
        ("#", false),
    ] {
        assert_eq!(may_subscribe(&mut alice, filter), allowed, "{filter}");
    }
    let mut of_acme = admitted(broker.tcp(), "c1", "acme/alice", "acme/alice-password");
    assert!(may_publish(&mut of_acme, "only/alice-of-acme"));
    assert!(may_publish(&mut of_acme, "by-tenant/acme/x"));
    assert!(!may_publish(&mut of_acme, "by-tenant/default/x"));
    let mut meter = admitted(broker.tcp(), "meter-7", "alice", "alice-password");
    assert!(may_subscribe(&mut meter, "only/meter-7"));
    let mut admin = admitted(broker.tcp(), "c2", "admin", "admin-password");
    assert!(may_publish(&mut admin, "nowhere"));
    assert!(may_subscribe(&mut admin, "nowhere/#"));
    assert!(!may_subscribe(&mut admin, "mixed/secret/#"), "an earlier rule decides, whoever asks");
}

/// HOSTILE 8.
#[test]
fn client_ids_with_wildcards_open_nothing() {
    let broker = broker();
    for id in ["+", "#", "c1/x", "+/x"] {
        let mut client = admitted(broker.tcp(), id, "alice", "alice-password");
        for filter in ["by-client/+/x", "by-client/#", "by-client/c1/x", "by-client/c1/x/y"] {
            assert!(!may_subscribe(&mut client, filter), "client id {id:?}, {filter}");
        }
        assert!(!may_publish(&mut client, "by-client/c1/x"), "client id {id:?}");
    }
}

#[test]
fn a_filter_that_a_deny_overlaps_delivers_only_the_rest() {
    let broker = broker();
    let mut reader = admitted(broker.tcp(), "reader", "alice", "alice-password");
    assert_eq!(reader.subscribe("mixed/#", QoS::AtLeastOnce), 1);
    let mut writer = admitted(broker.tcp(), "writer", "alice", "alice-password");
    for topic in ["mixed/secret/x", "mixed/open"] {
        assert!(may_publish(&mut writer, topic));
    }
    let received = reader.recv_publish();
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.topic == "mixed/open"), "{received:?}");
    reader.expect_silence();
    // Retained messages likewise.
    for topic in ["mixed/secret/kept", "mixed/kept"] {
        writer.publish(topic, b"x", QoS::AtLeastOnce, true);
        assert!(matches!(writer.recv().packet(), Packet::PubAck(ack) if !ack.reason.is_error()));
    }
    let mut late = admitted(broker.tcp(), "late", "alice", "alice-password");
    assert_eq!(late.subscribe("mixed/+/+", QoS::AtLeastOnce), 1);
    assert_eq!(late.subscribe("mixed/+", QoS::AtLeastOnce), 1);
    let received = late.recv_publish();
    assert!(matches!(received.packet(), Packet::Publish(publish) if publish.topic == "mixed/kept"), "{received:?}");
    late.expect_silence();
}

/// A 3.x client cannot be told; its message is acknowledged and dropped, its filter refused with 0x80 or, in 3.1, QoS 0.
#[test]
fn older_clients_are_denied_in_their_own_words() {
    let broker = broker();
    let mut admin = admitted(broker.tcp(), "admin", "admin", "admin-password");
    assert_eq!(admin.subscribe("nowhere", QoS::AtLeastOnce), 1);
    for version in [Version::V31, Version::V311] {
        let mut client = login(broker.tcp(), version, "old", Some(("alice", "alice-password"))).expect("admitted");
        client.publish_acked("nowhere", b"x");
        client.publish_exactly_once("nowhere", b"x");
        client.publish("nowhere", b"x", QoS::AtMostOnce, false);
        client.expect_silence();
        if version == Version::V311 {
            assert_eq!(client.subscribe("nowhere", QoS::AtLeastOnce), 0x80);
        }
        client.disconnect();
    }
    admin.expect_silence();
}

/// HOSTILE 11: a will to a topic that its client may not publish to.
#[test]
fn a_will_needs_permission_too() {
    let broker = broker();
    let credentials = Some(("alice".to_owned(), "alice-password".to_owned()));
    let with_will = |topic: &str| ConnectOptions {
        credentials: credentials.clone(),
        will: Some((topic.to_owned(), b"gone".to_vec(), QoS::AtMostOnce, false, Vec::new())),
        ..ConnectOptions::new(Version::V5, "c")
    };
    let mut client = Client::open(broker.tcp(), Version::V5);
    assert_eq!(client.login(&with_will("nowhere")).err(), Some(Reason::NOT_AUTHORIZED));
    let mut watcher = admitted(broker.tcp(), "watcher", "alice", "alice-password");
    assert_eq!(watcher.subscribe("by-user/alice/#", QoS::AtMostOnce), 0);
    let mut client = Client::open(broker.tcp(), Version::V5);
    client.login(&with_will("by-user/alice/will")).expect("permitted");
    drop(client);
    watcher.recv_publish();
}

/// HOSTILE 10: a file without rules denies everything.
#[test]
fn an_empty_rule_file_denies_everything() {
    let broker = Broker::start_with(
        1,
        "[acl]\nfile = \"acl\"\n[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n",
        &[("acl", b"# nothing here\n")],
    );
    let mut client = Client::connect(broker.tcp(), Version::V5, "c");
    assert!(!may_publish(&mut client, "t"));
    assert!(!may_subscribe(&mut client, "t"));
    assert!(!may_subscribe(&mut client, "#"));
}
