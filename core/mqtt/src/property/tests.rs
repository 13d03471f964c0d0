//! Accessors, writer and the forwarded part of a block.

use super::*;

/// One of each property, as [`PropertyWriter`] writes it.
fn all() -> Vec<u8> {
    let mut out = Vec::new();
    PropertyWriter::new(&mut out)
        .byte(PropertyId::PayloadFormatIndicator, 1)
        .u32(PropertyId::MessageExpiryInterval, 2)
        .str(PropertyId::ContentType, "content")
        .str(PropertyId::ResponseTopic, "response")
        .binary(PropertyId::CorrelationData, b"\0correlation")
        .varint(PropertyId::SubscriptionIdentifier, 300)
        .u32(PropertyId::SessionExpiryInterval, u32::MAX)
        .str(PropertyId::AssignedClientIdentifier, "assigned")
        .u16(PropertyId::ServerKeepAlive, 19)
        .str(PropertyId::AuthenticationMethod, "method")
        .binary(PropertyId::AuthenticationData, b"\xFFdata")
        .byte(PropertyId::RequestProblemInformation, 0)
        .u32(PropertyId::WillDelayInterval, 24)
        .byte(PropertyId::RequestResponseInformation, 1)
        .str(PropertyId::ResponseInformation, "information")
        .str(PropertyId::ServerReference, "reference")
        .str(PropertyId::ReasonString, "reason")
        .u16(PropertyId::ReceiveMaximum, 33)
        .u16(PropertyId::TopicAliasMaximum, 34)
        .u16(PropertyId::TopicAlias, 35)
        .byte(PropertyId::MaximumQos, 1)
        .byte(PropertyId::RetainAvailable, 0)
        .pair(PropertyId::UserProperty, "name", "value")
        .u32(PropertyId::MaximumPacketSize, 39)
        .byte(PropertyId::WildcardSubscriptionAvailable, 1)
        .byte(PropertyId::SubscriptionIdentifierAvailable, 0)
        .byte(PropertyId::SharedSubscriptionAvailable, 1);
    out
}

#[test]
fn every_property_is_read_as_it_was_written() {
    let block = all();
    let properties = Properties::new(&block);
    assert_eq!(properties.payload_format(), Some(1));
    assert_eq!(properties.message_expiry(), Some(2));
    assert_eq!(properties.content_type(), Some("content"));
    assert_eq!(properties.response_topic(), Some("response"));
    assert_eq!(properties.correlation_data(), Some(&b"\0correlation"[..]));
    assert!(properties.subscription_ids().eq([NonZeroU32::new(300).expect("above 0")]));
    assert_eq!(properties.session_expiry_interval(), Some(u32::MAX));
    assert_eq!(properties.assigned_client_id(), Some("assigned"));
    assert_eq!(properties.server_keep_alive(), Some(19));
    assert_eq!(properties.authentication_method(), Some("method"));
    assert_eq!(properties.authentication_data(), Some(&b"\xFFdata"[..]));
    assert_eq!(properties.request_problem_information(), Some(false));
    assert_eq!(properties.will_delay_interval(), Some(24));
    assert_eq!(properties.request_response_information(), Some(true));
    assert_eq!(properties.response_information(), Some("information"));
    assert_eq!(properties.server_reference(), Some("reference"));
    assert_eq!(properties.reason_string(), Some("reason"));
    assert_eq!(properties.receive_maximum(), Some(33));
    assert_eq!(properties.topic_alias_maximum(), Some(34));
    assert_eq!(properties.topic_alias(), Some(35));
    assert_eq!(properties.maximum_qos(), Some(QoS::AtLeastOnce));
    assert_eq!(properties.retain_available(), Some(false));
    assert!(properties.user_properties().eq([("name", "value")]));
    assert_eq!(properties.maximum_packet_size(), Some(39));
    assert_eq!(properties.wildcard_subscription_available(), Some(true));
    assert_eq!(properties.subscription_identifier_available(), Some(false));
    assert_eq!(properties.shared_subscription_available(), Some(true));
}

#[test]
fn iteration_yields_all_in_order() {
    let block = all();
    let ids: Vec<u8> = Properties::new(&block).iter().map(|(id, _)| id as u8).collect();
    assert_eq!(ids.len(), 27);
    assert!(ids.is_sorted());
    let last = Properties::new(&block).iter().last();
    assert_eq!(last, Some((PropertyId::SharedSubscriptionAvailable, PropertyValue::Byte(1))));
}

#[test]
fn an_empty_block_has_nothing() {
    let properties = Properties::default();
    assert_eq!(properties.iter().count(), 0);
    assert_eq!(properties.receive_maximum(), None);
    assert!(matches!(properties.forwardable(), Cow::Borrowed(b"")));
}

/// A block that nobody has checked ends iteration instead of the process.
#[test]
fn a_block_that_cannot_be_read_ends_iteration() {
    let block = all();
    for end in 0..block.len() {
        let properties = Properties::new(&block[..end]);
        assert!(properties.iter().count() < 27);
        assert!(properties.forwardable().len() <= end);
    }
    assert_eq!(Properties::new(&[0, 1, 2]).iter().count(), 0);
    assert_eq!(Properties::new(b"\x03\0\x01\xFF").content_type(), None);
}

/// [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
#[test]
fn the_forwarded_part_of_any_order_is_that_order_without_the_rest() {
    let (user, alias, expiry): (&[u8], &[u8], &[u8]) = (b"\x26\0\x01k\0\0", b"\x23\0\x01", b"\x02\0\0\0\x01");
    let (format, delay): (&[u8], &[u8]) = (b"\x01\x01", b"\x18\0\0\0\x01");
    for (parts, expected, is_borrowed) in [
        (&[user, format][..], [user, format].concat(), true),
        (&[alias, user, format], [user, format].concat(), true),
        (&[user, format, expiry], [user, format].concat(), true),
        (&[delay, expiry, user, format, alias], [user, format].concat(), true),
        (&[user, alias, format], [user, format].concat(), false),
        (&[alias, format, expiry, user, user], [format, user, user].concat(), false),
        (&[alias, expiry], Vec::new(), true),
    ] {
        let block = parts.concat();
        let forwarded = Properties::new(&block).forwardable();
        assert_eq!(*forwarded, *expected);
        assert_eq!(matches!(forwarded, Cow::Borrowed(_)), is_borrowed);
    }
}

#[test]
#[should_panic(expected = "has another type")]
fn writing_the_wrong_type_is_a_defect() {
    PropertyWriter::new(&mut Vec::new()).byte(PropertyId::ReceiveMaximum, 1);
}
