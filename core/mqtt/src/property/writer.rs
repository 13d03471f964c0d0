//! Writing a block of properties, one call per property.

use super::{PropertyId, ValueType};
use crate::codec::writer::{put_binary, put_str, put_varint};
use alloc::vec::Vec;

/// Appends encoded properties to a buffer. The calls chain:
/// `PropertyWriter::new(&mut block).u16(PropertyId::ReceiveMaximum, 64).str(PropertyId::ReasonString, "busy");`
///
/// # Panics
/// Every call does if the property is not of the type that is written, or the value too long for its field.
#[derive(Debug)]
pub struct PropertyWriter<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> PropertyWriter<'b> {
    /// Writes to the end of `out`.
    pub const fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    fn put_id(&mut self, id: PropertyId, value_type: ValueType) {
        assert!(id.value_type() == value_type, "property {id:?} has another type than is written");
        self.out.push(id as u8);
    }

    /// A byte.
    pub fn byte(&mut self, id: PropertyId, value: u8) -> &mut Self {
        self.put_id(id, ValueType::Byte);
        self.out.push(value);
        self
    }

    /// A two-byte integer.
    pub fn u16(&mut self, id: PropertyId, value: u16) -> &mut Self {
        self.put_id(id, ValueType::U16);
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A four-byte integer.
    pub fn u32(&mut self, id: PropertyId, value: u32) -> &mut Self {
        self.put_id(id, ValueType::U32);
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A variable byte integer, at most 268,435,455.
    pub fn varint(&mut self, id: PropertyId, value: u32) -> &mut Self {
        self.put_id(id, ValueType::VarInt);
        put_varint(self.out, value);
        self
    }

    /// A string of at most 65,535 bytes.
    pub fn str(&mut self, id: PropertyId, value: &str) -> &mut Self {
        self.put_id(id, ValueType::Str);
        put_str(self.out, value);
        self
    }

    /// Binary data of at most 65,535 bytes.
    pub fn binary(&mut self, id: PropertyId, value: &[u8]) -> &mut Self {
        self.put_id(id, ValueType::Binary);
        put_binary(self.out, value);
        self
    }

    /// A pair of strings of at most 65,535 bytes each.
    pub fn pair(&mut self, id: PropertyId, name: &str, value: &str) -> &mut Self {
        self.put_id(id, ValueType::Pair);
        put_str(self.out, name);
        put_str(self.out, value);
        self
    }
}
