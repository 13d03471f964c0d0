//! Clients without a session: they listen to one filter on a node for a while, and then on another. Nothing is kept for them while they are away; while they are
//! there, a message of QoS 2 comes once.

use super::cluster::{ClientKey, Event, Simulation};
use super::invariants::groups::Member;
use super::talk::{ConnId, GROUPS_FROM, MIXED, ToClient, ToServer};
use crate::options::around;
use crate::queue::Moment;
use std::time::Duration;

/// Between two things that one does, on average.
const PACE: Duration = Duration::from_millis(900);
/// It waits no longer for SUBACK.
const PATIENCE: Duration = Duration::from_secs(8);

/// What one is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Listener {
    #[default]
    Away,
    /// It waits for SUBACK.
    Asking(ConnId, Moment, usize),
    Listening(ConnId, usize),
}

impl Listener {
    const fn conn(self) -> Option<ConnId> {
        match self {
            Self::Away => None,
            Self::Asking(conn, ..) | Self::Listening(conn, _) => Some(conn),
        }
    }

    /// What it listens to, or wants to.
    const fn filter(self) -> Option<usize> {
        match self {
            Self::Away => None,
            Self::Asking(.., filter) | Self::Listening(_, filter) => Some(filter),
        }
    }
}

impl Simulation {
    /// One does the next thing.
    pub(super) fn listener_acts(&mut self, index: usize) {
        let (now, delay) = (self.world.queue.now(), around(&mut self.world.rng, PACE));
        self.world.queue.after(delay, Event::Listener { index });
        match self.listeners[index] {
            Listener::Away => self.connect_listener(index),
            Listener::Asking(conn, since, _) if now.since(since) > PATIENCE => self.listener_leaves(index, conn),
            Listener::Listening(conn, _) if self.clients_begin && self.world.rng.below(30) == 0 => {
                self.listener_leaves(index, conn);
            }
            Listener::Asking(..) | Listener::Listening(..) => {}
        }
    }

    fn connect_listener(&mut self, index: usize) {
        let Some(conn) = self.connect(ClientKey::Listener(index)) else { return };
        let filter = match self.world.rng.below(3) {
            0 => MIXED,
            _ => self.world.rng.below(GROUPS_FROM as u64) as usize,
        };
        self.listeners[index] = Listener::Asking(conn, self.world.queue.now(), filter);
        self.tell_server(conn, ToServer::Open);
        self.tell_server(conn, ToServer::Listen(filter));
    }

    fn listener_leaves(&mut self, index: usize, conn: ConnId) {
        self.tell_server(conn, ToServer::Broken);
        self.checks.delivery.stops_listening(conn);
        self.listeners[index] = Listener::Away;
    }

    /// One hears something.
    pub(super) fn listener_hears(&mut self, index: usize, conn: ConnId, what: &ToClient) {
        if self.listeners[index].conn() != Some(conn) {
            return;
        }
        match *what {
            ToClient::Subscribed(filter, true) => {
                self.listeners[index] = Listener::Listening(conn, filter);
                if filter != MIXED {
                    self.checks.delivery.listens(conn, filter, self.world.queue.now());
                }
            }
            ToClient::Subscribed(_, false) => self.listener_leaves(index, conn),
            ToClient::Message { mark, .. } => {
                self.world.report.heard += 1;
                self.checks.delivery.heard(conn, mark);
                if self.listeners[index].filter() == Some(MIXED) {
                    self.checks.delivery.groups.got(MIXED, mark, Member::Conn(conn));
                }
            }
            ToClient::Closed => {
                self.checks.delivery.stops_listening(conn);
                self.listeners[index] = Listener::Away;
            }
            _ => {}
        }
    }
}
