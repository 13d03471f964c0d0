//! Clients with persistent sessions: they subscribe, receive and acknowledge, go and come back elsewhere, and at times connect a second time while the
//! first connection is still there.

use super::cluster::{Event, Simulation};
use super::connections::client;
use super::invariants::groups::Member;
use super::talk::{ConnId, GROUPS_FROM, Mark, ToClient, ToServer};
use crate::options::{around, within};
use crate::queue::Moment;
use bifro_core::client::{Client, Version};
use bifro_core::ids::InboxSeq;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// It waits no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// A lazy acknowledgement takes up to this.
const LAZY: Duration = Duration::from_secs(3);

/// What it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Connecting(ConnId, Moment),
    Live(ConnId),
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Subscriber {
    client: Client,
    /// If it is a member of a group and nothing else: its filter.
    group: Option<usize>,
    phase: Phase,
    /// What it has asked for, and when.
    asked: BTreeMap<usize, Moment>,
    /// What it was told that it has.
    filters: BTreeSet<usize>,
    /// It had a session.
    was_accepted: bool,
}

impl Subscriber {
    pub(crate) fn new(index: usize, group: Option<usize>) -> Self {
        let client = client(format!("subscriber {index}"), Version::V5);
        let (asked, filters) = Default::default();
        Self { client, group, phase: Phase::Away, asked, filters, was_accepted: false }
    }

    pub(crate) const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }
}

impl Simulation {
    /// It does the next thing.
    pub(super) fn subscriber_acts(&mut self, index: usize) {
        let (now, delay) = (self.world.queue.now(), around(&mut self.world.rng, self.world.settings.subscriber_pace));
        self.world.queue.after(delay, Event::Subscriber { index });
        match self.subscribers[index].phase {
            Phase::Away => self.connect_subscriber(index),
            Phase::Connecting(conn, since) if now.since(since) > PATIENCE => self.abandon(index, conn),
            Phase::Connecting(..) => {}
            Phase::Live(conn) => {
                let waits = self.subscribers[index].asked.values().any(|since| now.since(*since) > PATIENCE);
                if waits {
                    return self.abandon(index, conn);
                }
                if self.clients_begin {
                    self.live_subscriber_acts(index, conn);
                }
            }
        }
    }

    fn live_subscriber_acts(&mut self, index: usize, conn: ConnId) {
        let (filter, group) = (self.world.rng.below(GROUPS_FROM as u64) as usize, self.subscribers[index].group);
        let filter = group.unwrap_or(filter);
        match self.world.rng.below(100) {
            0..=24 if !self.subscribers[index].asked.contains_key(&filter) => {
                self.ask(index, conn, filter, ToServer::Subscribe(filter));
            }
            25..=31 if group.is_none() && !self.subscribers[index].asked.contains_key(&filter) => {
                self.subscribers[index].filters.remove(&filter);
                self.checks.delivery.unsubscribes(index, filter);
                self.ask(index, conn, filter, ToServer::Unsubscribe(filter));
            }
            32..=39 => self.abandon(index, conn),
            // The first connection stays: somebody has to end it.
            40..=43 => self.connect_subscriber(index),
            44..=47 => {
                self.tell_server(conn, ToServer::Disconnect);
                self.leaves(index);
            }
            _ => {}
        }
    }

    fn ask(&mut self, index: usize, conn: ConnId, filter: usize, what: ToServer) {
        let now = self.world.queue.now();
        self.subscribers[index].asked.insert(filter, now);
        self.world.report.subscriptions += 1;
        self.tell_server(conn, what);
    }

    /// It gives the connection up.
    fn abandon(&mut self, index: usize, conn: ConnId) {
        self.tell_server(conn, ToServer::Broken);
        self.leaves(index);
    }

    fn leaves(&mut self, index: usize) {
        let subscriber = &mut self.subscribers[index];
        subscriber.phase = Phase::Away;
        subscriber.asked.clear();
    }

    fn connect_subscriber(&mut self, index: usize) {
        let client = self.subscribers[index].client.clone();
        let Some(conn) = self.connect(super::cluster::ClientKey::Subscriber(index)) else { return };
        self.leaves(index);
        self.subscribers[index].phase = Phase::Connecting(conn, self.world.queue.now());
        self.world.report.connects += 1;
        self.tell_server(conn, ToServer::Attach(client));
    }

    /// It hears something over one of its connections.
    pub(super) fn subscriber_hears(&mut self, index: usize, conn: ConnId, what: ToClient) {
        let now = self.world.queue.now();
        let phase = self.subscribers[index].phase;
        let is_current = matches!(phase, Phase::Connecting(of, _) | Phase::Live(of) if of == conn);
        match what {
            ToClient::Accepted { present, filters } => {
                self.checks.owners.connected(index, conn, now);
                if is_current {
                    self.subscriber_is_accepted(index, conn, present, &filters);
                }
            }
            ToClient::Message { mark, seq } => {
                self.checks.owners.served(index, conn, self.checks.delivery.published_at(mark));
                self.session_has(index, mark, seq);
                if let Some(seq) = seq {
                    self.acknowledges_later(conn, seq);
                }
            }
            ToClient::Subscribed(filter, granted) if is_current => {
                let asked = self.subscribers[index].asked.remove(&filter);
                if granted {
                    self.checks.owners.served(index, conn, asked);
                    self.subscribers[index].filters.insert(filter);
                    match self.subscribers[index].group {
                        Some(group) => self.checks.delivery.groups.joined(group, now),
                        None => self.checks.delivery.subscribed(index, filter, now),
                    }
                }
            }
            ToClient::Unsubscribed(filter) if is_current => {
                self.subscribers[index].asked.remove(&filter);
            }
            ToClient::Closed if is_current => self.leaves(index),
            _ => {}
        }
    }

    fn session_has(&mut self, index: usize, mark: Mark, seq: Option<InboxSeq>) {
        let Some(group) = self.subscribers[index].group else {
            self.world.report.received += 1;
            return self.checks.delivery.received(index, mark, seq);
        };
        self.world.report.shared += 1;
        let member = Member::Session(index, seq.expect("QoS 1 and 2 have a place"));
        self.checks.delivery.groups.got(group, mark, member);
    }

    fn subscriber_is_accepted(&mut self, index: usize, conn: ConnId, present: bool, found: &[usize]) {
        let subscriber = &mut self.subscribers[index];
        assert!(present || !subscriber.was_accepted, "the session of subscriber {index} is gone, on {conn:?}");
        let missing: Vec<_> = subscriber.filters.iter().filter(|filter| !found.contains(filter)).collect();
        assert!(missing.is_empty(), "subscriber {index} has lost its subscriptions {missing:?}, on {conn:?}");
        (subscriber.phase, subscriber.was_accepted) = (Phase::Live(conn), true);
    }

    fn acknowledges_later(&mut self, conn: ConnId, seq: InboxSeq) {
        let rng = &mut self.world.rng;
        let delay = if rng.below(20) == 0 { within(rng, LAZY) } else { within(rng, Duration::from_millis(5)) };
        self.world.queue.after(delay, Event::Acknowledge { conn, seq });
    }
}
