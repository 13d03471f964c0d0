//! Messages and the identities of their publishers, as they are stored.

use super::{Reader, RecordError, Writer};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{Client, ClientInfo, Peer, Transport, Version};
use bifro_core::ids::PublisherKey;
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, Effect, Rule};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) fn write_message(writer: &mut Writer<'_>, message: &Message) {
    let view = message.view();
    writer.bytes(view.topic.as_bytes());
    writer.bytes(view.properties);
    writer.bytes(view.payload);
    writer.u8(view.qos as u8);
    writer.u8(u8::from(view.retain));
    writer.maybe_instant(view.expiry_at);
    writer.u64(view.publisher.0);
}

pub(crate) fn read_message(reader: &mut Reader<'_>) -> Result<Arc<Message>, RecordError> {
    read_view(reader).map(|view| view.to_message())
}

/// A message that is not copied yet.
pub(super) fn read_view<'a>(reader: &mut Reader<'a>) -> Result<MessageView<'a>, RecordError> {
    let topic = reader.str()?;
    // What `MessageView::to_message` takes for granted of a packet.
    if topic.is_empty() || topic.len() > usize::from(u16::MAX) {
        return Err(RecordError::Value("topic"));
    }
    Ok(MessageView {
        topic,
        properties: reader.bytes()?,
        payload: reader.bytes()?,
        qos: QoS::from_bits(reader.u8()?).ok_or(RecordError::Value("QoS"))?,
        retain: reader.flag()?,
        expiry_at: reader.maybe_instant()?,
        publisher: PublisherKey(reader.u64()?),
    })
}

/// The whole identity: permissions are asked again when a stored message is delivered, with the rules that came with it.
pub(crate) fn write_client(writer: &mut Writer<'_>, client: &ClientInfo) {
    writer.bytes(client.tenant.as_bytes());
    writer.bytes(client.user.as_bytes());
    writer.bytes(client.client_id.as_bytes());
    writer.u8(client.version as u8);
    writer.u8(match client.transport {
        Transport::Tcp => 0,
        Transport::Tls => 1,
        Transport::Ws => 2,
        Transport::Wss => 3,
        Transport::Unix => 4,
    });
    match client.peer {
        None => writer.u8(0),
        Some(Peer { ip: IpAddr::V4(ip), port }) => {
            writer.u8(4);
            ip.octets().into_iter().for_each(|octet| writer.u8(octet));
            writer.u16(port);
        }
        Some(Peer { ip: IpAddr::V6(ip), port }) => {
            writer.u8(6);
            ip.octets().into_iter().for_each(|octet| writer.u8(octet));
            writer.u16(port);
        }
    }
    writer.maybe_instant(client.expires_at);
    writer.count(client.rules.len());
    for rule in &client.rules {
        writer.u8(u8::from(rule.effect == Effect::Allow));
        writer.u8(match rule.action {
            None => 0,
            Some(Action::Publish) => 1,
            Some(Action::Subscribe) => 2,
        });
        writer.bytes(rule.pattern.as_bytes());
    }
}

pub(crate) fn read_client(reader: &mut Reader<'_>) -> Result<Client, RecordError> {
    let (tenant, user, client_id) = (reader.str()?, reader.str()?, reader.str()?);
    let version = match reader.u8()? {
        3 => Version::V31,
        4 => Version::V311,
        5 => Version::V5,
        _ => return Err(RecordError::Value("protocol version")),
    };
    let transport = match reader.u8()? {
        0 => Transport::Tcp,
        1 => Transport::Tls,
        2 => Transport::Ws,
        3 => Transport::Wss,
        4 => Transport::Unix,
        _ => return Err(RecordError::Value("transport")),
    };
    let ip: Option<IpAddr> = match reader.u8()? {
        0 => None,
        4 => Some(Ipv4Addr::from(reader.array::<4>()?).into()),
        6 => Some(Ipv6Addr::from(reader.array::<16>()?).into()),
        _ => return Err(RecordError::Value("address family")),
    };
    let peer = ip.map(|ip| reader.u16().map(|port| Peer { ip, port })).transpose()?;
    let expires_at = reader.maybe_instant()?;
    let mut rules = Vec::new();
    for _ in 0..reader.count()? {
        rules.push(read_rule(reader)?);
    }
    let (tenant, user, client_id) = (tenant.into(), user.into(), client_id.into());
    let rules = rules.into_boxed_slice();
    Ok(Arc::new(ClientInfo { tenant, user, client_id, version, transport, peer, rules, expires_at }))
}

fn read_rule(reader: &mut Reader<'_>) -> Result<Rule, RecordError> {
    let effect = if reader.flag()? { Effect::Allow } else { Effect::Deny };
    let action = match reader.u8()? {
        0 => None,
        1 => Some(Action::Publish),
        2 => Some(Action::Subscribe),
        _ => return Err(RecordError::Value("action")),
    };
    Ok(Rule { effect, action, pattern: reader.str()?.into() })
}
