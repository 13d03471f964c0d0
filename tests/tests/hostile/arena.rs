//! A broker with a bystander: someone who uses it as one should while somebody else does not.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::{Broker, Client, PATIENCE};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// All protocol versions.
pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Time between two messages of the bystander, so that it leaves the cores to the others.
const PACE: Duration = Duration::from_millis(5);

/// A running broker that is about to be mistreated.
pub(crate) struct Arena {
    /// The broker.
    pub(crate) broker: Broker,
    bystander: Bystander,
    resident_before: u64,
}

impl Arena {
    /// Two shards, one TCP listener for anonymous clients.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with more configuration.
    pub(crate) fn with(extra: &str) -> Self {
        Self::around(Broker::start(2, extra))
    }

    /// Any broker whose first TCP listener admits anonymous clients to `bystander/#`.
    pub(crate) fn around(broker: Broker) -> Self {
        let mut bystander = Bystander::start(broker.tcp());
        bystander.wait_for_rounds();
        let resident_before = broker.resident_bytes();
        Self { broker, bystander, resident_before }
    }

    /// Address of the TCP listener.
    pub(crate) fn tcp(&self) -> SocketAddr {
        self.broker.tcp()
    }

    /// A client that is connected.
    pub(crate) fn client(&self, version: Version, client_id: &str) -> Client {
        Client::connect(self.tcp(), version, client_id)
    }

    /// The node is up, and the bystander's messages go round now.
    pub(crate) fn check(&mut self) {
        self.broker.assert_alive();
        self.bystander.wait_for_rounds();
    }

    /// The node is up, has grown by less than `growth_max` bytes, and the bystander has noticed nothing to the end.
    pub(crate) fn finish(mut self, growth_max: u64) {
        self.check();
        let growth = self.growth();
        assert!(growth < growth_max, "the node has grown by {growth} bytes, {growth_max} are allowed");
        self.bystander.stop();
        self.broker.assert_alive();
    }

    /// By how many bytes the node has grown since the arena was made.
    pub(crate) fn growth(&self) -> u64 {
        self.broker.resident_bytes().saturating_sub(self.resident_before)
    }

    /// Waits until all connections but the bystander's are gone.
    pub(crate) fn wait_until_left(&self) {
        self.broker.wait_for_metric("bifro_connections", |open| open <= 2.0);
    }
}

/// Publishes and receives, one message after the other, on two connections of its own.
struct Bystander {
    rounds: Arc<(Mutex<u64>, Condvar)>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    fn start(address: SocketAddr) -> Self {
        let rounds = Arc::new((Mutex::new(0), Condvar::new()));
        let (stop, stopped) = channel();
        let counter = rounds.clone();
        let thread = std::thread::spawn(move || go_round(address, &counter, &stopped));
        Self { rounds, stop: Some(stop), thread: Some(thread) }
    }

    /// Waits until a round that began after the call is over.
    fn wait_for_rounds(&mut self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        let (count, grown) = &*self.rounds;
        let mut rounds = count.lock().expect("held only to count");
        let wanted = *rounds + 2;
        while *rounds < wanted {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended && Instant::now() < deadline, "the bystander's messages do not go round any more");
            rounds = grown.wait_timeout(rounds, PACE).expect("held only to count").0;
        }
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the bystander noticed something");
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn go_round(address: SocketAddr, rounds: &(Mutex<u64>, Condvar), stopped: &Receiver<()>) {
    let topic = "bystander/round";
    let mut subscriber = Client::connect(address, Version::V5, "bystander-subscriber");
    assert_eq!(subscriber.subscribe("bystander/#", QoS::AtLeastOnce), 1);
    let mut publisher = Client::connect(address, Version::V311, "bystander-publisher");
    let mut round = 0_u64;
    while matches!(stopped.recv_timeout(PACE), Err(RecvTimeoutError::Timeout)) {
        round += 1;
        assert!(!publisher.publish_acked(topic, &round.to_be_bytes()).is_error());
        let received = subscriber.recv_publish();
        let Packet::Publish(publish) = received.packet() else { unreachable!("recv_publish has looked") };
        assert_eq!((publish.topic, publish.payload), (topic, &round.to_be_bytes()[..]), "not the bystander's message");
        *rounds.0.lock().expect("held only to count") = round;
        rounds.1.notify_all();
    }
}

/// Asserts that a CONNECT was refused: with `reason` (5.0) or `return_code` (3.x), or, where neither is given, by closing.
pub(crate) fn expect_refused(client: &mut Client, reason: Option<bifro_mqtt::reason::Reason>) {
    if let Some(reason) = reason {
        let received = client.recv();
        let Packet::ConnAck(connack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
        let expected = if client.version == Version::V5 { reason.0 } else { reason.to_v3_connack() };
        assert_eq!(connack.reason.0, expected, "{received:?}");
        assert!(!connack.session_present);
    }
    client.expect_closed();
}
