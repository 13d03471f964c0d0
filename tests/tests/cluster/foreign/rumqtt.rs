//! rumqttc, in both versions it knows. Each client is a thread that turns its event loop, which connects again by itself.

use super::record::{Heard, Record};
use super::{PACE, Stream, UNANSWERED};
use bifro_tests::history::Mark;
use rumqttc::{mqttbytes, v5};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A version of the protocol that rumqttc speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Publisher { stream: Stream },
    Subscriber { audience: u32 },
}

const REQUESTS: usize = 16;
/// More than a client sends here: its packet identifiers do not come round, which would change the order of what it sends again.
const IN_FLIGHT_MAX: u16 = u16::MAX;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// rumqttc itself tries again at once.
const BEFORE_RECONNECT: Duration = Duration::from_millis(100);

enum Requests {
    V311(rumqttc::Client),
    V5(v5::Client),
}

enum Events {
    V311(Box<rumqttc::Connection>),
    V5(Box<v5::Connection>),
}

/// What both versions have in common.
enum Happened {
    Connected {
        session_present: bool,
    },
    Subscribed,
    /// A PUBLISH has left.
    Sent {
        id: u16,
    },
    /// PUBACK, or PUBREC.
    Answered {
        id: u16,
        is_success: bool,
        is_last: bool,
    },
    /// PUBCOMP.
    Completed {
        id: u16,
    },
    Message {
        payload: Vec<u8>,
        dup: bool,
    },
    Disconnecting,
    Nothing,
}

/// A client on its thread.
pub(super) struct Peer {
    requests: Arc<Requests>,
    is_superseded: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Peer {
    pub(super) fn start(version: Version, node: SocketAddr, id: &str, part: Part, record: &Arc<Record>) -> Self {
        let (requests, events) = connect(version, node, id);
        let (requests, is_superseded) = (Arc::new(requests), Arc::new(AtomicBool::new(false)));
        let publishing = match part {
            Part::Publisher { stream } => Some(Publishing::new(stream)),
            Part::Subscriber { .. } => None,
        };
        let client = Running {
            id: id.to_owned(),
            part,
            publishing,
            conn: None,
            is_new: true,
            requests: requests.clone(),
            is_superseded: is_superseded.clone(),
            record: record.clone(),
        };
        Self { requests, is_superseded, thread: std::thread::spawn(move || client.run(events)) }
    }

    /// Another client takes its identifier: it does not come back once it has lost its connection.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    /// After the record has said that all is over.
    pub(super) fn end(self) {
        // It may have no connection, and sees when it tries for one that all is over.
        let _ = match &*self.requests {
            Requests::V311(client) => client.try_disconnect().is_ok(),
            Requests::V5(client) => client.try_disconnect().is_ok(),
        };
        self.thread.join().expect("a client ends");
    }
}

fn connect(version: Version, node: SocketAddr, id: &str) -> (Requests, Events) {
    let (host, port) = (node.ip().to_string(), node.port());
    match version {
        Version::V311 => {
            let mut options = rumqttc::MqttOptions::new(id, host, port);
            options.set_clean_session(false).set_keep_alive(KEEP_ALIVE).set_inflight(IN_FLIGHT_MAX);
            let (client, connection) = rumqttc::Client::new(options, REQUESTS);
            (Requests::V311(client), Events::V311(Box::new(connection)))
        }
        Version::V5 => {
            let mut options = v5::MqttOptions::new(id, host, port);
            options.set_clean_start(false).set_keep_alive(KEEP_ALIVE).set_session_expiry_interval(Some(3_600));
            let (client, connection) = v5::Client::new(options, REQUESTS);
            (Requests::V5(client), Events::V5(Box::new(connection)))
        }
    }
}

/// What a publisher has under way.
struct Publishing {
    stream: Stream,
    next: u32,
    /// Handed to rumqttc, which has not said yet under which identifier it sends them.
    waiting: VecDeque<Mark>,
    /// Under their identifiers, and whether the broker has them.
    sent: HashMap<u16, (Mark, bool)>,
    progress: Instant,
}

impl Publishing {
    fn new(stream: Stream) -> Self {
        Self { stream, next: 0, waiting: VecDeque::new(), sent: HashMap::new(), progress: Instant::now() }
    }

    fn fill(&mut self, requests: &Requests, record: &Record) {
        while self.waiting.len() + self.sent.len() < self.stream.window as usize && !record.is_publishing_over() {
            let mark = Mark { stream: self.stream.number, seq: self.next };
            self.next += 1;
            record.published(mark);
            self.waiting.push_back(mark);
            requests.publish(&self.stream.topic(), self.stream.qos, mark.payload(32));
        }
    }

    fn sent(&mut self, id: u16, record: &Record) {
        match self.sent.get(&id) {
            Some(&(mark, _)) => record.sent_again(mark, self.stream.qos),
            None => {
                let mark = self.waiting.pop_front().expect("rumqttc sends what it was given");
                self.sent.insert(id, (mark, false));
            }
        }
    }

    fn answered(&mut self, id: u16, is_success: bool, is_last: bool, record: &Record) {
        self.progress = Instant::now();
        let Some((mark, is_taken)) = self.sent.get_mut(&id) else { return };
        if !std::mem::replace(is_taken, true) {
            record.answered(*mark, is_success);
        }
        if is_last {
            self.sent.remove(&id);
        }
    }

    fn has_waited_too_long(&self) -> bool {
        !self.sent.is_empty() && self.progress.elapsed() > UNANSWERED
    }
}

/// A client as its thread has it.
struct Running {
    id: String,
    part: Part,
    publishing: Option<Publishing>,
    /// The connection's number, of a subscriber.
    conn: Option<u32>,
    is_new: bool,
    requests: Arc<Requests>,
    is_superseded: Arc<AtomicBool>,
    record: Arc<Record>,
}

impl Running {
    fn run(mut self, mut events: Events) {
        loop {
            match events.next() {
                Ok(Happened::Disconnecting) => return,
                Ok(happened) => self.handle(happened),
                Err(()) => {
                    self.record.disconnected();
                    if self.record.is_all_over() || self.is_superseded.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(BEFORE_RECONNECT);
                }
            }
            if self.publishing.as_ref().is_some_and(Publishing::has_waited_too_long) {
                self.publishing.iter_mut().for_each(|publishing| publishing.progress = Instant::now());
                events.reconnect();
            }
        }
    }

    fn handle(&mut self, happened: Happened) {
        match (happened, &mut self.publishing) {
            (Happened::Connected { session_present }, _) => self.connected(session_present),
            (Happened::Sent { id }, Some(publishing)) => publishing.sent(id, &self.record),
            (Happened::Answered { id, is_success, is_last }, Some(publishing)) => {
                publishing.answered(id, is_success, is_last, &self.record);
                self.go_on();
            }
            (Happened::Completed { id }, Some(publishing)) => {
                publishing.answered(id, true, true, &self.record);
                self.go_on();
            }
            (Happened::Subscribed, _) => {
                if let Part::Subscriber { audience } = self.part {
                    self.record.subscribed_by(audience);
                }
            }
            (Happened::Message { payload, dup }, _) => {
                if let (Part::Subscriber { audience }, Some(conn)) = (self.part, self.conn) {
                    self.record.received(Heard { audience, conn, dup }, &payload);
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, session_present: bool) {
        let is_new = std::mem::replace(&mut self.is_new, false);
        match self.part {
            Part::Publisher { .. } => {
                if !is_new && !session_present {
                    self.record.fault(format!("the session of {} is gone", self.id));
                }
                self.go_on();
            }
            Part::Subscriber { audience } => {
                self.conn = Some(self.record.connected(audience, session_present));
                if !session_present {
                    self.requests.subscribe("foreign/#");
                }
            }
        }
    }

    fn go_on(&mut self) {
        if let Some(publishing) = &mut self.publishing {
            std::thread::sleep(PACE);
            publishing.fill(&self.requests, &self.record);
        }
    }
}

impl Requests {
    fn publish(&self, topic: &str, qos: u8, payload: Vec<u8>) {
        let is_queued = match self {
            Self::V311(client) => {
                client.try_publish(topic, mqttbytes::qos(qos).expect("0 to 2"), false, payload).is_ok()
            }
            Self::V5(client) => {
                client.try_publish(topic, v5::mqttbytes::qos(qos).expect("0 to 2"), false, payload).is_ok()
            }
        };
        assert!(is_queued, "there is room for a whole window");
    }

    /// At QoS 1.
    fn subscribe(&self, filter: &str) {
        let is_queued = match self {
            Self::V311(client) => client.try_subscribe(filter, rumqttc::QoS::AtLeastOnce).is_ok(),
            Self::V5(client) => client.try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).is_ok(),
        };
        assert!(is_queued, "there is room");
    }
}

impl Events {
    /// What happens next; an error is the end of a connection, or of an attempt to have one.
    fn next(&mut self) -> Result<Happened, ()> {
        match self {
            Self::V311(connection) => match connection.recv() {
                Ok(Ok(event)) => Ok(happened_v311(event)),
                _ => Err(()),
            },
            Self::V5(connection) => match connection.recv() {
                Ok(Ok(event)) => Ok(happened_v5(event)),
                _ => Err(()),
            },
        }
    }

    fn reconnect(&mut self) {
        match self {
            Self::V311(connection) => connection.eventloop.clean(),
            Self::V5(connection) => connection.eventloop.clean(),
        }
    }
}

fn happened_v311(event: rumqttc::Event) -> Happened {
    use rumqttc::{Event, Outgoing, Packet};
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Happened::Sent { id },
        Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnecting,
        Event::Incoming(Packet::ConnAck(ack)) => Happened::Connected { session_present: ack.session_present },
        Event::Incoming(Packet::SubAck(_)) => Happened::Subscribed,
        Event::Incoming(Packet::PubAck(ack)) => Happened::Answered { id: ack.pkid, is_success: true, is_last: true },
        Event::Incoming(Packet::PubRec(ack)) => Happened::Answered { id: ack.pkid, is_success: true, is_last: false },
        Event::Incoming(Packet::PubComp(ack)) => Happened::Completed { id: ack.pkid },
        Event::Incoming(Packet::Publish(publish)) => {
            Happened::Message { payload: publish.payload.to_vec(), dup: publish.dup }
        }
        _ => Happened::Nothing,
    }
}

fn happened_v5(event: v5::Event) -> Happened {
    use rumqttc::Outgoing;
    use v5::Event;
    use v5::mqttbytes::v5::{Packet, PubAckReason, PubRecReason};
    match event {
        Event::Outgoing(Outgoing::Publish(id)) => Happened::Sent { id },
        Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnecting,
        Event::Incoming(Packet::ConnAck(ack)) => Happened::Connected { session_present: ack.session_present },
        Event::Incoming(Packet::SubAck(_)) => Happened::Subscribed,
        Event::Incoming(Packet::PubAck(ack)) => {
            let is_success = matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
            Happened::Answered { id: ack.pkid, is_success, is_last: true }
        }
        Event::Incoming(Packet::PubRec(ack)) => {
            let is_success = matches!(ack.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
            Happened::Answered { id: ack.pkid, is_success, is_last: !is_success }
        }
        Event::Incoming(Packet::PubComp(ack)) => Happened::Completed { id: ack.pkid },
        Event::Incoming(Packet::Publish(publish)) => {
            Happened::Message { payload: publish.payload.to_vec(), dup: publish.dup }
        }
        _ => Happened::Nothing,
    }
}
