//! The order of copied bytes and shared payloads.

use super::*;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};

fn message(payload: &[u8]) -> Arc<Message> {
    let view = MessageView {
        topic: "t",
        properties: &[],
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        expiry_at: None,
        publisher: PublisherKey(0),
    };
    view.to_message()
}

fn joined(wire: &Wire) -> Vec<u8> {
    let bytes: Vec<u8> = wire.pieces().flatten().copied().collect();
    assert_eq!(bytes.len(), wire.len());
    bytes
}

#[test]
fn pieces_come_in_the_order_in_which_they_were_put() {
    let mut wire = Wire::default();
    wire.bytes.extend_from_slice(b"ab");
    wire.push_shared(message(b"ONE"));
    wire.push_shared(message(b"TWO"));
    wire.bytes.extend_from_slice(b"cd");
    wire.push_shared(message(b""));
    wire.bytes.extend_from_slice(b"ef");
    assert_eq!(joined(&wire), b"abONETWOcdef");
    assert_eq!(wire.shared_bytes(), 6);
    assert!(wire.pieces().all(|piece| !piece.is_empty()));
}

#[test]
fn a_payload_may_be_first_and_last() {
    let mut wire = Wire::default();
    wire.push_shared(message(b"ONE"));
    assert_eq!(joined(&wire), b"ONE");
    assert!(!wire.is_empty());
}

#[test]
fn clearing_keeps_nothing_but_the_allocation() {
    let mut wire = Wire::default();
    assert!(wire.is_empty());
    wire.bytes.extend_from_slice(b"ab");
    wire.push_shared(message(b"ONE"));
    let capacity = wire.bytes.capacity();
    wire.clear();
    assert!(wire.is_empty() && wire.cuts().is_empty());
    assert_eq!((wire.pieces().count(), wire.bytes.capacity()), (0, capacity));
}
