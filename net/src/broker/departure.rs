//! Leaving an inbox: a session that ends while QoS 2 publishes of its client are being routed leaves only once their fate is
//! known.
//!
//! The client will repeat those publishes on its next connection. Had they been forgotten, the repetition would reach every
//! subscriber a second time [MQTT-4.3.3-2] [MQTT5-4.3.3-10]; had they been kept although routing failed, it would be
//! acknowledged and lost. The wait is bounded by the publish deadline, and the client id is given up after it: a new owner
//! finds the result.

use super::Broker;
use super::completion::Awaited;
use bifro_core::client::Client;
use bifro_core::ids::{ConnRef, RangeIdx, ReqId, Slot, TenantIdx};
use bifro_core::ports::{DetachState, InboxOwner, Services};
use bifro_mqtt::packet::PacketId;
use bifro_mqtt::session::{PublishToken, Published};
use hashbrown::HashMap;

/// A session on its way out. Its connection may be gone already.
#[derive(Debug)]
pub(super) struct Departure {
    conn: ConnRef,
    client: Client,
    tenant: TenantIdx,
    inbox: (RangeIdx, Slot),
    epoch: u64,
    state: DetachState,
    undecided: Vec<(PublishToken, PacketId)>,
}

/// Sessions on their way out.
#[derive(Debug, Default)]
pub(super) struct Departures {
    waiting: HashMap<Slot, Departure>,
    /// Publishes decided between the end of their session and its departure, which happen within one turn.
    early: Vec<(Slot, PublishToken, Published)>,
}

impl Departures {
    /// A turn begins: whoever ended before has departed.
    pub(super) fn begin_turn(&mut self) {
        self.early.clear();
    }
}

impl<S: Services> Broker<S> {
    /// A session leaves its inbox, now or as soon as its publishes are decided.
    pub(super) fn leave(&mut self, slot: Slot, state: DetachState, undecided: Vec<(PublishToken, PacketId)>) {
        let Some((client, tenant)) = self.identity(slot) else { return };
        let conn_ref = self.conn_ref(slot);
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let Some((inbox, epoch)) = conn.session.inbox() else { return };
        conn.leaving = true;
        let departure = Departure { conn: conn_ref, client, tenant, inbox, epoch, state, undecided };
        if departure.undecided.is_empty() {
            self.detach(departure);
            return;
        }
        self.departures.waiting.insert(slot, departure);
        let early = std::mem::take(&mut self.departures.early);
        for (_, token, outcome) in early.iter().filter(|(conn, ..)| *conn == slot) {
            self.departing_publish_decided(slot, *token, *outcome);
        }
        self.departures.early = early;
    }

    /// A publish of a connection has been taken over or has failed: a session that waited for it may leave now.
    pub(super) fn departing_publish_decided(&mut self, conn: Slot, token: PublishToken, outcome: Published) {
        let Some(departure) = self.departures.waiting.get_mut(&conn) else {
            if self.conns.get(conn).is_some_and(|conn| !conn.session.is_connected()) {
                self.departures.early.push((conn, token, outcome));
            }
            return;
        };
        let Some(at) = departure.undecided.iter().position(|&(undecided, _)| undecided == token) else { return };
        let (_, packet_id) = departure.undecided.swap_remove(at);
        if matches!(outcome, Published::Done { .. }) {
            departure.state.received_qos2.push(packet_id.get());
        }
        if departure.undecided.is_empty()
            && let Some(departure) = self.departures.waiting.remove(&conn)
        {
            self.detach(departure);
        }
    }

    fn detach(&mut self, departure: Departure) {
        let Departure { conn, client, tenant, inbox, epoch, state, .. } = departure;
        self.next_req += 1;
        let req = ReqId(self.next_req);
        self.requests.insert(req, Awaited::Leave { conn, client: client.clone(), tenant });
        let owner = InboxOwner { conn, client: &client, tenant, inbox, epoch };
        self.services.ask().detach(self.now, req, owner, state);
    }
}
