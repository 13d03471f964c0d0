//! Appending the data types of the protocol to a buffer. Values come from decoded packets or from the broker itself, so
//! a value that does not fit its field is a defect of the broker and ends in a panic that names it.

use crate::property::Properties;
use alloc::vec::Vec;

/// Largest variable byte integer, and so the largest Remaining Length.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// Bytes that `value` takes as a variable byte integer.
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Appends `value` in as few bytes as possible [MQTT5-1.5.5-1].
///
/// # Panics
/// If the value is above 268,435,455.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    assert!(value <= VARINT_MAX, "a variable byte integer has 28 bits");
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends binary data with its length.
///
/// # Panics
/// If there are more than 65,535 bytes.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let count = u16::try_from(bytes.len()).expect("a string or binary field has at most 65,535 bytes");
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a string with its length.
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Appends a block of properties with its length, which is there even if it is zero [MQTT5-2.2.2-1].
pub(crate) fn put_properties(out: &mut Vec<u8>, properties: Properties<'_>) {
    put_varint(out, block_len(properties.raw()));
    out.extend_from_slice(properties.raw());
}

/// Length of a block of properties as its field wants it.
pub(crate) fn block_len(block: &[u8]) -> u32 {
    u32::try_from(block.len()).expect("a block of properties fits a packet")
}

/// Appends a packet: the first byte, the Remaining Length, and what `body` appends. Made for short packets: the length
/// is written behind the body, whose size is known only then, and rotated to its place.
pub(crate) fn put_packet(out: &mut Vec<u8>, first: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    let start = out.len();
    body(out);
    let len = u32::try_from(out.len() - start).expect("Remaining Length has 28 bits");
    put_varint(out, len);
    out[start..].rotate_right(varint_len(len));
}
