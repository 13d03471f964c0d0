//! Two tenants on one node never meet.

use super::{admitted, password_file};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions, Received};

const CONFIG: &str = r#"
[auth.password_file]
path = "passwords"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["password_file"]
[tenant.globex]
maximum_qos = 1
"#;

fn broker() -> Broker {
    Broker::start_with(2, CONFIG, &[("passwords", &password_file(&["acme/alice", "globex/alice"]))])
}

fn of(broker: &Broker, tenant: &str, client_id: &str) -> Client {
    admitted(broker.tcp(), client_id, &format!("{tenant}/alice"), &format!("{tenant}/alice-password"))
}

fn payload(received: &Received) -> Vec<u8> {
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    publish.payload.to_vec()
}

#[test]
fn the_same_topics_and_client_ids_are_others_in_another_tenant() {
    let broker = broker();
    let mut acme = of(&broker, "acme", "same");
    let mut globex = of(&broker, "globex", "same");
    for filter in ["#", "same/topic", "$share/group/same/topic"] {
        assert_eq!(acme.subscribe(filter, QoS::AtLeastOnce), 1);
        assert_eq!(globex.subscribe(filter, QoS::AtLeastOnce), 1);
    }
    let mut sender = of(&broker, "globex", "sender");
    assert_eq!(sender.publish_acked("same/topic", b"of globex"), Reason::SUCCESS);
    // The broker may deliver once per session or once per subscription; at least one arrives, and the other tenant's
    // client, whose session was not taken over either, hears nothing.
    assert_eq!(payload(&globex.recv_publish()), b"of globex");
    acme.expect_silence();
    let mut sender = of(&broker, "acme", "sender");
    sender.publish("same/topic", b"kept by acme", QoS::AtLeastOnce, true);
    assert!(matches!(sender.recv().packet(), Packet::PubAck(ack) if ack.reason == Reason::SUCCESS));
    assert_eq!(payload(&acme.recv_publish()), b"kept by acme");
    let mut late = of(&broker, "globex", "late");
    assert_eq!(late.subscribe("same/topic", QoS::AtLeastOnce), 1);
    late.expect_silence();
}

#[test]
fn sessions_that_outlive_their_connection_belong_to_one_tenant() {
    let broker = broker();
    let mut properties = Vec::new();
    PropertyWriter::new(&mut properties).u32(PropertyId::SessionExpiryInterval, 3600);
    let options = |tenant: &str| ConnectOptions {
        clean: false,
        properties: properties.clone(),
        credentials: Some((format!("{tenant}/alice"), format!("{tenant}/alice-password"))),
        ..ConnectOptions::new(Version::V5, "same")
    };
    let session_present = |received: &Received| match received.packet() {
        Packet::ConnAck(ack) => ack.session_present,
        _ => panic!("not a CONNACK: {received:?}"),
    };
    let (mut first, received) = Client::connect_with(broker.tcp(), &options("acme"));
    assert!(!session_present(&received));
    assert_eq!(first.subscribe("t", QoS::AtLeastOnce), 1);
    first.disconnect();
    let (other, received) = Client::connect_with(broker.tcp(), &options("globex"));
    assert!(!session_present(&received), "the session is acme's");
    other.disconnect();
    assert_eq!(of(&broker, "globex", "sender").publish_acked("t", b"x"), Reason::NO_MATCHING_SUBSCRIBERS);
    assert_eq!(of(&broker, "acme", "sender").publish_acked("t", b"queued"), Reason::SUCCESS);
    let (mut again, received) = Client::connect_with(broker.tcp(), &options("acme"));
    assert!(session_present(&received));
    assert_eq!(payload(&again.recv_publish()), b"queued");
}

#[test]
fn each_tenant_has_its_own_settings_and_metrics() {
    let broker = broker();
    let maximum_qos = |tenant: &str| {
        let options = ConnectOptions {
            credentials: Some((format!("{tenant}/alice"), format!("{tenant}/alice-password"))),
            ..ConnectOptions::new(Version::V5, "settings")
        };
        let (client, received) = Client::connect_with(broker.tcp(), &options);
        let Packet::ConnAck(ack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
        (client, ack.properties.maximum_qos())
    };
    let (_acme, qos) = maximum_qos("acme");
    assert_eq!(qos, None);
    let (_globex, qos) = maximum_qos("globex");
    assert_eq!(qos, Some(QoS::AtLeastOnce));
    let page = bifro_tests::http::get(broker.address("admin"), "/metrics").body;
    for tenant in ["acme", "globex"] {
        let label = format!("tenant=\"{tenant}\"");
        assert!(page.contains(&label), "no {label} in\n{page}");
    }
}
