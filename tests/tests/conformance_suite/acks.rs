//! Chapters 3.4 to 3.7, 3.9 and 3.11: the acknowledgements as packets.

use crate::suite::{
    AT_LEAST_ONCE, EXACTLY_ONCE, as_ack, block, expect_taken, filter, name, publish_as, token_listener, with_claims,
};
use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::PropertyId;
use bifro_mqtt::reason::Reason;
use bifro_tests::Client;
use bifro_tests::client::AckKind;

/// What a client with this little room can take.
const NARROW: u32 = 40;

/// A client with permissions of its own that accepts packets of [`NARROW`] bytes at most.
fn narrow(claims: &str) -> Client {
    let mut options = with_claims("four", Version::V5, claims);
    options.properties = block(|w| w.u32(PropertyId::MaximumPacketSize, NARROW));
    Client::connect_with(token_listener(), &options).0
}

/// [MQTT5-3.4.2-1] [MQTT5-3.4.2-2] [MQTT5-3.4.2-3] [MQTT5-3.5.2-1] [MQTT5-3.5.2-2] [MQTT5-3.5.2-3] [MQTT5-3.6.2-1]
/// [MQTT5-3.6.2-2] [MQTT5-3.6.2-3] [MQTT5-3.7.2-1] [MQTT5-3.7.2-2] [MQTT5-3.7.2-3] [MQTT5-3.1.2-24]
#[test]
fn acknowledgements_that_refuse_carry_nothing_that_could_make_them_too_large() {
    let mut client = narrow(r#""acl":{"pub":["free/#"]}"#);
    publish_as(&mut client, "closed", b"x", AT_LEAST_ONCE, 1, false);
    publish_as(&mut client, "closed", b"x", EXACTLY_ONCE, 2, false);
    client.ack(AckKind::PubRel, crate::suite::id(3));
    client.ack(AckKind::PubRec, crate::suite::id(4));
    for expected in [
        ("PUBACK", 1, Reason::NOT_AUTHORIZED),
        ("PUBREC", 2, Reason::NOT_AUTHORIZED),
        ("PUBCOMP", 3, Reason::PACKET_IDENTIFIER_NOT_FOUND),
        ("PUBREL", 4, Reason::PACKET_IDENTIFIER_NOT_FOUND),
    ] {
        let received = client.recv();
        assert_eq!(as_ack(&received), expected);
        assert_eq!(received.bytes().len(), 5, "fixed header, id and reason: {:02x?}", received.bytes());
    }
}

/// [MQTT5-3.9.2-1] [MQTT5-3.9.2-2] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT5-3.11.2-1] [MQTT5-3.11.2-2] [MQTT5-3.11.3-1]
/// [MQTT5-3.11.3-2]
#[test]
fn suback_and_unsuback_carry_codes_and_nothing_else() {
    let mut client = narrow(r#""acl":{"sub":["open/#"]}"#);
    let filters =
        [filter("open/a", EXACTLY_ONCE), filter("closed/a", AT_LEAST_ONCE), filter("open/#/b", AT_LEAST_ONCE)];
    assert_eq!(client.subscribe_with(&filters, &[]), [2, 0x87, 0x8F]);
    let unsubscribe = crate::suite::frame(
        0xA2,
        &[&[0, 9, 0], &crate::suite::text("open/a"), &crate::suite::text("open/b"), &crate::suite::text("open/a")],
    );
    client.send_bytes(&unsubscribe);
    assert_eq!(client.recv().bytes(), [0xB0, 6, 0, 9, 0, 0, 0x11, 0x11]);
}

/// [MQTT5-3.1.2-29] [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
#[test]
fn reason_strings_are_given_unless_the_client_wants_none_or_has_no_room() {
    let reason_of = |properties: Vec<u8>| {
        let mut client = crate::suite::anybody_with(&properties);
        client.send_bytes(&[0xD0, 0]);
        let received = client.recv();
        let Packet::Disconnect(disconnect) = received.packet() else { panic!("not a DISCONNECT: {received:?}") };
        assert_eq!(disconnect.reason, Reason::PROTOCOL_ERROR);
        assert_eq!(disconnect.properties.session_expiry_interval(), None);
        (disconnect.properties.reason_string().map(str::to_owned), received.bytes().len())
    };
    let asked = |wanted| block(|w| w.byte(PropertyId::RequestProblemInformation, wanted));
    assert!(reason_of(Vec::new()).0.is_some(), "the default is to tell");
    assert!(reason_of(asked(1)).0.is_some());
    assert_eq!(reason_of(asked(0)).0, None);
    let (string, length) = reason_of(block(|w| w.u32(PropertyId::MaximumPacketSize, 32)));
    assert!(string.is_none() && length <= 32);
}

/// [MQTT-2.3.1-6] [MQTT5-2.2.1-5] [MQTT5-4.3.2-5]: an id is free as soon as it is acknowledged.
#[test]
fn a_packet_id_may_be_used_again_at_once_and_for_the_other_qos() {
    for version in crate::suite::ALL {
        let mut client = crate::suite::anybody(version);
        let topic = name("reuse/");
        for _ in 0..3 {
            publish_as(&mut client, &topic, b"x", AT_LEAST_ONCE, 1, false);
            expect_taken(&mut client, "PUBACK", 1);
            publish_as(&mut client, &topic, b"x", EXACTLY_ONCE, 1, false);
            expect_taken(&mut client, "PUBREC", 1);
            client.ack(AckKind::PubRel, crate::suite::id(1));
            expect_taken(&mut client, "PUBCOMP", 1);
        }
    }
}

/// [MQTT5-2.2.1-3] [MQTT5-3.4.2-1]
#[test]
fn a_packet_id_in_use_for_qos_2_is_refused_for_qos_1() {
    let mut client = crate::suite::anybody(Version::V5);
    publish_as(&mut client, "any", b"x", EXACTLY_ONCE, 5, false);
    expect_taken(&mut client, "PUBREC", 5);
    publish_as(&mut client, "any", b"y", AT_LEAST_ONCE, 5, false);
    assert_eq!(as_ack(&client.recv()), ("PUBACK", 5, Reason::PACKET_IDENTIFIER_IN_USE));
    client.ack(AckKind::PubRel, crate::suite::id(5));
    expect_taken(&mut client, "PUBCOMP", 5);
}
