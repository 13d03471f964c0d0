//! A subscriber that acknowledges by the book: method B of QoS 2 keeps packet ids over reconnects, so what it notes as received
//! is what an application would have got.

use super::link::Sender;
use crate::client::ConnectOptions;
use crate::history::{Event, History, Mark};
use bifro_core::message::QoS;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::{ConnAck, Packet, PacketId, Publish};
use std::collections::HashSet;

/// What it subscribes to.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Topic filter.
    pub filter: String,
    /// QoS.
    pub qos: QoS,
}

/// See the module's page.
#[derive(Debug)]
pub struct Subscriber {
    /// How it connects.
    pub options: ConnectOptions,
    /// Its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Whose promise its messages belong to.
    pub audience: u32,
    /// Which member of the audience it is.
    pub member: u32,
    /// It acknowledges; otherwise it takes messages and says nothing, as one that is about to fail.
    pub acknowledges: bool,
    /// Messages it has got, repetitions included.
    pub received: u64,
    subscribe_id: Option<PacketId>,
    unreleased: HashSet<PacketId>,
    was_connected: bool,
    ready: bool,
}

impl Subscriber {
    /// A subscriber that is an audience of its own.
    pub fn new(options: ConnectOptions, audience: u32, subscriptions: Vec<Subscription>) -> Self {
        Self {
            options,
            subscriptions,
            audience,
            member: 0,
            acknowledges: true,
            received: 0,
            subscribe_id: None,
            unreleased: HashSet::new(),
            was_connected: false,
            ready: false,
        }
    }

    /// Its subscriptions are in force and it is connected.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn disconnected(&mut self) {
        self.ready = false;
        if self.options.clean {
            self.unreleased.clear();
        }
    }

    /// Something came. An error is what the broker must not do.
    pub(super) fn handle(
        &mut self,
        sender: &mut Sender,
        packet: &Packet<'_>,
        history: &mut History,
    ) -> Result<(), String> {
        match packet {
            Packet::ConnAck(connack) => self.handle_connack(sender, connack),
            Packet::SubAck(suback) => {
                let granted = self.subscriptions.iter().map(|subscription| subscription.qos as u8);
                if Some(suback.packet_id) != self.subscribe_id || !suback.codes.iter().copied().eq(granted) {
                    return Err(format!("asked {:?}, got {packet:?}", self.subscriptions));
                }
                self.ready = true;
                Ok(())
            }
            Packet::Publish(publish) => self.handle_publish(sender, publish, history),
            Packet::PubRel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                sender.ack(AckKind::PubComp, ack.packet_id);
                Ok(())
            }
            Packet::PingResp => Ok(()),
            other => Err(format!("{} got {other:?}", self.options.client_id)),
        }
    }

    fn handle_connack(&mut self, sender: &mut Sender, connack: &ConnAck<'_>) -> Result<(), String> {
        if connack.reason.0 != 0 {
            return Err(format!("CONNECT refused: {connack:?}"));
        }
        let expected = self.was_connected && !self.options.clean;
        if connack.session_present != expected {
            return Err(format!("{}: session present is {}", self.options.client_id, connack.session_present));
        }
        self.was_connected = true;
        if expected {
            self.ready = true;
            return Ok(());
        }
        let subscriptions = self.subscriptions.iter().map(|subscription| (&*subscription.filter, subscription.qos));
        self.subscribe_id = Some(sender.subscribe(subscriptions));
        Ok(())
    }

    fn handle_publish(
        &mut self,
        sender: &mut Sender,
        publish: &Publish<'_>,
        history: &mut History,
    ) -> Result<(), String> {
        let mark = Mark::parse(publish.payload).ok_or_else(|| format!("a payload of two messages: {publish:?}"))?;
        self.received += 1;
        let fresh = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let fresh = self.unreleased.insert(id);
                self.ack(sender, AckKind::PubRec, id);
                fresh
            }
            (QoS::AtLeastOnce, Some(id)) => {
                self.ack(sender, AckKind::PubAck, id);
                true
            }
            _ => true,
        };
        if fresh {
            let kept = self.acknowledges || publish.qos == QoS::AtMostOnce;
            let (audience, member, dup) = (self.audience, self.member, publish.dup);
            history.push(Event::Received { audience, member, mark, dup, kept });
        }
        Ok(())
    }

    fn ack(&self, sender: &mut Sender, kind: AckKind, id: PacketId) {
        if self.acknowledges {
            sender.ack(kind, id);
        }
    }
}
