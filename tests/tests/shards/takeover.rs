//! Takeover storms: a hundred connections with one client id at the same time, clean and persistent, 3.1.1 and 5.0, from both
//! shards; one owner at every moment, one in the end.

use crate::{broker, expect_both_shards};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_core::rng::Prng;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_tests::history::{Event, History, Mark, check};
use bifro_tests::load::{Incoming, Sender, Swarm, for_each_seed};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const IDS: u32 = 4;
const CONNECTIONS: u32 = 100;

/// One connection of the storm.
#[derive(Debug, Default)]
struct Contender {
    id: u32,
    admitted: bool,
    /// When the pings without answer were sent.
    pings: VecDeque<usize>,
}

#[derive(Debug, Default)]
struct Storm {
    contenders: HashMap<usize, Contender>,
    history: History,
    /// When each message was published.
    published: Vec<usize>,
    faults: Vec<String>,
}

impl Storm {
    fn handle(&mut self, key: usize, sender: &mut Sender, incoming: Incoming<'_>) {
        let Incoming::Packet(packet) = incoming else {
            self.contenders.remove(&key);
            return;
        };
        let Some(contender) = self.contenders.get_mut(&key) else { return };
        let (id, conn) = (contender.id, key as u32);
        match packet {
            Packet::ConnAck(connack) if connack.reason.0 == 0 => {
                contender.admitted = true;
                self.history.push(Event::Connected { id, conn });
                sender.subscribe([(&*format!("owner/{id}"), QoS::AtLeastOnce)]);
            }
            Packet::PingResp => match contender.pings.pop_front() {
                Some(cause) => self.history.push(Event::Served { id, conn, cause }),
                None => self.faults.push(format!("{conn} got an answer it did not ask for")),
            },
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.packet_id {
                    sender.ack(AckKind::PubAck, packet_id);
                }
                match Mark::parse(publish.payload) {
                    Some(mark) if mark.stream == id => {
                        // A message of the session may have been published long before this connection; only those
                        // published since count as served to it.
                        let cause = self.published[mark.seq as usize];
                        self.history.push(Event::Served { id, conn, cause });
                    }
                    other => self.faults.push(format!("{conn} of {id} got a message for {other:?}")),
                }
            }
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::Disconnect(_) => {}
            other => self.faults.push(format!("{conn} got {other:?}")),
        }
    }
}

fn contender(id: u32, rng: &mut Prng) -> ConnectOptions {
    let version = if rng.below(2) == 0 { Version::V311 } else { Version::V5 };
    let mut options = ConnectOptions::new(version, &format!("storm-{id}"));
    options.clean = rng.below(2) == 0;
    if version == Version::V5 && rng.below(2) == 0 {
        PropertyWriter::new(&mut options.properties).u32(PropertyId::SessionExpiryInterval, 600);
    }
    options
}

/// [MQTT-3.1.4-2], [MQTT5-3.1.4-3]: the connection with the same client id is closed before the new one is admitted.
#[test]
fn a_storm_of_connections_with_one_id_has_one_owner_at_every_moment_and_one_in_the_end() {
    let mut broker = broker();
    for_each_seed(|seed| storm(&broker, seed));
    expect_both_shards(&broker);
    broker.assert_alive();
    assert!(broker.metric("bifro_takeovers_total") > 50.0, "there was a storm");
}

fn storm(broker: &Broker, seed: u64) {
    let mut rng = Prng::new(seed);
    let mut swarm = Swarm::new(broker.tcp());
    let mut storm = Storm::default();
    let mut publisher = Client::connect(broker.tcp(), Version::V5, "storm-publisher");
    let mut to_open: Vec<u32> = (0..IDS).flat_map(|id| [id; CONNECTIONS as usize]).collect();
    let deadline = Instant::now() + 6 * bifro_tests::PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "seed {seed:#x}: {} connections are left", swarm.len());
        // In waves, so that takeovers meet connections in every state.
        for _ in 0..rng.below(40) {
            let Some(id) = to_open.pop() else { break };
            let key = swarm.connect(&contender(id, &mut rng));
            storm.contenders.insert(key, Contender { id, ..Contender::default() });
        }
        let settled = to_open.is_empty()
            && storm.contenders.len() == IDS as usize
            && storm.contenders.values().all(|contender| contender.admitted);
        ask(&mut storm, &mut swarm, &mut publisher);
        let patience = Duration::from_millis(if settled { 200 } else { 2 });
        swarm.turn(patience, |key, sender, incoming| storm.handle(key, sender, incoming));
        let answered = storm.contenders.values().all(|contender| contender.pings.is_empty());
        if settled && answered && storm.contenders.len() == IDS as usize {
            break;
        }
    }
    assert!(storm.faults.is_empty(), "seed {seed:#x}: {:#?}", storm.faults);
    let violations = check(&storm.history, &[]);
    let violations: Vec<_> = violations.iter().collect();
    assert!(violations.is_empty(), "seed {seed:#x}: {violations:#?}");
    let mut owners: Vec<u32> = storm.contenders.values().map(|contender| contender.id).collect();
    owners.sort_unstable();
    assert_eq!(owners, (0..IDS).collect::<Vec<_>>(), "seed {seed:#x}: one connection is left for each id");
}

/// Asks every admitted connection for a sign of life, and sends each id a message.
fn ask(storm: &mut Storm, swarm: &mut Swarm, publisher: &mut Client) {
    for (&key, contender) in storm.contenders.iter_mut().filter(|(_, contender)| contender.admitted) {
        if contender.pings.len() < 4
            && let Some(sender) = swarm.sender(key)
        {
            contender.pings.push_back(storm.history.now());
            sender.packet(&Packet::PingReq);
        }
    }
    for id in 0..IDS {
        let mark = Mark { stream: id, seq: storm.published.len() as u32 };
        storm.published.push(storm.history.now());
        publisher.publish(&format!("owner/{id}"), &mark.payload(64), QoS::AtMostOnce, false);
    }
}
