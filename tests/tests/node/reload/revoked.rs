//! HOSTILE 9: a permission that is revoked while sessions, subscriptions and retained messages rely on it.

use super::load::Load;
use super::site::{ACL, Site};
use crate::auth::admitted;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::{Packet, Publish};
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Client, ConnectOptions, PATIENCE};
use std::time::Instant;

fn alice(site: &Site, client_id: &str) -> Client {
    admitted(site.broker.tcp(), client_id, "alice", "alice-password")
}

fn admin(site: &Site, client_id: &str) -> Client {
    admitted(site.broker.tcp(), client_id, "admin", "admin-password")
}

fn retain(client: &mut Client, topic: &str) {
    client.publish(topic, b"kept", QoS::AtLeastOnce, true);
    let received = client.recv();
    assert!(matches!(received.packet(), Packet::PubAck(ack) if !ack.reason.is_error()), "{received:?}");
}

/// The next message.
fn with_publish<T>(client: &mut Client, look: impl Fn(&Publish<'_>) -> T) -> T {
    let received = client.recv_publish();
    let Packet::Publish(publish) = received.packet() else { unreachable!("recv_publish has checked it") };
    look(&publish)
}

/// A session of alice's that outlives its connection.
fn sleeper(site: &Site) -> Client {
    let mut properties = Vec::new();
    PropertyWriter::new(&mut properties).u32(PropertyId::SessionExpiryInterval, 3600);
    let options = ConnectOptions {
        clean: false,
        properties,
        credentials: Some(("alice".to_owned(), "alice-password".to_owned())),
        ..ConnectOptions::new(Version::V5, "sleeper")
    };
    Client::connect_with(site.broker.tcp(), &options).0
}

/// Publishes until the reason is this one: the shards take a reload over one after the other.
fn publish_until(client: &mut Client, topic: &str, reason: Reason) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.publish_acked(topic, b"probe");
        if found == reason {
            return;
        }
        assert!(Instant::now() < deadline, "{topic}: still {found}");
    }
}

/// Takes what is on its way, up to the answer to a ping.
fn flush(client: &mut Client) {
    client.send(&Packet::PingReq);
    loop {
        let received = client.recv();
        match received.packet() {
            Packet::PingResp => return,
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    client.ack(bifro_tests::client::AckKind::PubAck, id);
                }
            }
            _ => panic!("unexpected: {received:?}"),
        }
    }
}

#[test]
fn a_revoked_permission_ends_what_relies_on_it() {
    let site = Site::start();
    let load = Load::start(&site, 20);
    let (mut writer, mut reader) = (alice(&site, "writer"), alice(&site, "reader"));
    let mut chief = admin(&site, "chief");
    retain(&mut writer, "area/by-alice");
    retain(&mut chief, "area/by-admin");
    assert_eq!(reader.subscribe("area/live", QoS::AtLeastOnce), 1);
    let mut asleep = sleeper(&site);
    assert_eq!(asleep.subscribe("area/live", QoS::AtLeastOnce), 1);
    asleep.disconnect();
    assert_eq!(chief.publish_acked("area/live", b"permitted"), Reason::SUCCESS);
    assert_eq!(with_publish(&mut reader, |publish| publish.payload.to_vec()), b"permitted");

    site.write("acl", &ACL.replace("allow all user=alice area/#\n", ""));
    site.reload_succeeds();

    publish_until(&mut writer, "area/x", Reason::NOT_AUTHORIZED);
    let revoked = |line: &str| line.contains("\"sub_revoked\"") && line.contains("\"reader\"");
    site.broker.wait_for_log("the subscription that was revoked", revoked);
    flush(&mut reader);
    chief.publish_acked("area/live", b"denied");
    reader.expect_silence();
    assert_eq!(reader.subscribe("area/live", QoS::AtLeastOnce), 0x87);
    assert_eq!(reader.subscribe("area/by-admin", QoS::AtLeastOnce), 0x87);
    reader.expect_silence();
    let mut awake = sleeper(&site);
    awake.expect_silence();
    chief.publish_acked("area/live", b"denied");
    awake.expect_silence();
    // What alice has retained is no longer delivered to anybody (CVE-2018-12546); what others have is.
    let mut visitor = admin(&site, "visitor");
    assert_eq!(visitor.subscribe("area/by-alice", QoS::AtLeastOnce), 1);
    visitor.expect_silence();
    assert_eq!(visitor.subscribe("area/by-admin", QoS::AtLeastOnce), 1);
    assert!(with_publish(&mut visitor, |publish| publish.retain && publish.topic == "area/by-admin"));
    load.advance();
    load.finish();
}

#[test]
fn a_permission_that_shrinks_leaves_the_rest_of_a_subscription() {
    let site = Site::start();
    let mut reader = alice(&site, "reader");
    let mut chief = admin(&site, "chief");
    assert_eq!(reader.subscribe("area/#", QoS::AtLeastOnce), 1);
    site.write("acl", &format!("deny all user=alice area/secret/#\n{ACL}"));
    site.reload_succeeds();
    let mut writer = alice(&site, "writer");
    publish_until(&mut writer, "area/secret/x", Reason::NOT_AUTHORIZED);
    // The reader's shard may be the other one: a denial there shows that it has taken the rules over too.
    let deadline = Instant::now() + PATIENCE;
    while reader_may_publish(&mut reader) {
        assert!(Instant::now() < deadline, "the reader's shard keeps the old rules");
    }
    flush(&mut reader);
    chief.publish_acked("area/secret/x", b"secret");
    chief.publish_acked("area/open", b"open");
    assert_eq!(with_publish(&mut reader, |publish| publish.topic.to_owned()), "area/open");
    reader.expect_silence();
    site.write("acl", ACL);
    site.reload_succeeds();
    publish_until(&mut writer, "area/secret/x", Reason::SUCCESS);
}

/// Asks by publishing where nobody may any more, while messages may come in.
fn reader_may_publish(reader: &mut Client) -> bool {
    flush(reader);
    let id = reader.publish("area/secret/probe", b"probe", QoS::AtLeastOnce, false);
    loop {
        let received = reader.recv();
        match received.packet() {
            Packet::PubAck(ack) if Some(ack.packet_id) == id => return ack.reason != Reason::NOT_AUTHORIZED,
            Packet::Publish(publish) => {
                reader.ack(bifro_tests::client::AckKind::PubAck, publish.packet_id.expect("QoS 1 has one"));
            }
            _ => panic!("unexpected: {received:?}"),
        }
    }
}
