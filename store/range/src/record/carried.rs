//! Messages and clients on their way to another node, each an encoding by itself.
//!
//! At rest a message's expiry is a moment of the clock that it was written by, and another node's clock may differ. So the moment of writing goes
//! along, and the reader keeps what is left from the one to the other, counted from its own now. What the way takes is thereby
//! given to the message, as with messages that are forwarded to live subscribers. When a client's credentials expire was said by their
//! issuer, who knew none of the clocks: that moment is carried as it is.

use super::stored::read_view;
use super::{Reader, RecordError, Writer, read_client, write_client, write_message};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{Client, ClientInfo};
use bifro_core::message::{Message, MessageView};
use bifro_core::time::Instant;

/// A message as bytes, written `now`.
pub fn encode_message(message: &Message, now: Instant) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.footprint_bytes());
    let mut writer = Writer::begin(&mut bytes);
    write_message(&mut writer, message);
    writer.u64(now.as_micros());
    bytes
}

/// What another node has written, by this node's clock.
///
/// # Errors
/// If the bytes are not exactly one message.
pub fn decode_message(bytes: &[u8], now: Instant) -> Result<Arc<Message>, RecordError> {
    let mut reader = Reader::new(bytes)?;
    let view = read_view(&mut reader)?;
    let sent_at = reader.instant()?;
    reader.finish()?;
    Ok(by_clock_here(view, sent_at, now))
}

/// A message that was written by the clock of another node, which showed `sent_at` then.
pub(crate) fn by_clock_here(view: MessageView<'_>, sent_at: Instant, now: Instant) -> Arc<Message> {
    let expiry_at = view.expiry_at.map(|at| now + at.since(sent_at));
    MessageView { expiry_at, ..view }.to_message()
}

/// A client as bytes, its tenant's name included.
pub fn encode_client(client: &ClientInfo) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_client(&mut Writer::begin(&mut bytes), client);
    bytes
}

/// A client that another node has written.
///
/// # Errors
/// If the bytes are not exactly one client.
pub fn decode_client(bytes: &[u8]) -> Result<Client, RecordError> {
    let mut reader = Reader::new(bytes)?;
    let client = read_client(&mut reader)?;
    reader.finish()?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_core::client::{Transport, Version};
    use bifro_core::ids::PublisherKey;
    use bifro_core::message::QoS;
    use core::time::Duration;

    const SENT_AT: Instant = Instant::from_micros(50_000_000);
    const HERE: Instant = Instant::from_micros(9_000_000);

    fn view(expiry_at: Option<Instant>) -> MessageView<'static> {
        MessageView {
            topic: "a/b",
            properties: &[1, 1],
            payload: b"payload",
            qos: QoS::ExactlyOnce,
            retain: true,
            expiry_at,
            publisher: PublisherKey(7),
        }
    }

    #[test]
    fn a_message_arrives_whole_and_with_what_is_left_of_its_expiry() {
        let left = |expiry_at| {
            let bytes = encode_message(&view(expiry_at).to_message(), SENT_AT);
            let message = decode_message(&bytes, HERE).expect("just written");
            let expected = MessageView { expiry_at: message.view().expiry_at, ..view(None) };
            assert_eq!(alloc::format!("{:?}", message.view()), alloc::format!("{expected:?}"));
            message.view().expiry_at
        };
        assert_eq!(left(None), None);
        assert_eq!(left(Some(SENT_AT + Duration::from_secs(3))), Some(HERE + Duration::from_secs(3)));
        assert_eq!(left(Some(SENT_AT - Duration::from_secs(3))), Some(HERE), "what has expired stays so");
    }

    #[test]
    fn whatever_is_cut_short_or_goes_on_is_refused() {
        let client = ClientInfo {
            tenant: "t".into(),
            user: "ann".into(),
            client_id: "c".into(),
            version: Version::V5,
            transport: Transport::Tls,
            peer: None,
            rules: [].into(),
            expires_at: Some(SENT_AT),
        };
        let mut client = encode_client(&client);
        let mut message = encode_message(&view(Some(SENT_AT)).to_message(), SENT_AT);
        assert_eq!(decode_client(&client).expect("just written").expires_at, Some(SENT_AT));
        for len in 0..client.len() {
            assert_eq!(decode_client(&client[..len]).expect_err("cut off"), RecordError::Truncated);
        }
        for len in 0..message.len() {
            assert_eq!(decode_message(&message[..len], HERE).expect_err("cut off"), RecordError::Truncated);
        }
        client.push(0);
        message.push(0);
        assert_eq!(decode_client(&client).expect_err("one byte more"), RecordError::Trailing);
        assert_eq!(decode_message(&message, HERE).expect_err("one byte more"), RecordError::Trailing);
    }
}
