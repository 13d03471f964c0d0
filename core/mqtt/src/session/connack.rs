//! CONNACK: what an MQTT 5 client is told about its session and about the server.

use super::connect::Connecting;
use super::{Cx, Outbox, Session};
use crate::packet::{ConnAck, Packet};
use crate::property::{Properties, PropertyId, PropertyWriter};
use crate::reason::Reason;
use alloc::vec::Vec;
use bifro_core::client::Version;

impl Session {
    /// CONNACK with success. It is the first packet of every connection but for AUTH [MQTT-3.2.0-1] [MQTT5-3.2.0-1].
    pub(super) fn send_connack(
        &self,
        cx: &Cx<'_>,
        connecting: &Connecting,
        session_present: bool,
        out: &mut Outbox<'_>,
    ) -> bool {
        // MQTT 3.1 has no Session Present; its byte is reserved.
        let session_present = session_present && self.version != Version::V31;
        if self.version != Version::V5 {
            return self.send_success(session_present, &[], out);
        }
        let mut block = Vec::new();
        self.write_capabilities(cx, connecting, &mut block);
        let required = block.len();
        write_extras(connecting, &mut block);
        // [MQTT5-3.2.2-20]: what is only helpful is left out if the packet would not fit the client.
        self.send_success(session_present, &block, out) || self.send_success(session_present, &block[..required], out)
    }

    fn send_success(&self, session_present: bool, block: &[u8], out: &mut Outbox<'_>) -> bool {
        let properties = Properties::new(block);
        self.send(&Packet::ConnAck(ConnAck { session_present, reason: Reason::SUCCESS, properties }), out)
    }

    fn write_capabilities(&self, cx: &Cx<'_>, connecting: &Connecting, block: &mut Vec<u8>) {
        let settings = &cx.tenant.settings;
        let mut properties = PropertyWriter::new(block);
        if self.expiry_s != connecting.expiry_asked_s {
            properties.u32(PropertyId::SessionExpiryInterval, self.expiry_s); // [MQTT5-3.2.2.3.2]
        }
        if self.receive_maximum != u16::MAX {
            properties.u16(PropertyId::ReceiveMaximum, self.receive_maximum); // [MQTT5-3.2.2.3.3]
        }
        if settings.maximum_qos < 2 {
            properties.byte(PropertyId::MaximumQos, settings.maximum_qos); // [MQTT5-3.2.2-9]
        }
        if !settings.retain_enabled {
            properties.byte(PropertyId::RetainAvailable, 0); // [MQTT5-3.2.2.3.5]
        }
        properties.u32(PropertyId::MaximumPacketSize, self.packet_bytes_max); // [MQTT5-3.2.2.3.6]
        if connecting.assigned_client_id {
            properties.str(PropertyId::AssignedClientIdentifier, &connecting.request.client_id); // [MQTT5-3.2.2-16]
        }
        if self.alias_max > 0 {
            properties.u16(PropertyId::TopicAliasMaximum, self.alias_max); // [MQTT5-3.2.2-17]
        }
        if !settings.wildcard_subscription_enabled {
            properties.byte(PropertyId::WildcardSubscriptionAvailable, 0);
        }
        if !settings.subscription_identifier_enabled {
            properties.byte(PropertyId::SubscriptionIdentifierAvailable, 0);
        }
        if !settings.shared_subscription_enabled {
            properties.byte(PropertyId::SharedSubscriptionAvailable, 0);
        }
        if self.keep_alive_s != connecting.keep_alive_asked_s {
            properties.u16(PropertyId::ServerKeepAlive, self.keep_alive_s); // [MQTT5-3.2.2-21] [MQTT5-3.2.2-22]
        }
        if let Some(enhanced) = &connecting.request.enhanced {
            properties.str(PropertyId::AuthenticationMethod, &enhanced.method); // [MQTT5-4.12.0-5]
            if let Some(data) = connecting.grant.as_ref().and_then(|grant| grant.data.as_deref()) {
                properties.binary(PropertyId::AuthenticationData, data);
            }
        }
    }
}

fn write_extras(connecting: &Connecting, block: &mut Vec<u8>) {
    let Some(grant) = &connecting.grant else { return };
    let mut properties = PropertyWriter::new(block);
    if let Some(information) = grant.response_information.as_deref().filter(|_| connecting.wants_response_information) {
        properties.str(PropertyId::ResponseInformation, information); // [MQTT5-3.1.2-28]
    }
    for (key, value) in &grant.user_properties {
        properties.pair(PropertyId::UserProperty, key, value);
    }
}
