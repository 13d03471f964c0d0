//! Persistent sessions whose connections come and go on all shards while messages arrive.

use super::*;
use bifro_core::ids::InboxSeq;
use bifro_core::ports::{Attached, DetachState, Dist, Inbox, InboxMessage, InboxOwner, InboxPlaces, Left, SessionDict};
use std::collections::BTreeSet;
use std::num::NonZeroU16;

/// What a client's connection is doing.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Registering(ConnRef),
    Attaching(ConnRef),
    Live(ConnRef),
    Detaching(ConnRef),
}

/// A client with a persistent session, subscribed to its own topic at QoS 1.
struct Device {
    client: Client,
    topic: &'static str,
    phase: Phase,
    attached: Option<Attached>,
    subscribed: bool,
    /// Sent to the client and not acknowledged, in order.
    unacknowledged: Vec<InboxSeq>,
    received: BTreeSet<String>,
}

impl Device {
    fn new(topic: &'static str) -> Self {
        Self {
            client: client(topic),
            topic,
            phase: Phase::Away,
            attached: None,
            subscribed: false,
            unacknowledged: vec![],
            received: BTreeSet::new(),
        }
    }

    fn owner(&self, conn: ConnRef) -> InboxOwner<'_> {
        let attached = self.attached.as_ref().expect("live devices are attached");
        let inbox = attached.inbox.expect("attached somewhere");
        InboxOwner { conn, client: &self.client, tenant: TENANT, inbox, epoch: attached.epoch }
    }

    fn receive(&mut self, message: &InboxMessage) {
        let seq = message.seq.expect("QoS 1 is stored");
        self.received.insert(text(&message.message));
        self.unacknowledged.push(seq);
    }
}

struct World {
    sim: Sim,
    devices: Vec<Device>,
    next_conn: u32,
    /// Requests of devices.
    asked: BTreeMap<ReqId, usize>,
    /// Publishes that wait for matches or for inboxes, with how many inboxes have to answer.
    publishing: BTreeMap<ReqId, (usize, Arc<Published>)>,
    inserting: BTreeMap<ReqId, (usize, String)>,
    /// What the publisher was told is stored, per device.
    accepted: Vec<BTreeSet<String>>,
    published: usize,
}

impl World {
    fn new(seed: u64, shards: u16) -> Self {
        let devices: Vec<Device> = ["d/one", "d/two", "e"].into_iter().map(Device::new).collect();
        Self {
            sim: Sim::new(seed, shards),
            accepted: devices.iter().map(|_| BTreeSet::new()).collect(),
            devices,
            next_conn: 0,
            asked: BTreeMap::new(),
            publishing: BTreeMap::new(),
            inserting: BTreeMap::new(),
            published: 0,
        }
    }

    fn ask(&mut self, device: usize) -> ReqId {
        let req = self.sim.req();
        self.asked.insert(req, device);
        req
    }

    fn connect(&mut self, index: usize) {
        if self.devices[index].phase != Phase::Away {
            return;
        }
        let shard = self.sim.any_shard();
        self.next_conn += 1;
        let (conn, req) = (conn(shard, self.next_conn), self.ask(index));
        let device = &mut self.devices[index];
        device.phase = Phase::Registering(conn);
        let client = device.client.clone();
        self.sim.call(shard, |services, now, tenant| services.register(now, req, conn, &client, tenant));
    }

    fn acknowledge(&mut self, index: usize) {
        let Phase::Live(conn) = self.devices[index].phase else { return };
        let some = self.sim.pick(self.devices[index].unacknowledged.len() + 1);
        let done: Vec<InboxSeq> = self.devices[index].unacknowledged.drain(..some).collect();
        let owner = self.devices[index].owner(conn);
        self.sim.call(conn.shard, |services, now, _| services.commit(now, owner, done));
    }

    fn disconnect(&mut self, index: usize, expiry_s: u32) {
        let Phase::Live(conn) = self.devices[index].phase else { return };
        let req = self.ask(index);
        let sent = core::mem::take(&mut self.devices[index].unacknowledged);
        let in_flight =
            (1..).zip(sent).map(|(id, seq)| (NonZeroU16::new(id).expect("from 1"), false, Left::Stored(seq))).collect();
        let state = DetachState { in_flight, expiry_s, ..DetachState::default() };
        let owner = self.devices[index].owner(conn);
        let client = owner.client.clone();
        self.sim.call(conn.shard, |services, now, tenant| {
            services.detach(now, req, owner, state);
            services.unregister(now, conn, &client, tenant);
        });
        self.devices[index].phase = Phase::Detaching(conn);
    }

    fn publish(&mut self, index: usize) {
        let topic = self.devices[index].topic;
        if !self.devices[index].subscribed {
            return;
        }
        self.published += 1;
        let message = message(topic, &format!("{topic} {}", self.published), QoS::AtLeastOnce);
        let (shard, req) = (self.sim.any_shard(), self.sim.req());
        self.publishing.insert(req, (index, message));
        self.sim.call(shard, |services, now, tenant| services.request_matches(now, req, tenant.idx, topic));
    }

    fn insert(&mut self, shard: ShardId, index: usize, message: &Arc<Published>, to: RangeIdx, places: &InboxPlaces) {
        let req = self.sim.req();
        self.inserting.insert(req, (index, text(message)));
        self.sim
            .call(shard, |services, now, tenant| services.insert(now, req, tenant.idx, (to, places), message, None));
    }

    fn handle_attached(&mut self, index: usize, attached: Attached) {
        let Phase::Attaching(conn) = self.devices[index].phase else { panic!("not attaching") };
        let device = &mut self.devices[index];
        device.phase = Phase::Live(conn);
        assert_eq!(attached.present, device.attached.is_some(), "a session that was left is still there");
        assert!(attached.subscriptions.len() >= usize::from(device.subscribed));
        for in_flight in &attached.in_flight {
            device.receive(&in_flight.message);
        }
        device.attached = Some(attached);
        if !device.subscribed {
            let (req, topic) = (self.ask(index), self.devices[index].topic);
            let owner = self.devices[index].owner(conn);
            self.sim.call(conn.shard, |services, now, _| services.subscribe(now, req, owner, topic, QOS1));
        }
    }

    fn listen(&mut self) {
        while let Some((shard, completion)) = self.sim.heard.pop_front() {
            match completion {
                Completion::Registered { req } => {
                    let index = self.asked.remove(&req).expect("asked");
                    let Phase::Registering(conn) = self.devices[index].phase else { panic!("not registering") };
                    self.devices[index].phase = Phase::Attaching(conn);
                    let (req, client) = (self.ask(index), self.devices[index].client.clone());
                    self.sim.call(shard, |services, now, tenant| {
                        services.attach(now, req, conn, &client, tenant, AttachTerms::default());
                    });
                }
                Completion::Attached { req, result } => {
                    let index = self.asked.remove(&req).expect("asked");
                    self.handle_attached(index, *result.expect("no quota"));
                }
                Completion::InboxSubscribed { req, result } => {
                    let index = self.asked.remove(&req).expect("asked");
                    self.devices[index].subscribed = result.is_ok();
                }
                Completion::InboxPush { conn, messages } => {
                    let live = |device: &&mut Device| device.phase == Phase::Live(conn);
                    if let Some(device) = self.devices.iter_mut().find(live) {
                        messages.iter().for_each(|message| device.receive(message));
                    }
                }
                Completion::Detached { req } => {
                    let index = self.asked.remove(&req).expect("asked");
                    self.devices[index].phase = Phase::Away;
                }
                Completion::Matched { req, matches } => {
                    let (index, message) = self.publishing.remove(&req).expect("asked");
                    assert!(matches.is_empty() || matches.inboxes.len() == 1);
                    for (to, places) in &matches.inboxes {
                        self.insert(shard, index, &message, *to, places);
                    }
                }
                Completion::Inserted { req, result } => {
                    let (index, payload) = self.inserting.remove(&req).expect("asked");
                    result.expect("no quota");
                    self.accepted[index].insert(payload);
                }
                // A kicked connection that has unregistered meanwhile is gone already.
                Completion::Event(_) | Completion::Kick { .. } => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    fn act(&mut self) {
        let index = self.sim.pick(self.devices.len());
        match self.sim.pick(12) {
            0 => self.connect(index),
            1 => self.disconnect(index, 3_600),
            2 | 3 => self.acknowledge(index),
            4..=6 => self.publish(index),
            _ => {
                self.sim.step();
            }
        }
        self.listen();
    }

    fn settle(&mut self) {
        loop {
            self.listen();
            if !self.sim.step() {
                break;
            }
        }
        self.listen();
    }

    /// Connects everybody and has them acknowledge until nothing is left.
    fn drain(&mut self) {
        self.settle();
        for index in 0..self.devices.len() {
            self.connect(index);
        }
        self.settle();
        while self.devices.iter().any(|device| !device.unacknowledged.is_empty()) {
            for index in 0..self.devices.len() {
                self.acknowledge(index);
            }
            self.settle();
        }
    }
}

/// [MQTT-3.1.2-5] [MQTT5-3.1.2-23] [MQTT-4.4.0-1]: once the publisher is told that an inbox has its message, the client gets it,
/// wherever and however often it reconnects.
#[test]
fn no_message_that_an_inbox_has_taken_over_is_lost() {
    let mut accepted = 0;
    for seed in 0..80 {
        let mut world = World::new(seed, 1 + (seed % 4) as u16);
        for _ in 0..400 {
            world.act();
        }
        world.drain();
        for (device, promised) in world.devices.iter().zip(&world.accepted) {
            let lost: Vec<_> = promised.difference(&device.received).collect();
            assert!(lost.is_empty(), "seed {seed}: {} never got {lost:?}", device.topic);
            accepted += promised.len();
        }
        assert_eq!(world.sim.gauge(|m| m.inbox_messages.read()), 0, "seed {seed}: everything was committed");
        assert_eq!(world.sim.gauge(|m| m.inboxes.read()), 3);
        assert_eq!(world.sim.gauge(|m| m.routes.read()), 3);
    }
    assert!(accepted > 2_000, "the test publishes at all: {accepted}");
}

#[test]
fn ended_sessions_leave_no_route_no_byte_and_no_quota_behind() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        for _ in 0..300 {
            world.act();
        }
        world.settle();
        for index in 0..world.devices.len() {
            world.connect(index);
        }
        world.settle();
        for index in 0..world.devices.len() {
            world.disconnect(index, if index == 0 { 0 } else { 60 });
        }
        world.settle();
        world.sim.advance(60);
        world.listen();
        world.sim.assert_nothing_used();
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    let trace = |seed| {
        let mut world = World::new(seed, 3);
        for _ in 0..400 {
            world.act();
        }
        world.drain();
        world.sim.trace
    };
    assert_eq!(trace(11), trace(11));
    assert_ne!(trace(11), trace(12));
}

/// Two connections of one client: the second attaches only after the first has detached, although both speak to the
/// inbox's shard from different shards; messages in flight to the first are handed to the second.
#[test]
fn a_takeover_finds_the_session_as_the_old_connection_left_it() {
    for seed in 0..30 {
        let mut world = World::new(seed, 4);
        world.connect(0);
        world.settle();
        for _ in 0..5 {
            world.publish(0);
            world.settle();
        }
        let Phase::Live(old) = world.devices[0].phase else { panic!("live") };
        let (shard, req, client) = (world.sim.any_shard(), world.sim.req(), world.devices[0].client.clone());
        let new = conn(shard, 1_000);
        world.sim.call(shard, |services, now, tenant| services.register(now, req, new, &client, tenant));
        world.sim.settle();
        let heard = world.sim.take_heard();
        assert!(matches!(heard[..], [(_, Completion::Kick { conn })] if conn == old), "{heard:?}");
        world.disconnect(0, 3_600);
        world.devices[0].phase = Phase::Registering(new);
        world.asked.retain(|_, device| *device != 0);
        world.asked.insert(req, 0);
        loop {
            world.sim.heard.retain(|(_, completion)| !matches!(completion, Completion::Detached { .. }));
            world.listen();
            if !world.sim.step() {
                break;
            }
        }
        assert_eq!(world.devices[0].phase, Phase::Live(new), "seed {seed}");
        assert_eq!(world.devices[0].unacknowledged.len(), 5, "seed {seed}: all in flight, handed over");
    }
}
