//! Clients without a session: they listen to one filter on a node for a while, and then on another. Nothing is kept for them while they are away; while they are
//! there, a message of QoS 2 comes once.

use super::cluster::{ClientKey, Event, Simulation};
use super::talk::{ConnId, FILTERS, ToClient, ToServer};
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
    Asking(ConnId, Moment),
    Listening(ConnId),
}

impl Listener {
    const fn conn(self) -> Option<ConnId> {
        match self {
            Self::Away => None,
            Self::Asking(conn, _) | Self::Listening(conn) => Some(conn),
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
            Listener::Asking(conn, since) if now.since(since) > PATIENCE => self.listener_leaves(index, conn),
            Listener::Listening(conn) if self.clients_begin && self.world.rng.below(30) == 0 => {
                self.listener_leaves(index, conn);
            }
            Listener::Asking(..) | Listener::Listening(_) => {}
        }
    }

    fn connect_listener(&mut self, index: usize) {
        let Some(conn) = self.connect(ClientKey::Listener(index)) else { return };
        let filter = self.world.rng.below(FILTERS.len() as u64) as usize;
        self.listeners[index] = Listener::Asking(conn, self.world.queue.now());
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
                self.listeners[index] = Listener::Listening(conn);
                self.checks.delivery.listens(conn, filter, self.world.queue.now());
            }
            ToClient::Subscribed(_, false) => self.listener_leaves(index, conn),
            ToClient::Message { mark, .. } => {
                self.world.report.heard += 1;
                self.checks.delivery.heard(conn, mark);
            }
            ToClient::Closed => {
                self.checks.delivery.stops_listening(conn);
                self.listeners[index] = Listener::Away;
            }
            _ => {}
        }
    }
}
