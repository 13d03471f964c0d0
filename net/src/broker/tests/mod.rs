//! Drivers without rings: the shards of a node in one thread and in virtual time. The tests carry bytes, sends and the mesh's
//! messages by hand, and play the kernel: a connection that the driver pauses keeps what its client sends.

mod closing;
mod conversations;
mod limits;
mod nodes;
mod shards;

use super::conn::RingOp;
use super::{Broker, BrokerParts, BrokerSettings, Command, ListenerSettings, Reload, ShardMessage};
use super::{TenantPolicy, TenantRegistry};
use crate::limiter::{ConnLimiter, ConnLimits};
use crate::stage::ListenerStages;
use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{NodeId, ReqId, ShardId, Slot};
use bifro_core::message::QoS;
use bifro_core::metrics::ShardMetrics;
use bifro_core::plugin::{Action, AuthOutcome, AuthRequest, Authenticator, Authorizer, Verdict};
use bifro_core::settings::{QuotaLimits, TenantSettings};
use bifro_core::time::Instant;
use bifro_mqtt::codec::{DecodeOptions, decode, encode};
use bifro_mqtt::packet::{
    Ack, Connect, Packet, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscribeFilters, Unsubscribe,
    UnsubscribeFilters,
};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::wire::Wire;
use bifro_store::services::{self, HearingCells, Placement, RangeServices};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

const SEED: u64 = 7;

/// Lets everybody in; a user named `later` is answered by nobody.
struct Everybody;

impl Authenticator for Everybody {
    fn start(&mut self, _req: ReqId, request: AuthRequest, _now: Instant) -> Option<AuthOutcome> {
        let later = request.username.as_deref() == Some("later");
        (!later).then(|| AuthOutcome::Granted(Box::default()))
    }

    fn cancel(&mut self, _req: ReqId) {}
}

/// Permits everything but what is below a topic.
#[derive(Debug)]
struct Except(&'static str);

impl Authorizer for Except {
    fn check(&self, _client: &ClientInfo, _action: Action, topic: &str) -> Verdict {
        if !self.0.is_empty() && topic.starts_with(self.0) { Verdict::Denied } else { Verdict::Allowed }
    }
}

#[derive(Debug, Default)]
struct OnePolicy(TenantSettings);

impl TenantPolicy for OnePolicy {
    fn policy(&self, _tenant: &str) -> (TenantSettings, QuotaLimits) {
        (self.0.clone(), QuotaLimits::default())
    }
}

/// What a test may want otherwise.
struct Setup {
    /// Who it is in a cluster.
    member: Option<NodeId>,
    shards: u16,
    high_water_bytes: usize,
    budget_bytes: u64,
    tenant: TenantSettings,
    stages: ListenerStages,
}

impl Default for Setup {
    fn default() -> Self {
        let (high_water_bytes, budget_bytes) = (1 << 20, 1 << 30);
        Self {
            member: None,
            shards: 1,
            high_water_bytes,
            budget_bytes,
            tenant: TenantSettings::default(),
            stages: Default::default(),
        }
    }
}

/// How the driver has ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Aborted,
}

/// A client, with the part of the kernel between it and the driver.
struct Peer {
    shard: usize,
    slot: Slot,
    version: Version,
    /// Sent by the client, not yet received by the driver.
    unread: VecDeque<Vec<u8>>,
    ended: bool,
    paused: bool,
    /// The client does not read: sends stay in flight.
    stalled: bool,
    sending: Option<Wire>,
    received: Vec<u8>,
    end: Option<End>,
}

/// A name for a client of the test.
type Who = usize;

struct Node {
    brokers: Vec<Broker<RangeServices>>,
    lanes: BTreeMap<(usize, usize), VecDeque<ShardMessage<services::Message>>>,
    /// A shard that takes nothing from the others at present.
    deaf: Option<usize>,
    peers: Vec<Peer>,
    limiter: Arc<ConnLimiter>,
    registry: Arc<TenantRegistry>,
    now: Instant,
    drained: Vec<bool>,
}

impl Node {
    fn new(setup: Setup) -> Self {
        let limiter = Arc::new(ConnLimiter::new(&ConnLimits::default()));
        let listener = ListenerSettings {
            name: "test".into(),
            transport: Transport::Tcp,
            stages: setup.stages,
            limiter: limiter.clone(),
            connect_deadline: Duration::from_secs(10),
            pre_auth_packet_bytes_max: 64 << 10,
        };
        let settings = Arc::new(BrokerSettings {
            shards: setup.shards,
            listeners: vec![listener],
            write_high_water_bytes: setup.high_water_bytes,
            stall_deadline: Duration::from_secs(30),
            publish_deadline: Duration::from_secs(5),
            shard_budget_bytes: setup.budget_bytes,
            turn_bytes_per_conn: 64 << 10,
            drain_per_s: 100,
            seed: SEED,
            nonce: SEED,
        });
        let registry = Arc::new(TenantRegistry::new(Arc::new(OnePolicy(setup.tenant))));
        let now = Instant::from_micros(1_700_000_000_000_000);
        let cells = HearingCells::new(setup.shards);
        let broker = |shard| {
            let metrics = Arc::new(ShardMetrics::default());
            let placement = Placement {
                shard: ShardId(shard),
                shards: setup.shards,
                metrics: metrics.clone(),
                cells: cells.clone(),
            };
            let services = RangeServices::volatile(placement, SEED);
            let services = match setup.member {
                Some(me) => services.join(me),
                None => services,
            };
            let parts = BrokerParts {
                shard: ShardId(shard),
                settings: settings.clone(),
                metrics,
                events: Arc::new(|_| {}),
                services,
                authenticator: Box::new(Everybody),
                authorizer: Arc::new(Except("")),
                tenants: registry.clone(),
            };
            Broker::new(parts, now)
        };
        Self {
            brokers: (0..setup.shards).map(broker).collect(),
            lanes: BTreeMap::new(),
            deaf: None,
            peers: Vec::new(),
            limiter,
            registry,
            now,
            drained: vec![false; setup.shards.into()],
        }
    }

    fn metrics(&self, shard: usize) -> &ShardMetrics {
        &self.brokers[shard].metrics
    }

    /// One turn of a shard. True if there was anything to do.
    fn turn(&mut self, shard: usize) -> bool {
        let mut worked = false;
        self.brokers[shard].begin_turn(self.now);
        self.brokers[shard].poll_services();
        for who in 0..self.peers.len() {
            if self.peers[who].shard == shard && self.peers[who].end.is_none() {
                worked |= self.pump(who);
            }
        }
        if self.deaf != Some(shard) {
            for from in 0..self.brokers.len() {
                while let Some(message) = self.lanes.entry((from, shard)).or_default().pop_front() {
                    worked = true;
                    self.brokers[shard].handle_peer(ShardId(from as u16), message);
                }
            }
        }
        self.drained[shard] = self.brokers[shard].continue_drain();
        self.brokers[shard].end_turn(0);
        for (to, message) in std::mem::take(&mut self.brokers[shard].to_peers) {
            worked = true;
            self.lanes.entry((shard, to.index())).or_default().push_back(message);
        }
        while let Some(op) = self.brokers[shard].next_ring_op() {
            worked = true;
            self.carry_out(shard, op);
        }
        worked || self.brokers[shard].has_more()
    }

    /// Completes what the kernel would complete for one connection.
    fn pump(&mut self, who: Who) -> bool {
        let peer = &mut self.peers[who];
        let broker = &mut self.brokers[peer.shard];
        let mut worked = false;
        if !peer.stalled
            && let Some(wire) = peer.sending.take()
        {
            wire.pieces().for_each(|piece| peer.received.extend_from_slice(piece));
            broker.handle_sent(peer.slot, wire, None);
            worked = true;
        }
        while !peer.paused
            && let Some(bytes) = peer.unread.pop_front()
        {
            broker.receive(peer.slot, &bytes);
            worked = true;
        }
        if peer.ended && !peer.paused {
            peer.ended = false;
            broker.handle_peer_ended(peer.slot);
            worked = true;
        }
        worked
    }

    fn carry_out(&mut self, shard: usize, op: RingOp) {
        match op {
            RingOp::Send(slot, wire) => {
                assert!(!wire.is_empty());
                assert!(self.known(shard, slot).sending.replace(wire).is_none(), "one send in flight per connection");
            }
            RingOp::Pause(slot) => self.known(shard, slot).paused = true,
            RingOp::Resume(slot) => self.known(shard, slot).paused = false,
            RingOp::Close(slot) => {
                let peer = self.known(shard, slot);
                assert!(peer.sending.is_none(), "a close would wait for the send in flight, for ever if nobody reads");
                peer.end = Some(End::Closed);
            }
            RingOp::Abort(slot) => self.known(shard, slot).end = Some(End::Aborted),
            RingOp::StopListening => {}
        }
    }

    fn known(&mut self, shard: usize, slot: Slot) -> &mut Peer {
        let found = self.peers.iter_mut().find(|peer| (peer.shard, peer.slot) == (shard, slot));
        found.filter(|peer| peer.end.is_none()).expect("the driver speaks of connections that it has not closed")
    }

    /// Turns until nothing is left to do, then looks at the drivers' books.
    fn settle(&mut self) {
        let mut turns = 0;
        while (0..self.brokers.len()).fold(false, |worked, shard| self.turn(shard) | worked) {
            turns += 1;
            assert!(turns < 10_000, "the shards do not come to rest");
        }
        self.brokers.iter().for_each(validate);
    }

    /// Lets time pass, from deadline to deadline.
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        let mut wakes = 0;
        while self.now < end {
            let next = self.brokers.iter().filter_map(Broker::next_deadline).min().map_or(end, |at| at.min(end));
            assert!(next > self.now, "a shard that has come to rest has nothing due");
            self.now = next;
            self.settle();
            wakes += 1;
            assert!(wakes < 100_000, "the shards wake for nothing");
        }
    }

    fn accept(&mut self, shard: usize, version: Version) -> Who {
        let index = self.peers.iter().filter(|peer| peer.shard == shard).count();
        let slot = Slot { index: u32::try_from(index).expect("a few"), generation: 0 };
        let permit = self.limiter.admit(None, self.now).expect("no limits");
        self.brokers[shard].now = self.now;
        self.brokers[shard].open(slot, 0, None, permit);
        self.peers.push(Peer {
            shard,
            slot,
            version,
            unread: VecDeque::new(),
            ended: false,
            paused: false,
            stalled: false,
            sending: None,
            received: Vec::new(),
            end: None,
        });
        self.peers.len() - 1
    }

    /// A connected client.
    fn client(&mut self, shard: usize, id: &str) -> Who {
        self.client_with(shard, Version::V5, id, &[], 0)
    }

    fn client_with(&mut self, shard: usize, version: Version, id: &str, properties: &[u8], keep_alive: u16) -> Who {
        let who = self.accept(shard, version);
        self.send(who, &connect(version, id, properties, keep_alive));
        self.settle();
        let heard = self.hear(who);
        assert!(heard[0].starts_with("CONNACK 0x00"), "{heard:?}");
        who
    }

    /// A connected MQTT 5 client whose session outlives its connection by an hour.
    fn persistent(&mut self, shard: usize, id: &str) -> Who {
        self.client_with(shard, Version::V5, id, &[0x11, 0, 0, 0x0e, 0x10], 0)
    }

    fn send(&mut self, who: Who, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.peers[who].version, &mut bytes);
        self.peers[who].unread.push_back(bytes);
    }

    /// The client ends its side.
    fn end(&mut self, who: Who) {
        self.peers[who].ended = true;
    }

    fn subscribe(&mut self, who: Who, filter: &str, qos: QoS) {
        let filter = SubscribeFilter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 };
        let mut scratch = Vec::new();
        let filters = SubscribeFilters::encode([filter], &mut scratch);
        let properties = Properties::default();
        self.send(who, &Packet::Subscribe(Subscribe { packet_id: id(100), properties, filters }));
    }

    fn unsubscribe(&mut self, who: Who, filter: &str) {
        let mut scratch = Vec::new();
        let filters = UnsubscribeFilters::encode([filter], &mut scratch);
        let properties = Properties::default();
        self.send(who, &Packet::Unsubscribe(Unsubscribe { packet_id: id(101), properties, filters }));
    }

    /// Subscribes and waits for the answer.
    fn subscribed(&mut self, who: Who, filter: &str, qos: QoS) {
        self.subscribe(who, filter, qos);
        self.settle();
        let heard = self.hear(who);
        assert_eq!(heard[0], format!("SUBACK 100 [{}]", qos as u8));
    }

    fn publish(&mut self, who: Who, topic: &str, payload: &[u8], packet_id: Option<u16>) {
        let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let properties = PublishProperties::default();
        let packet_id = packet_id.map(id);
        self.send(
            who,
            &Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload }),
        );
    }

    fn puback(&mut self, who: Who, packet_id: u16) {
        let (packet_id, reason, properties) = (id(packet_id), Reason::SUCCESS, Properties::default());
        self.send(who, &Packet::PubAck(Ack { packet_id, reason, properties }));
    }

    /// What the client has been told since it was last asked, a line per packet.
    fn hear(&mut self, who: Who) -> Vec<String> {
        let peer = &mut self.peers[who];
        let options = DecodeOptions { version: Some(peer.version), packet_bytes_max: u32::MAX };
        let mut heard = Vec::new();
        let mut at = 0;
        while let Some((packet, length)) = decode(&peer.received[at..], &options).expect("the driver sends packets") {
            heard.push(describe(&packet));
            at += length;
        }
        peer.received.drain(..at);
        heard
    }

    fn is_open(&self, who: Who) -> bool {
        self.peers[who].end.is_none()
    }

    fn command(&mut self, command: impl Fn() -> Command) {
        for broker in &mut self.brokers {
            broker.now = self.now;
            broker.handle_command(command());
        }
    }

    fn reload(&mut self, authorizer: Except) {
        let tenants = self.registry.all();
        let reload = Arc::new(Reload { authorizer: Arc::new(authorizer), tenants });
        self.command(|| Command::Reload(reload.clone()));
    }
}

/// What must hold in a driver that has come to rest.
fn validate(broker: &Broker<RangeServices>) {
    let live: Vec<_> =
        (0..broker.conns.bound()).filter_map(|index| broker.conns.get(broker.conns.at(index)?)).collect();
    assert_eq!(live.len(), broker.conns.len());
    let held: u64 = live.iter().map(|conn| u64::from(conn.accounted_bytes)).sum();
    let paused = live.iter().filter(|conn| conn.recv_paused).count() as u64;
    let sessions = live.iter().filter(|conn| conn.session.is_connected()).count() as u64;
    broker.budget.validate(held);
    assert_eq!(broker.metrics.receive_paused.read(), paused);
    assert_eq!(broker.metrics.sessions.read(), sessions);
    assert_eq!(broker.metrics.connections.read(), live.len() as u64);
    assert!(broker.dirty.is_empty() && broker.effects.is_empty() && broker.effect_scratch.is_empty());
    for conn in live {
        assert_eq!(conn.recv_paused, conn.paused.any() && !conn.closing, "{:?}: {:?}", conn.slot, conn.paused);
        assert_eq!(u64::from(conn.accounted_bytes), conn.held_bytes(), "{:?}", conn.slot);
    }
    broker.fanout.validate(&broker.conns);
}

fn id(packet_id: u16) -> NonZeroU16 {
    NonZeroU16::new(packet_id).expect("not zero")
}

fn connect<'a>(version: Version, client_id: &'a str, properties: &'a [u8], keep_alive: u16) -> Packet<'a> {
    // Whoever says for how long its session is to be kept wants the old one.
    let (bridge, clean_start, will, password) = (false, !properties.starts_with(&[0x11]), None, None);
    let username = client_id.starts_with("later").then_some("later");
    let properties = Properties::new(properties);
    Packet::Connect(Connect {
        version,
        bridge,
        clean_start,
        keep_alive,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

fn describe(packet: &Packet<'_>) -> String {
    let qos = |qos: QoS| qos as u8;
    match packet {
        Packet::ConnAck(connack) => format!("CONNACK {}", connack.reason),
        Packet::Publish(publish) => {
            let payload = String::from_utf8_lossy(&publish.payload[..publish.payload.len().min(20)]);
            let id = publish.packet_id.map(|id| format!(" #{id}")).unwrap_or_default();
            format!("PUBLISH q{}{id} {}={payload}", qos(publish.qos), publish.topic)
        }
        Packet::PubAck(ack) => format!("PUBACK {} {}", ack.packet_id, ack.reason),
        Packet::SubAck(suback) => format!("SUBACK {} {:?}", suback.packet_id, suback.codes),
        Packet::UnsubAck(unsuback) => format!("UNSUBACK {} {:?}", unsuback.packet_id, unsuback.codes),
        Packet::PingResp => "PINGRESP".into(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {}", disconnect.reason),
        other => format!("{other:?}"),
    }
}
