//! A publisher with a window: it numbers what it sends, repeats what was not acknowledged when it comes back, and notes both.

use super::link::Sender;
use crate::client::ConnectOptions;
use crate::history::{Event, History, Mark};
use bifro_core::message::QoS;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::{ConnAck, Packet, PacketId};
use std::collections::VecDeque;

/// What it sends to one topic.
#[derive(Clone, Debug)]
struct Stream {
    stream: u32,
    topic: String,
    qos: QoS,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: PacketId,
    index: usize,
    mark: Mark,
    /// PUBREC has come: the message is the broker's.
    released: bool,
}

/// See the module's page.
#[derive(Debug)]
pub struct Publisher {
    /// How it connects.
    pub options: ConnectOptions,
    /// Messages to send per stream.
    pub count: u32,
    /// QoS 1 and 2 messages without acknowledgement at most.
    pub window: usize,
    /// Payload length in bytes.
    pub payload_bytes: usize,
    streams: Vec<Stream>,
    in_flight: VecDeque<Flight>,
    turn: usize,
    was_connected: bool,
    connected: bool,
}

impl Publisher {
    /// A publisher of `count` messages on each stream it is given.
    pub const fn new(options: ConnectOptions, count: u32, window: usize) -> Self {
        Self {
            options,
            count,
            window,
            payload_bytes: 32,
            streams: Vec::new(),
            in_flight: VecDeque::new(),
            turn: 0,
            was_connected: false,
            connected: false,
        }
    }

    /// Adds a stream.
    pub fn with_stream(mut self, stream: u32, topic: String, qos: QoS) -> Self {
        self.streams.push(Stream { stream, topic, qos, next: 0 });
        self
    }

    /// Sends nothing new any more.
    pub fn stop(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.next = self.count);
    }

    /// Everything is sent and acknowledged.
    pub fn is_done(&self) -> bool {
        self.in_flight.is_empty() && self.streams.iter().all(|stream| stream.next == self.count)
    }

    /// Whether it has its CONNACK.
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) const fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Sends as much as the window allows, at most one QoS 0 message per stream and call.
    pub(super) fn fill(&mut self, sender: &mut Sender, history: &mut History) {
        if !self.connected {
            return;
        }
        for _ in 0..self.window.max(self.streams.len()) {
            self.turn = (self.turn + 1) % self.streams.len();
            let (index, count, room) = (self.turn, self.count, self.in_flight.len() < self.window);
            let stream = &mut self.streams[index];
            let waits = stream.qos != QoS::AtMostOnce;
            if stream.next == count || (waits && !room) {
                continue;
            }
            let mark = Mark { stream: stream.stream, seq: stream.next };
            stream.next += 1;
            history.push(Event::Published { mark });
            let id = waits.then(|| self.free_id(sender));
            self.send(sender, index, mark, id, false);
            self.in_flight.extend(id.map(|id| Flight { id, index, mark, released: false }));
        }
    }

    fn free_id(&self, sender: &mut Sender) -> PacketId {
        loop {
            let id = sender.packet_id();
            if self.in_flight.iter().all(|flight| flight.id != id) {
                return id;
            }
        }
    }

    fn send(&self, sender: &mut Sender, index: usize, mark: Mark, id: Option<PacketId>, dup: bool) {
        let stream = &self.streams[index];
        sender.publish(&stream.topic, &mark.payload(self.payload_bytes), stream.qos, id, dup);
    }

    /// Something came. An error is what the broker must not do.
    pub(super) fn handle(
        &mut self,
        sender: &mut Sender,
        packet: &Packet<'_>,
        history: &mut History,
    ) -> Result<(), String> {
        match packet {
            Packet::ConnAck(connack) => self.handle_connack(sender, connack, history),
            Packet::PubAck(ack) => {
                let flight = self.take(ack.packet_id).ok_or_else(|| format!("stray {packet:?}"))?;
                self.taken_over(flight, ack.reason.is_error(), history)
            }
            Packet::PubRec(ack) => {
                let flight = self.in_flight.iter_mut().find(|flight| flight.id == ack.packet_id);
                let flight = flight.ok_or_else(|| format!("stray {packet:?}"))?;
                let first = !std::mem::replace(&mut flight.released, true);
                let copy = *flight;
                sender.ack(AckKind::PubRel, ack.packet_id);
                if first { self.taken_over(copy, ack.reason.is_error(), history) } else { Ok(()) }
            }
            Packet::PubComp(ack) => self.take(ack.packet_id).map(|_| ()).ok_or_else(|| format!("stray {packet:?}")),
            other => Err(format!("a publisher got {other:?}")),
        }
    }

    /// [MQTT-4.4.0-1]: unacknowledged PUBLISH and PUBREL packets go out again, with their ids and in their order.
    fn handle_connack(
        &mut self,
        sender: &mut Sender,
        connack: &ConnAck<'_>,
        history: &mut History,
    ) -> Result<(), String> {
        if connack.reason.is_error() || connack.reason.0 != 0 {
            return Err(format!("CONNECT refused: {connack:?}"));
        }
        if self.was_connected && !connack.session_present && !self.options.clean {
            return Err(format!("the session of {} is gone", self.options.client_id));
        }
        (self.connected, self.was_connected) = (true, true);
        for flight in &self.in_flight {
            if flight.released {
                sender.ack(AckKind::PubRel, flight.id);
            } else {
                if self.streams[flight.index].qos == QoS::AtLeastOnce {
                    history.push(Event::Published { mark: flight.mark });
                }
                self.send(sender, flight.index, flight.mark, Some(flight.id), true);
            }
        }
        Ok(())
    }

    fn take(&mut self, id: PacketId) -> Option<Flight> {
        let at = self.in_flight.iter().position(|flight| flight.id == id)?;
        self.in_flight.remove(at)
    }

    fn taken_over(&self, flight: Flight, failed: bool, history: &mut History) -> Result<(), String> {
        if failed {
            return Err(format!("{:?} of {} was refused", flight.mark, self.options.client_id));
        }
        history.push(Event::Acknowledged { mark: flight.mark });
        Ok(())
    }
}
