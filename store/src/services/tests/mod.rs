//! All shards of a node in one thread: N services, a first-in-first-out queue between each pair, delivered in random order
//! from one seed. Whatever the mesh may do, the simulation does for some seed.

mod matching;
mod nodes;
#[cfg(feature = "simulation")]
mod reign;
mod retained;
mod sessions;
mod single;
mod takeover;

use super::*;
use bifro_core::client::{Client, ClientInfo, Transport, Version};
use bifro_core::ids::{ConnRef, NodeIdx, PublisherKey, Slot};
use bifro_core::message::{Message as Published, MessageView, QoS};
use bifro_core::ports::{AttachTerms, RemoteSend, SubOptions};
use bifro_core::rng::Prng;
use bifro_core::settings::{Quota, QuotaLimits, Resource, TenantSettings};
use std::collections::BTreeMap;
use std::time::Duration;

const TENANT: TenantIdx = TenantIdx(0);

struct Sim {
    shards: Vec<RangeServices>,
    mesh: BTreeMap<(ShardId, ShardId), VecDeque<Message>>,
    heard: VecDeque<(ShardId, Completion)>,
    /// For other nodes.
    remote: VecDeque<(ShardId, RemoteSend)>,
    rng: Prng,
    now: Instant,
    tenant: Arc<TenantCtx>,
    metrics: Vec<Arc<ShardMetrics>>,
    last_req: u64,
    /// Everything sent and heard, in order.
    trace: Vec<String>,
}

impl Sim {
    fn new(seed: u64, shards: u16) -> Self {
        Self::with(seed, shards, TenantSettings::default(), &QuotaLimits::default())
    }

    fn with(seed: u64, shards: u16, settings: TenantSettings, limits: &QuotaLimits) -> Self {
        let quota = Arc::new(Quota::new(limits));
        let tenant = Arc::new(TenantCtx { idx: TENANT, name: "t".into(), settings, quota });
        let metrics: Vec<Arc<ShardMetrics>> = (0..shards).map(|_| Arc::default()).collect();
        let cells = HearingCells::new(shards);
        let services = |shard: u16| {
            let metrics = metrics[shard as usize].clone();
            let placement = Placement { shard: ShardId(shard), shards, metrics, cells: cells.clone() };
            let mut services = RangeServices::volatile(placement, seed);
            services.set_tenant(tenant.clone());
            services
        };
        Self {
            shards: (0..shards).map(services).collect(),
            mesh: BTreeMap::new(),
            heard: VecDeque::new(),
            remote: VecDeque::new(),
            rng: Prng::new(seed),
            now: Instant::from_micros(1_000_000),
            tenant,
            metrics,
            last_req: 0,
            trace: Vec::new(),
        }
    }

    fn req(&mut self) -> ReqId {
        self.last_req += 1;
        ReqId(self.last_req)
    }

    fn pick(&mut self, bound: usize) -> usize {
        self.rng.below(bound as u64) as usize
    }

    fn any_shard(&mut self) -> ShardId {
        ShardId(self.rng.below(self.shards.len() as u64) as u16)
    }

    /// Calls one shard's services and collects what they want.
    fn call<R>(&mut self, shard: ShardId, call: impl FnOnce(&mut RangeServices, Instant, &TenantCtx) -> R) -> R {
        let services = &mut self.shards[shard.index()];
        services.begin_turn(self.now);
        let result = call(services, self.now, &self.tenant);
        services.end_turn(self.now);
        let mut out = Out::default();
        services.drain(&mut out);
        for (to, message) in out.sends {
            assert_ne!(to, shard, "nothing goes over the mesh to oneself");
            self.trace.push(format!("{}→{} {message:?}", shard.0, to.0));
            self.mesh.entry((shard, to)).or_default().push_back(message);
        }
        self.remote.extend(out.remote.into_iter().map(|send| (shard, send)));
        for completion in out.completions {
            self.trace.push(format!("{} {completion:?}", shard.0));
            self.heard.push_back((shard, completion));
        }
        result
    }

    /// Delivers one message of one pair; false if there is none.
    fn step(&mut self) -> bool {
        let busy: Vec<_> = self.mesh.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&pair, _)| pair).collect();
        if busy.is_empty() {
            return false;
        }
        let (from, to) = busy[self.pick(busy.len())];
        let message = self.mesh.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("picked among the busy");
        self.call(to, |services, now, _| services.receive(now, from, message));
        true
    }

    /// Delivers everything, dropping nothing that is heard.
    fn settle(&mut self) {
        while self.step() {}
    }

    /// Lets time pass and all timers fire.
    fn advance(&mut self, secs: u64) {
        self.advance_by(Duration::from_secs(secs));
    }

    fn advance_by(&mut self, by: Duration) {
        self.now = self.now + by;
        for shard in 0..self.shards.len() as u16 {
            while self.shards[shard as usize].next_timeout().is_some_and(|at| at <= self.now) {
                self.call(ShardId(shard), |services, now, _| services.handle_timeout(now));
            }
        }
        self.settle();
    }

    fn take_heard(&mut self) -> Vec<(ShardId, Completion)> {
        self.heard.drain(..).collect()
    }

    fn gauge(&self, read: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| read(metrics)).sum()
    }

    fn assert_nothing_used(&self) {
        for &resource in Resource::ALL.iter().filter(|resource| !resource.is_rate()) {
            assert_eq!(self.tenant.quota.used(resource), 0, "{resource:?}");
        }
        assert_eq!(self.gauge(|m| m.inboxes.read() + m.inbox_messages.read() + m.inbox_bytes.read()), 0);
        assert_eq!(self.gauge(|m| m.routes.read()), 0, "routes");
        for services in &self.shards {
            assert!(services.additions.is_empty() && services.searches.is_empty() && services.owners.is_empty());
            assert_eq!(services.routes.adding(), 0);
            services.owners.validate();
            services.inboxes.iter().for_each(|range| range.machine.validate());
            services.retained.iter().for_each(|range| range.machine.validate());
            services.cache.validate();
        }
    }
}

fn client(id: &str) -> Client {
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "".into(),
        client_id: id.into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    })
}

fn conn(shard: ShardId, index: u32) -> ConnRef {
    ConnRef { node: NodeIdx::HERE, shard, slot: slot(index) }
}

const fn slot(index: u32) -> Slot {
    Slot { index, generation: 0 }
}

fn message(topic: &str, payload: &str, qos: QoS) -> Arc<Published> {
    let (payload, publisher) = (payload.as_bytes(), PublisherKey(1));
    MessageView { topic, properties: &[], payload, qos, retain: true, expiry_at: None, publisher }.to_message()
}

fn text(message: &Published) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

const QOS1: SubOptions = SubOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    subscription_id: None,
    check_deliveries: false,
};
