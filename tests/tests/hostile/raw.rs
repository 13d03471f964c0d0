//! Packets as no encoder would write them.

use bifro_core::client::Version;

/// First byte of a PUBLISH with QoS 0.
pub(crate) const PUBLISH: u8 = 0x30;
/// First byte of a SUBSCRIBE.
pub(crate) const SUBSCRIBE: u8 = 0x82;
/// First byte of an UNSUBSCRIBE.
pub(crate) const UNSUBSCRIBE: u8 = 0xA2;
/// First byte of a DISCONNECT.
pub(crate) const DISCONNECT: u8 = 0xE0;
/// First byte of an AUTH.
pub(crate) const AUTH: u8 = 0xF0;
/// A whole PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// A variable byte integer in its shortest form.
pub(crate) fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7F).expect("seven bits");
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

/// A string or binary field: two bytes of length, then the bytes, whatever they are.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a field has at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A packet made of a first byte and the parts of its body.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first][..], &varint(body.len()), &body].concat()
}

/// A block of properties with its length; nothing before MQTT 5.
pub(crate) fn block(version: Version, properties: &[u8]) -> Vec<u8> {
    if version == Version::V5 { [&varint(properties.len())[..], properties].concat() } else { Vec::new() }
}

/// A PUBLISH with QoS 0.
pub(crate) fn publish(version: Version, topic: &[u8], properties: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(PUBLISH, &[&field(topic), &block(version, properties), payload])
}

/// A SUBSCRIBE with packet identifier 1 and these filters, each with its options.
pub(crate) fn subscribe(version: Version, properties: &[u8], filters: &[(&[u8], u8)]) -> Vec<u8> {
    let filters: Vec<u8> =
        filters.iter().flat_map(|(filter, options)| [field(filter), vec![*options]].concat()).collect();
    packet(SUBSCRIBE, &[&[0, 1], &block(version, properties), &filters])
}

/// An UNSUBSCRIBE with packet identifier 1.
pub(crate) fn unsubscribe(version: Version, properties: &[u8], filters: &[&[u8]]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(|filter| field(filter)).collect();
    packet(UNSUBSCRIBE, &[&[0, 1], &block(version, properties), &filters])
}

/// A property whose value is a string or binary field.
pub(crate) fn text_property(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id][..], &field(value)].concat()
}

/// A User Property.
pub(crate) fn user_property(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[38][..], &field(name), &field(value)].concat()
}

/// A CONNECT, part by part.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawConnect {
    /// Client identifier.
    pub(crate) client_id: Vec<u8>,
    /// Properties without their length.
    pub(crate) properties: Vec<u8>,
    /// Will: properties without their length, topic, payload.
    pub(crate) will: Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
    /// User name.
    pub(crate) username: Option<Vec<u8>>,
}

impl RawConnect {
    /// A clean session with this client identifier.
    pub(crate) fn new(client_id: &[u8]) -> Self {
        Self { client_id: client_id.to_vec(), ..Self::default() }
    }

    /// Its bytes.
    pub(crate) fn encode(&self, version: Version) -> Vec<u8> {
        let name: &[u8] = if version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = 0x02 | flag(self.will.is_some(), 0x04) | flag(self.username.is_some(), 0x80);
        let mut payload = field(&self.client_id);
        if let Some((properties, topic, message)) = &self.will {
            payload.extend([block(version, properties), field(topic), field(message)].concat());
        }
        if let Some(username) = &self.username {
            payload.extend(field(username));
        }
        let head = [field(name), vec![version as u8, flags, 0, 60]].concat();
        packet(0x10, &[&head, &block(version, &self.properties), &payload])
    }
}
