//! What is written is read back; anything else is refused, and never panics.

use super::*;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{ClientInfo, Peer, Transport, Version};
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use bifro_core::plugin::{Action, Effect, Rule};
use proptest::prelude::*;

fn encoded() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes);
    let rule = |effect, action| Rule { effect, action, pattern: "a/%c".into() };
    write_client(
        &mut writer,
        &ClientInfo {
            tenant: "t".into(),
            user: "ann".into(),
            client_id: "c".into(),
            version: Version::V311,
            transport: Transport::Wss,
            peer: Some(Peer { ip: [0, 0, 0, 0, 0, 0, 0, 1].into(), port: 9 }),
            rules: [rule(Effect::Deny, None), rule(Effect::Allow, Some(Action::Subscribe))].into(),
            expires_at: Some(Instant::from_micros(5)),
        },
    );
    let view = MessageView {
        topic: "a/b",
        properties: &[1, 2],
        payload: b"payload",
        qos: QoS::ExactlyOnce,
        retain: true,
        expiry_at: Some(Instant::from_micros(7)),
        publisher: PublisherKey(11),
    };
    write_message(&mut writer, &view.to_message());
    bytes
}

fn read(bytes: &[u8]) -> Result<(Arc<ClientInfo>, Arc<bifro_core::message::Message>), RecordError> {
    let mut reader = Reader::new(bytes)?;
    let both = (read_client(&mut reader)?, read_message(&mut reader)?);
    reader.finish()?;
    Ok(both)
}

#[test]
fn client_and_message_are_read_as_they_were_written() {
    let bytes = encoded();
    let (client, message) = read(&bytes).expect("just written");
    let mut again = Vec::new();
    let mut writer = Writer::begin(&mut again);
    write_client(&mut writer, &client);
    write_message(&mut writer, &message);
    assert_eq!(again, bytes);
    assert_eq!((&*client.user, client.version, client.rules.len()), ("ann", Version::V311, 2));
    assert_eq!((message.topic(), message.payload()), ("a/b", &b"payload"[..]));
}

#[test]
fn every_truncation_is_refused_and_so_is_every_excess() {
    let mut bytes = encoded();
    for len in 0..bytes.len() {
        assert_eq!(read(&bytes[..len]).expect_err("cut off"), RecordError::Truncated, "{len} bytes");
    }
    bytes.push(0);
    assert_eq!(read(&bytes).expect_err("one byte more"), RecordError::Trailing);
}

#[test]
fn a_newer_format_and_a_record_beyond_the_limit_are_refused() {
    assert_eq!(Reader::new(&[FORMAT + 1]).expect_err("newer"), RecordError::Format(FORMAT + 1));
    let long = alloc::vec![FORMAT; RECORD_BYTES_MAX + 1];
    assert_eq!(Reader::new(&long).expect_err("too long"), RecordError::TooLong);
}

proptest! {
    #[test]
    fn a_flipped_byte_is_read_exactly_or_refused(at in 0_usize..1_000, flip in 1_u8..) {
        let mut bytes = encoded();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok((client, message)) = read(&bytes) {
            let mut again = Vec::new();
            let mut writer = Writer::begin(&mut again);
            write_client(&mut writer, &client);
            write_message(&mut writer, &message);
            prop_assert_eq!(again, bytes);
        }
    }
}
