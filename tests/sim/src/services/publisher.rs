//! Clients that publish with QoS 1: each message waits for its acknowledgement, and what was not acknowledged when a connection ends is published again on
//! the next one, before anything new.

use super::cluster::{ClientKey, Event, Simulation};
use super::talk::{ConnId, Mark, TOPICS, ToClient, ToServer};
use crate::options::around;
use crate::queue::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// It waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    conn: Option<ConnId>,
    next: [u32; TOPICS.len()],
    /// In the order in which they were published first, and when they were last.
    unacknowledged: VecDeque<(Mark, Moment)>,
}

impl Publisher {
    /// What it waits for.
    pub(crate) fn waits_for(&self) -> impl Iterator<Item = Mark> {
        self.unacknowledged.iter().map(|(mark, _)| *mark)
    }
}

impl Simulation {
    /// It publishes, or comes back.
    pub(super) fn publisher_acts(&mut self, index: usize) {
        let (now, delay) = (self.world.queue.now(), around(&mut self.world.rng, self.world.settings.pace));
        self.world.queue.after(delay, Event::Publisher { index });
        let Some(conn) = self.publishers[index].conn else { return self.connect_publisher(index) };
        let waits = self.publishers[index].unacknowledged.front().is_some_and(|(_, at)| now.since(*at) > PATIENCE);
        if waits || (self.clients_begin && self.world.rng.below(200) == 0) {
            self.tell_server(conn, ToServer::Broken);
            self.publishers[index].conn = None;
            return;
        }
        if self.clients_begin && self.publishers[index].unacknowledged.len() < self.world.settings.window {
            self.publish_next(index, conn);
        }
    }

    fn publish_next(&mut self, index: usize, conn: ConnId) {
        let topic = self.world.rng.below(TOPICS.len() as u64) as u32;
        let (now, publisher) = (self.world.queue.now(), &mut self.publishers[index]);
        let seq = publisher.next[topic as usize];
        publisher.next[topic as usize] += 1;
        let mark = Mark { publisher: index as u32, topic, seq };
        publisher.unacknowledged.push_back((mark, now));
        self.checks.delivery.published(mark, now);
        self.world.report.published += 1;
        self.tell_server(conn, ToServer::Publish(mark));
    }

    fn connect_publisher(&mut self, index: usize) {
        let Some(conn) = self.connect(ClientKey::Publisher(index)) else { return };
        let now = self.world.queue.now();
        let publisher = &mut self.publishers[index];
        publisher.conn = Some(conn);
        publisher.unacknowledged.iter_mut().for_each(|(_, at)| *at = now);
        let again: Vec<Mark> = publisher.waits_for().collect();
        self.tell_server(conn, ToServer::Open);
        for mark in again {
            self.world.report.published_again += 1;
            self.tell_server(conn, ToServer::Publish(mark));
        }
    }

    /// It hears something.
    pub(super) fn publisher_hears(&mut self, index: usize, conn: ConnId, what: &ToClient) {
        let publisher = &mut self.publishers[index];
        if publisher.conn != Some(conn) {
            return;
        }
        match what {
            ToClient::Closed => publisher.conn = None,
            ToClient::Published(mark, taken) => {
                let before = publisher.unacknowledged.len();
                publisher.unacknowledged.retain(|(of, _)| of != mark);
                assert!(publisher.unacknowledged.len() < before, "{mark:?} is acknowledged twice");
                if *taken {
                    self.world.report.acknowledged += 1;
                    self.checks.delivery.acknowledged(*mark);
                } else {
                    self.world.report.refused += 1;
                    let at = self.checks.delivery.published_at(*mark);
                    let since = self.seen.led_since.filter(|since| at > Some(*since));
                    assert!(
                        since.is_none(),
                        "{mark:?}, published at {at:?}, is refused, and all is well since {since:?}"
                    );
                    self.checks.delivery.refused(*mark);
                }
            }
            _ => {}
        }
    }
}
