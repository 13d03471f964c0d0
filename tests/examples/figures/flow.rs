//! A closed loop of publishers and subscribers: so many messages on their way per publisher, never more.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::Packet;
use bifro_tests::ConnectOptions;
use bifro_tests::load::{Incoming, Swarm};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
}

#[derive(Default)]
struct Channel {
    publisher: usize,
    published: u64,
    acknowledged: u64,
    /// Deliveries to all subscribers of the channel.
    delivered: u64,
    subscribers: u64,
}

/// See the module's page.
pub(crate) struct Flow {
    swarm: Swarm,
    roles: HashMap<usize, Role>,
    channels: Vec<Channel>,
    qos: QoS,
    window: u64,
    payload: Vec<u8>,
}

impl Flow {
    /// `channels` publishers, each with `subscribers` of its own; subscribed when this returns.
    pub(crate) fn new(
        broker: SocketAddr,
        channels: usize,
        subscribers: usize,
        qos: QoS,
        window: u64,
        payload_bytes: usize,
    ) -> Self {
        let mut flow = Self {
            swarm: Swarm::new(broker),
            roles: HashMap::new(),
            channels: Vec::new(),
            qos,
            window,
            payload: vec![b'x'; payload_bytes],
        };
        for number in 0..channels {
            for _ in 0..subscribers {
                flow.open(Role::Subscriber(number));
            }
            let publisher = flow.open(Role::Publisher(number));
            flow.channels.push(Channel { publisher, subscribers: subscribers as u64, ..Channel::default() });
        }
        let mut ready = 0;
        let deadline = Instant::now() + 3 * bifro_tests::PATIENCE;
        while ready < channels * (subscribers + 1) {
            assert!(Instant::now() < deadline, "only {ready} clients are ready");
            let (roles, qos) = (&flow.roles, flow.qos);
            flow.swarm.turn(Duration::from_millis(10), |key, sender, incoming| match (roles[&key], incoming) {
                (Role::Subscriber(number), Incoming::Packet(Packet::ConnAck(_))) => {
                    sender.subscribe([(&*topic(number), qos)]);
                }
                (_, Incoming::Packet(Packet::SubAck(_) | Packet::ConnAck(_))) => ready += 1,
                (_, other) => panic!("unexpected while connecting: {other:?}"),
            });
        }
        flow
    }

    fn open(&mut self, role: Role) -> usize {
        let id = format!("flow-{}", self.roles.len());
        let key = self.swarm.connect(&ConnectOptions::new(Version::V311, &id));
        self.roles.insert(key, role);
        key
    }

    /// Runs for so long; returns the messages delivered and the time it took.
    pub(crate) fn run(&mut self, span: Duration) -> (u64, Duration) {
        let before = self.delivered();
        let start = Instant::now();
        while start.elapsed() < span {
            self.turn();
        }
        (self.delivered() - before, start.elapsed())
    }

    fn delivered(&self) -> u64 {
        self.channels.iter().map(|channel| channel.delivered).sum()
    }

    fn turn(&mut self) {
        let qos = self.qos;
        for (number, channel) in self.channels.iter_mut().enumerate() {
            let slowest = channel.delivered / channel.subscribers;
            let done = if qos == QoS::AtMostOnce { slowest } else { slowest.min(channel.acknowledged) };
            let room = (done + self.window).saturating_sub(channel.published);
            // A few at a time cost a wake-up each; half a window at once is a steady flow.
            if room * 2 < self.window {
                continue;
            }
            let Some(sender) = self.swarm.sender(channel.publisher) else { panic!("a publisher was closed") };
            for _ in 0..room {
                let id = (qos != QoS::AtMostOnce).then(|| sender.packet_id());
                sender.publish(&topic(number), &self.payload, qos, id, false);
            }
            channel.published += room;
        }
        let (roles, channels) = (&self.roles, &mut self.channels);
        self.swarm.turn(Duration::from_millis(20), |key, sender, incoming| match (roles[&key], incoming) {
            (Role::Subscriber(number), Incoming::Packet(Packet::Publish(publish))) => {
                channels[number].delivered += 1;
                if let Some(id) = publish.packet_id {
                    sender.ack(AckKind::PubAck, id);
                }
            }
            (Role::Publisher(number), Incoming::Packet(Packet::PubAck(_))) => channels[number].acknowledged += 1,
            (_, other) => panic!("unexpected: {other:?}"),
        });
    }
}

fn topic(number: usize) -> String {
    format!("flow/{number}")
}
