//! Messages as bytes: rkyv's archive of [`Message`], without alignment, checked whenever it is read.

use crate::message::Message;
use alloc::string::{String, ToString};
use core::fmt;
use rkyv::rancor;
use rkyv::util::AlignedVec;

/// What came is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a membership message: {}", self.0)
    }
}

impl core::error::Error for Malformed {}

/// The bytes of a message. At most [`crate::limits::DATAGRAM_BYTES`] unless it [is bulk](Message::is_bulk).
///
/// # Panics
/// Never: a message has no parts whose archiving can fail.
pub fn encode(message: &Message) -> AlignedVec {
    rkyv::to_bytes::<rancor::Error>(message).expect("plain values can be archived")
}

/// The message in `bytes`.
///
/// # Errors
/// If it is none.
pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    rkyv::from_bytes::<Message, rancor::Error>(bytes).map_err(|error| Malformed(error.to_string()))
}
