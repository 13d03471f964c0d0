//! Clients that publish: each message waits for its acknowledgement, and what was not acknowledged when a connection ends is published again on the next one, in
//! order and before anything new. Some have a session, and publish a part of their messages with QoS 2, under few packet identifiers, which are used again as
//! soon as they are free. Not all say of what they repeat that they do (DUP). Some are of MQTT 3.1.1, which is not told of a failure; they have patience, then connect again.

use super::cluster::{ClientKey, Event, Simulation};
use super::connections::client;
use super::talk::{ConnId, Mark, TOPICS, ToClient, ToServer};
use crate::options::{around, pick};
use crate::queue::Moment;
use bifro_core::client::{Client, Version};
use bifro_core::rng::Prng;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// It waits no longer for an answer to what it publishes, or for its session.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECTING: Duration = Duration::from_secs(8);
/// Packet identifiers it has for QoS 2: what a range still remembers of one would be noticed.
const PACKET_IDS: std::ops::RangeInclusive<u16> = 1..=4;

/// What it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Away,
    Connecting(ConnId, Moment),
    Live(ConnId),
}

/// A message that was not acknowledged.
#[derive(Debug)]
struct Sent {
    mark: Mark,
    /// When it was published last.
    at: Moment,
    /// Of QoS 2.
    packet_id: Option<u16>,
}

impl Sent {
    fn packet(&self, is_repeated: bool) -> ToServer {
        let mark = self.mark;
        self.packet_id.map_or(ToServer::Publish(mark), |packet_id| ToServer::PublishOnce {
            mark,
            packet_id,
            is_repeated,
        })
    }
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    /// Whose session it has, if it has one.
    session: Option<Client>,
    /// It had it before.
    was_accepted: bool,
    sets_dup: bool,
    phase: Phase,
    next: [u32; TOPICS.len()],
    /// In the order in which they were published first.
    unacknowledged: VecDeque<Sent>,
    /// Packet identifiers that wait for PUBCOMP, and since when.
    releasing: BTreeMap<u16, Moment>,
}

impl Publisher {
    pub(crate) fn drawn(index: usize, rng: &mut Prng) -> Self {
        let version = pick(rng, &[None, Some(Version::V311), Some(Version::V5)]);
        let session = version.map(|version| client(format!("publisher with session {index}"), version));
        Self { session, sets_dup: rng.below(2) == 0, ..Self::default() }
    }

    /// What it waits for.
    pub(crate) fn waits_for(&self) -> impl Iterator<Item = Mark> {
        self.unacknowledged.iter().map(|sent| sent.mark)
    }

    /// Whether everything it has said was answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty() && self.releasing.is_empty()
    }

    fn is_out_of_patience(&self, now: Moment) -> bool {
        let sent = self.unacknowledged.front().map(|sent| sent.at);
        sent.into_iter().chain(self.releasing.values().copied()).any(|at| now.since(at) > PATIENCE)
    }

    fn free_packet_id(&self) -> Option<u16> {
        let is_used = |id: &u16| {
            self.releasing.contains_key(id) || self.unacknowledged.iter().any(|sent| sent.packet_id == Some(*id))
        };
        PACKET_IDS.into_iter().find(|id| !is_used(id))
    }

    /// Takes what was acknowledged out of what waits.
    fn take(&mut self, is_it: impl Fn(&Sent) -> bool) -> Option<Mark> {
        let at = self.unacknowledged.iter().position(is_it)?;
        self.unacknowledged.remove(at).map(|sent| sent.mark)
    }
}

impl Simulation {
    /// It publishes, or comes back.
    pub(super) fn publisher_acts(&mut self, index: usize) {
        let (now, delay) = (self.world.queue.now(), around(&mut self.world.rng, self.world.settings.pace));
        self.world.queue.after(delay, Event::Publisher { index });
        let conn = match self.publishers[index].phase {
            Phase::Away => return self.connect_publisher(index),
            Phase::Connecting(conn, since) if now.since(since) > CONNECTING => {
                return self.publisher_leaves(index, conn);
            }
            Phase::Connecting(..) => return,
            Phase::Live(conn) => conn,
        };
        if self.publishers[index].is_out_of_patience(now) {
            return self.publisher_leaves(index, conn);
        }
        if !self.clients_begin {
            return;
        }
        match self.world.rng.below(200) {
            0 => return self.publisher_leaves(index, conn),
            1..=3 if self.publishers[index].session.is_some() => return self.publisher_leaves(index, conn),
            // The first connection stays: somebody has to end it.
            4..=5 if self.publishers[index].session.is_some() => return self.connect_publisher(index),
            _ => {}
        }
        if self.publishers[index].unacknowledged.len() < self.world.settings.window {
            self.publish_next(index, conn);
        }
    }

    fn publisher_leaves(&mut self, index: usize, conn: ConnId) {
        self.tell_server(conn, ToServer::Broken);
        self.publishers[index].phase = Phase::Away;
    }

    fn publish_next(&mut self, index: usize, conn: ConnId) {
        let topic = self.world.rng.below(TOPICS.len() as u64) as u32;
        let publisher = &self.publishers[index];
        let once = publisher.session.is_some() && self.world.rng.below(2) == 0;
        let packet_id = publisher.free_packet_id().filter(|_| once);
        if once && packet_id.is_none() {
            return;
        }
        let (now, publisher) = (self.world.queue.now(), &mut self.publishers[index]);
        let seq = publisher.next[topic as usize];
        publisher.next[topic as usize] += 1;
        let sent = Sent { mark: Mark { publisher: index as u32, topic, seq, once }, at: now, packet_id };
        self.checks.delivery.published(sent.mark, now);
        self.world.report.published += 1;
        self.world.report.published_once += u64::from(once);
        let packet = sent.packet(false);
        publisher.unacknowledged.push_back(sent);
        self.tell_server(conn, packet);
    }

    fn connect_publisher(&mut self, index: usize) {
        let Some(conn) = self.connect(ClientKey::Publisher(index)) else { return };
        let now = self.world.queue.now();
        match self.publishers[index].session.clone() {
            Some(client) => {
                self.publishers[index].phase = Phase::Connecting(conn, now);
                self.tell_server(conn, ToServer::Attach(client));
            }
            None => {
                self.tell_server(conn, ToServer::Open);
                self.publisher_goes_on(index, conn);
            }
        }
    }

    /// It is connected: it says again what was not answered.
    fn publisher_goes_on(&mut self, index: usize, conn: ConnId) {
        let (now, publisher) = (self.world.queue.now(), &mut self.publishers[index]);
        publisher.phase = Phase::Live(conn);
        publisher.unacknowledged.iter_mut().for_each(|sent| sent.at = now);
        publisher.releasing.values_mut().for_each(|at| *at = now);
        let released = publisher.releasing.keys().map(|&packet_id| ToServer::Release { packet_id });
        let again = publisher.unacknowledged.iter().map(|sent| sent.packet(publisher.sets_dup));
        let packets: Vec<ToServer> = released.chain(again).collect();
        self.world.report.published_again += publisher.unacknowledged.len() as u64;
        packets.into_iter().for_each(|packet| self.tell_server(conn, packet));
    }

    /// It hears something.
    pub(super) fn publisher_hears(&mut self, index: usize, conn: ConnId, what: &ToClient) {
        let publisher = &mut self.publishers[index];
        let is_current = matches!(publisher.phase, Phase::Connecting(of, _) | Phase::Live(of) if of == conn);
        if !is_current {
            return;
        }
        match *what {
            ToClient::Closed => publisher.phase = Phase::Away,
            ToClient::Accepted { present, .. } => {
                assert!(present || !publisher.was_accepted, "the session of publisher {index} is gone, on {conn:?}");
                publisher.was_accepted = true;
                self.publisher_goes_on(index, conn);
            }
            ToClient::Published(mark, taken) => {
                let waited = publisher.take(|sent| sent.mark == mark);
                assert!(waited.is_some(), "{mark:?} is acknowledged twice");
                self.publish_answered(mark, taken);
            }
            ToClient::Received { packet_id, taken } => {
                let mark = publisher.take(|sent| sent.packet_id == Some(packet_id));
                let mark = mark.unwrap_or_else(|| panic!("nothing waits under {packet_id} on {conn:?}"));
                self.publish_answered(mark, taken);
                if taken {
                    let now = self.world.queue.now();
                    self.publishers[index].releasing.insert(packet_id, now);
                    self.tell_server(conn, ToServer::Release { packet_id });
                }
            }
            ToClient::Completed { packet_id } => {
                let waited = publisher.releasing.remove(&packet_id);
                assert!(waited.is_some(), "{packet_id} is free twice, on {conn:?}");
            }
            _ => {}
        }
    }

    fn publish_answered(&mut self, mark: Mark, taken: bool) {
        if taken {
            self.world.report.acknowledged += 1;
            return self.checks.delivery.acknowledged(mark);
        }
        self.world.report.refused += 1;
        let at = self.checks.delivery.published_at(mark);
        let since = self.seen.led_since.filter(|since| at > Some(*since));
        assert!(since.is_none(), "{mark:?}, published at {at:?}, is refused, and all is well since {since:?}");
        self.checks.delivery.refused(mark);
    }
}
