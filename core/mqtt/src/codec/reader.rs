//! A bounded reader over received bytes: every step either yields a field or says how the peer is wrong; nothing
//! indexes.

use super::DecodeError;
use crate::packet::PacketId;
use crate::property::{Properties, PropertyOwner, validate};

/// Bytes of a variable byte integer at most, section 1.5.5 of 5.0.
const VARINT_BYTES_MAX: usize = 4;

/// Reads a variable byte integer from the start of `bytes`: its value and length, or none if more bytes are needed.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing: the sender must have used fewer [MQTT5-1.5.5-1].
            return if byte == 0 && at > 0 { Err(DecodeError::VarIntNotMinimal) } else { Ok(Some((value, at + 1))) };
        }
    }
    if bytes.len() < VARINT_BYTES_MAX { Ok(None) } else { Err(DecodeError::VarIntTooLong) }
}

/// What has not been read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All fields have been read.
    #[inline]
    pub(crate) const fn finish(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, count) = varint(self.rest)?.ok_or(DecodeError::Truncated)?;
        self.take(count)?;
        Ok(value)
    }

    /// Binary data: a two-byte length and as many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    /// A string in strict UTF-8, which excludes surrogates and over-long forms [MQTT-1.5.3-1] [MQTT5-1.5.4-1] and keeps
    /// a byte order mark [MQTT-1.5.3-3], without U+0000 [MQTT-1.5.3-2] [MQTT5-1.5.4-2].
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::StringHasNul);
        }
        core::str::from_utf8(bytes).map_err(|_| DecodeError::StringNotUtf8)
    }

    /// A packet identifier, which is not 0 [MQTT-2.3.1-1] [MQTT5-2.2.1-3].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// The bytes of a block of properties, unchecked; its length is always there [MQTT5-2.2.2-1].
    #[inline]
    pub(crate) fn block(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.varint()?;
        self.take(count as usize)
    }

    /// A valid block of properties.
    #[inline]
    pub(crate) fn properties(&mut self, owner: PropertyOwner) -> Result<Properties<'a>, DecodeError> {
        let block = self.block()?;
        validate(block, owner)
    }
}
