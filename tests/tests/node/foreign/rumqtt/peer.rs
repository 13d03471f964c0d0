//! One face for rumqttc's two clients, so that each scenario is written once.

use super::{Route, Version};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::{mqttbytes, v5};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// A message as a subscriber sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// A will of QoS 1.
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: &'static str,
}

enum Happened {
    Connected {
        session_present: bool,
    },
    Subscribed {
        granted: bool,
    },
    /// A PUBACK or PUBCOMP that accepts.
    Acknowledged,
    Message(Message, PublishProperties),
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A connected client; dropping it ends the connection without a DISCONNECT.
pub(super) struct Peer {
    client: Client,
    happened: UnboundedReceiver<Happened>,
    /// Messages that came while something else was waited for.
    early: std::collections::VecDeque<(Message, PublishProperties)>,
    events: JoinHandle<()>,
    pub(super) session_present: bool,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.events.abort();
    }
}

const REQUESTS: usize = 16;
const PACKET_BYTES: u32 = 512 << 10;

impl Peer {
    pub(super) async fn connect(route: &Route, name: &str, clean: bool, will: Option<Will>) -> Self {
        let (told, happened) = unbounded_channel();
        let id = format!("{}/{name}", route.name);
        let (client, events) = match route.version {
            Version::V311 => start_v311(route, id, clean, will, told),
            Version::V5 => start_v5(route, id, clean, will, told),
        };
        let early = std::collections::VecDeque::new();
        let mut peer = Self { client, happened, early, events, session_present: false };
        peer.session_present = peer
            .wait("CONNACK", |happened| match happened {
                Happened::Connected { session_present } => Some(*session_present),
                _ => None,
            })
            .await;
        peer
    }

    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Happened) -> Option<T>) -> T {
        let waiting = async {
            while let Some(happened) = self.happened.recv().await {
                if let Some(found) = wanted(&happened) {
                    return Some(found);
                }
                if let Happened::Message(message, properties) = happened {
                    self.early.push_back((message, properties));
                }
            }
            None
        };
        let found = tokio::time::timeout(bifro_tests::PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("no {what} in time")).unwrap_or_else(|| panic!("disconnected before {what}"))
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) {
        match &self.client {
            Client::V311(client) => client.subscribe(filter, qos_v311(qos)).await.expect("the task runs"),
            Client::V5(client) => client.subscribe(filter, qos_v5(qos)).await.expect("the task runs"),
        }
        let is_granted = |happened: &Happened| match happened {
            Happened::Subscribed { granted } => Some(*granted),
            _ => None,
        };
        assert!(self.wait("SUBACK", is_granted).await, "{filter} was refused");
    }

    /// Publishes and waits for the acknowledgement, if there is to be one.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        match &self.client {
            Client::V311(client) => {
                client.publish(topic, qos_v311(qos), retain, payload).await.expect("the task runs");
            }
            Client::V5(client) => client.publish(topic, qos_v5(qos), retain, payload.to_vec()).await.expect("it runs"),
        }
        if qos > 0 {
            self.acknowledged().await;
        }
    }

    pub(super) async fn publish_with(&mut self, topic: &str, payload: &[u8], properties: PublishProperties) {
        let Client::V5(client) = &self.client else { panic!("3.1.1 has no properties") };
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        let sent = client.publish_with_properties(topic, qos, false, payload.to_vec(), properties).await;
        sent.expect("the task runs");
        self.acknowledged().await;
    }

    async fn acknowledged(&mut self) {
        self.wait("acknowledgement", |happened| matches!(happened, Happened::Acknowledged).then_some(())).await;
    }

    /// The next message. Cancelling it loses nothing.
    pub(super) async fn message(&mut self) -> Message {
        self.message_with_properties().await.0
    }

    pub(super) async fn message_with_properties(&mut self) -> (Message, PublishProperties) {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        loop {
            let next = tokio::time::timeout(bifro_tests::PATIENCE, self.happened.recv()).await;
            match next.expect("a message in time").expect("the connection lives") {
                Happened::Message(message, properties) => return (message, properties),
                _ => continue,
            }
        }
    }

    /// Says DISCONNECT and waits for the end.
    pub(super) async fn leave(mut self) {
        match &self.client {
            Client::V311(client) => client.disconnect().await.expect("the task runs"),
            Client::V5(client) => client.disconnect().await.expect("the task runs"),
        }
        let end = async { while self.happened.recv().await.is_some() {} };
        tokio::time::timeout(bifro_tests::PATIENCE, end).await.expect("the connection ends in time");
    }
}

fn qos_v311(qos: u8) -> rumqttc::QoS {
    mqttbytes::qos(qos).expect("0 to 2")
}

fn qos_v5(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("0 to 2")
}

fn start_v311(
    route: &Route,
    id: String,
    clean: bool,
    will: Option<Will>,
    told: UnboundedSender<Happened>,
) -> (Client, JoinHandle<()>) {
    let mut options = rumqttc::MqttOptions::new(id, &route.host, route.port);
    options.set_transport(route.transport.clone()).set_clean_session(clean).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(PACKET_BYTES as usize, PACKET_BYTES as usize);
    if let Some(will) = will {
        options.set_last_will(rumqttc::LastWill::new(will.topic, will.payload, rumqttc::QoS::AtLeastOnce, false));
    }
    let (client, mut events) = rumqttc::AsyncClient::new(options, REQUESTS);
    let task = tokio::spawn(async move {
        // An error is the end of the connection; its cause shows in what the test waits for.
        while let Ok(event) = events.poll().await {
            let rumqttc::Event::Incoming(packet) = event else { continue };
            let happened = match packet {
                rumqttc::Packet::ConnAck(ack) => Happened::Connected { session_present: ack.session_present },
                rumqttc::Packet::SubAck(ack) => {
                    Happened::Subscribed { granted: !ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) }
                }
                rumqttc::Packet::PubAck(_) | rumqttc::Packet::PubComp(_) => Happened::Acknowledged,
                rumqttc::Packet::Publish(publish) => {
                    let (qos, retain) = (publish.qos as u8, publish.retain);
                    let message = Message { topic: publish.topic, payload: publish.payload.to_vec(), qos, retain };
                    Happened::Message(message, PublishProperties::default())
                }
                _ => continue,
            };
            if told.send(happened).is_err() {
                break;
            }
        }
    });
    (Client::V311(client), task)
}

fn start_v5(
    route: &Route,
    id: String,
    clean: bool,
    will: Option<Will>,
    told: UnboundedSender<Happened>,
) -> (Client, JoinHandle<()>) {
    let mut options = v5::MqttOptions::new(id, &route.host, route.port);
    options.set_transport(route.transport.clone()).set_clean_start(clean).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(Some(PACKET_BYTES)).set_session_expiry_interval(Some(if clean { 0 } else { 3600 }));
    if let Some(will) = will {
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        options.set_last_will(v5::mqttbytes::v5::LastWill::new(will.topic, will.payload, qos, false, None));
    }
    let (client, mut events) = v5::AsyncClient::new(options, REQUESTS);
    let task = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            let v5::Event::Incoming(packet) = event else { continue };
            use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
            let happened = match packet {
                Packet::ConnAck(ack) => Happened::Connected { session_present: ack.session_present },
                Packet::SubAck(ack) => Happened::Subscribed {
                    granted: ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))),
                },
                Packet::PubAck(_) | Packet::PubComp(_) => Happened::Acknowledged,
                Packet::Publish(publish) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    let (qos, retain) = (publish.qos as u8, publish.retain);
                    let message = Message { topic, payload: publish.payload.to_vec(), qos, retain };
                    Happened::Message(message, publish.properties.unwrap_or_default())
                }
                _ => continue,
            };
            if told.send(happened).is_err() {
                break;
            }
        }
    });
    (Client::V5(client), task)
}
