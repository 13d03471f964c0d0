//! Strings: HOSTILE row 14, in every string field of every packet.

use super::*;

/// What no string may contain: ill-formed sequences, over-long forms, surrogates, beyond U+10FFFF. [MQTT-1.5.3-1]
/// [MQTT5-1.5.4-1]
const NOT_UTF8: [&[u8]; 11] = [
    b"\xFF",
    b"\x80",
    b"a\xC3",
    b"\xE2\x82",
    b"\xC0\xAF",
    b"\xC0\x80",
    b"\xE0\x80\xAF",
    b"\xF0\x80\x80\xAF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xF4\x90\x80\x80",
];

/// Bytes before and after a string field, and the version.
type Field = (&'static str, u8, Version, &'static [u8], &'static [u8]);

/// Every string field of every packet.
const FIELDS: [Field; 21] = [
    ("client id", 0x10, Version::V311, b"\0\x04MQTT\x04\x02\0\0", b""),
    ("client id 5", 0x10, Version::V5, b"\0\x04MQTT\x05\x02\0\0\0", b""),
    ("client id 3.1", 0x10, Version::V31, b"\0\x06MQIsdp\x03\x02\0\0", b""),
    ("will topic", 0x10, Version::V311, b"\0\x04MQTT\x04\x06\0\0\0\x01c", b"\0\0"),
    ("user name", 0x10, Version::V311, b"\0\x04MQTT\x04\x82\0\0\0\x01c", b""),
    ("topic", 0x30, Version::V311, b"", b"payload"),
    ("topic 5", 0x30, Version::V5, b"", b"\0payload"),
    ("filter", 0x82, Version::V311, b"\0\x01", b"\0"),
    ("filter 5", 0x82, Version::V5, b"\0\x01\0", b"\0"),
    ("end filter", 0xA2, Version::V311, b"\0\x01", b""),
    ("content type", 0x30, Version::V5, b"\0\x01t*\x03", b""),
    ("response topic", 0x30, Version::V5, b"\0\x01t*\x08", b""),
    ("property name", 0x30, Version::V5, b"\0\x01t*\x26", b"\0\0"),
    ("property value", 0x30, Version::V5, b"\0\x01t*\x26\0\x01k", b""),
    ("method", 0x10, Version::V5, b"\0\x04MQTT\x05\x02\0\0*\x15", b"\0\0"),
    ("client id assigned", 0x20, Version::V5, b"\0\0*\x12", b""),
    ("response information", 0x20, Version::V5, b"\0\0*\x1A", b""),
    ("server reference", 0xE0, Version::V5, b"\x9C*\x1C", b""),
    ("reason string", 0x40, Version::V5, b"\0\x01\0*\x1F", b""),
    ("auth method", 0xF0, Version::V5, b"\x18*\x15", b""),
    ("will content type", 0x10, Version::V5, b"\0\x04MQTT\x05\x06\0\0\0\0\x01c*\x03", b"\0\x01w\0\0"),
];

/// A packet with `string` in the field. The star stands for the length of the properties, which end with the string
/// and, for the name of a user property, its empty value.
fn with_string(field: &Field, string: &[u8]) -> Vec<u8> {
    let (name, first, _, before, after) = *field;
    let string_len = (string.len() as u16).to_be_bytes();
    let value = if name == "property name" { 2 } else { 0 };
    let mut body = before.to_vec();
    if let Some(star) = before.iter().position(|&byte| byte == b'*') {
        body[star] = (before.len() - star - 1 + 2 + string.len() + value) as u8;
    }
    packet(first, &[&body, &string_len, string, after])
}

/// [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1]
/// [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT5-3.3.2-1] [MQTT5-3.3.2-13] [MQTT5-3.3.2-19] [MQTT5-3.8.3-1]
/// [MQTT5-3.10.3-1] [MQTT5-1.5.7-1]
#[test]
fn what_is_not_utf8_is_refused_in_every_field() {
    for field in &FIELDS {
        for string in NOT_UTF8 {
            let answer = decode(&with_string(field, string), &options(field.2)).map(drop);
            assert_eq!(answer, Err(DecodeError::StringNotUtf8), "{} {string:02x?}", field.0);
        }
    }
    assert_eq!(DecodeError::StringNotUtf8.reason(), Reason::MALFORMED_PACKET);
}

/// [MQTT-1.5.3-2] [MQTT5-1.5.4-2]
#[test]
fn nul_is_refused_in_every_field() {
    for field in &FIELDS {
        for string in [&b"\0"[..], b"a\0b"] {
            let answer = decode(&with_string(field, string), &options(field.2)).map(drop);
            assert_eq!(answer, Err(DecodeError::StringHasNul), "{}", field.0);
        }
    }
    assert_eq!(DecodeError::StringHasNul.reason(), Reason::MALFORMED_PACKET);
}

#[test]
fn the_same_fields_accept_what_is_utf8() {
    for field in &FIELDS {
        for string in ["x", "\u{1}", "\u{7F}", "\u{FFFF}", "\u{10FFFF}", "grüße/😀"] {
            decoded(&with_string(field, string.as_bytes()), field.2);
        }
    }
}

/// [MQTT-1.5.3-3] [MQTT5-1.5.4-3]
#[test]
fn a_byte_order_mark_stays() {
    let Packet::Publish(publish) = decoded(b"\x30\x06\0\x04\xEF\xBB\xBFa", Version::V311) else { panic!() };
    assert_eq!(publish.topic, "\u{FEFF}a");
}

/// HOSTILE row 27, the decoder's part: the longest string there is.
#[test]
fn a_string_of_65535_bytes_is_accepted() {
    let string = alloc::vec![b'/'; 65_535];
    let bytes = packet(0x30, &[&[0xFF, 0xFF], &string]);
    let Packet::Publish(publish) = decoded(&bytes, Version::V311) else { panic!() };
    assert_eq!(publish.topic.len(), 65_535);
}
