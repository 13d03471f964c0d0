//! Pairs of clients that publish to each other without a break, over TCP and TLS, in every version of the protocol. Each
//! message is numbered and acknowledged, so that a lost one, one out of order and a dropped connection all show.

use super::site::Site;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::AckKind;
use bifro_tests::tls::dial;
use bifro_tests::{Client, ConnectOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the last message of each client says.
const END: u64 = u64::MAX;

/// How long a client thinks between two messages; without that, two cores would be busy with the clients alone.
const PACE: Duration = Duration::from_millis(40);

/// One client in this many uses TLS.
const TLS_SHARE: usize = 8;

pub(super) struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<[AtomicU64]>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts an even number of clients; they are subscribed when this returns.
    pub(super) fn start(site: &Site, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rounds: Arc<[AtomicU64]> = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let connected: Vec<Client> = (0..clients).map(|index| connect(site, index)).collect();
        let threads = connected.into_iter().enumerate().map(|(index, client)| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            let talk = move || Talker { client, index, received: 0 }.talk(&stop, &rounds[index]);
            let builder = std::thread::Builder::new().name(format!("load {index}")).stack_size(256 << 10);
            builder.spawn(talk).expect("a thread")
        });
        let threads = threads.collect();
        let load = Self { stop, rounds, threads };
        load.advance();
        load
    }

    /// Waits until each client has sent another message and heard that it arrived.
    pub(super) fn advance(&self) {
        let before: Vec<u64> = self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect();
        let deadline = Instant::now() + 2 * bifro_tests::PATIENCE;
        for (index, (rounds, before)) in self.rounds.iter().zip(before).enumerate() {
            // The round that was under way when the count was taken does not count.
            while rounds.load(Ordering::Relaxed) < before + 2 {
                assert!(!self.threads[index].is_finished(), "client {index} has lost its connection");
                assert!(Instant::now() < deadline, "client {index} stands still");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Ends all clients, asserts that each has received all that was sent to it, and returns the number of messages.
    pub(super) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for (index, thread) in self.threads.into_iter().enumerate() {
            assert!(thread.join().is_ok(), "client {index} failed");
        }
        self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).sum()
    }
}

fn connect(site: &Site, index: usize) -> Client {
    let version = [Version::V31, Version::V311, Version::V5][index % 3];
    let mut client = if index.is_multiple_of(TLS_SHARE) {
        let stream = dial(site.broker.address("tls"), &site.trust).expect("a trusted certificate");
        Client::over(Box::new(stream), version)
    } else {
        Client::open(site.broker.tcp(), version)
    };
    let options = ConnectOptions {
        credentials: Some(("load".to_owned(), "load-password".to_owned())),
        ..ConnectOptions::new(version, &format!("load-{index}"))
    };
    client.login(&options).unwrap_or_else(|reason| panic!("client {index} is refused: {reason}"));
    assert_eq!(client.subscribe(&format!("load/{index}"), QoS::AtLeastOnce), 1);
    client
}

struct Talker {
    client: Client,
    index: usize,
    /// Number of the last message that has come.
    received: u64,
}

impl Talker {
    fn talk(mut self, stop: &AtomicBool, rounds: &AtomicU64) {
        let partner = format!("load/{}", self.index ^ 1);
        let mut number = 0;
        while number != END {
            number = if stop.load(Ordering::Relaxed) { END } else { number + 1 };
            let id = self.client.publish(&partner, &number.to_be_bytes(), QoS::AtLeastOnce, false);
            while self.handle_next() != id {}
            rounds.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
        while self.received != END {
            self.handle_next();
        }
        self.client.disconnect();
    }

    /// Handles the next packet; returns the id that it acknowledges, if that is what it does.
    fn handle_next(&mut self) -> Option<bifro_mqtt::packet::PacketId> {
        let received = self.client.recv();
        match received.packet() {
            Packet::PubAck(ack) => {
                assert_eq!(ack.reason, Reason::SUCCESS);
                Some(ack.packet_id)
            }
            Packet::Publish(publish) => {
                let number = u64::from_be_bytes(publish.payload.try_into().expect("eight bytes"));
                assert!(number == self.received + 1 || number == END, "{number} after {}", self.received);
                self.received = number;
                self.client.ack(AckKind::PubAck, publish.packet_id.expect("QoS 1 has one"));
                None
            }
            _ => panic!("unexpected: {received:?}"),
        }
    }
}
