//! One step of a session: a PUBLISH in, a message out.

use bifro_core::client::{ClientInfo, Transport, Version};
use bifro_core::ids::{PublisherKey, TenantIdx};
use bifro_core::message::{Message, MessageView, QoS};
use bifro_core::plugin::{Action, AuthOutcome, Authorizer, Grant, Verdict};
use bifro_core::ports::Attached;
use bifro_core::settings::{Quota, QuotaLimits, TenantSettings};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use bifro_mqtt::codec::Fanout;
use bifro_mqtt::packet::{Ack, Connect, Packet, PacketId, Publish, PublishProperties};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::session::{Cx, Delivery, Effect, Origin, Outbox, Published, Session, Tally};
use bifro_mqtt::wire::Wire;
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::sync::Arc;

const NOW: Instant = Instant::from_micros(1_000_000);
const TOPIC: &str = "building/7/floor/3/room/12/temperature";
const PAYLOAD: &[u8] = &[b'x'; 256];

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn check(&self, _client: &ClientInfo, _action: Action, _topic: &str) -> Verdict {
        Verdict::Allowed
    }
}

/// A connected session and where its output goes.
struct Bed {
    session: Session,
    tenant: TenantCtx,
    wire: Wire,
    effects: Vec<Effect>,
    tally: Tally,
}

impl Bed {
    fn connected() -> Self {
        let origin = Origin {
            listener: 0,
            transport: Transport::Tcp,
            peer: None,
            certificate: None,
            nonce: 1,
            pre_auth_packet_bytes_max: 65_536,
        };
        let tenant = TenantCtx {
            idx: TenantIdx(0),
            name: "default".into(),
            settings: TenantSettings::default(),
            quota: Arc::new(Quota::new(&QuotaLimits::default())),
        };
        let session = Session::new(origin, NOW);
        let mut bed = Self { session, tenant, wire: Wire::default(), effects: Vec::new(), tally: Tally::default() };
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 60,
            properties: Properties::default(),
            client_id: "bench",
            will: None,
            username: None,
            password: None,
        };
        bed.step(|session, cx, out| drop(session.handle_packet(cx, Packet::Connect(connect), out)));
        bed.step(|session, cx, out| session.handle_auth(cx, AuthOutcome::Granted(Box::<Grant>::default()), out));
        bed.step(|session, cx, out| session.handle_identified(cx, TenantIdx(0), PublisherKey(1), out));
        bed.step(|session, cx, out| session.handle_registered(cx, out));
        bed.step(|session, cx, out| session.handle_attached(cx, Ok(Box::<Attached>::default()), out));
        assert!(bed.session.is_connected());
        bed
    }

    fn step<R>(&mut self, act: impl FnOnce(&mut Session, &Cx<'_>, &mut Outbox<'_>) -> R) -> R {
        self.wire.clear();
        self.effects.clear();
        let cx = Cx { now: NOW, tenant: &self.tenant, authorizer: &Everything, over_budget: false };
        let mut out = Outbox {
            wire: &mut self.wire,
            effects: &mut self.effects,
            tally: &mut self.tally,
            congested: false,
            share: 64 << 10,
        };
        act(&mut self.session, &cx, &mut out)
    }
}

fn publish(qos: QoS) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: PublishProperties::default(),
        payload: PAYLOAD,
    })
}

fn message(qos: QoS) -> Arc<Message> {
    let publisher = PublisherKey(2);
    MessageView { topic: TOPIC, properties: &[], payload: PAYLOAD, qos, retain: false, expiry_at: None, publisher }
        .to_message()
}

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    let mut bed = Bed::connected();
    group.bench_function("publish in, QoS 0", |b| {
        b.iter(|| {
            let routed =
                bed.step(|session, cx, out| session.handle_packet(cx, publish(QoS::AtMostOnce), out).is_some());
            assert!(black_box(routed));
        });
    });
    group.bench_function("publish in, QoS 1, acknowledged", |b| {
        b.iter(|| {
            let token = bed.step(|session, cx, out| {
                session.handle_packet(cx, publish(QoS::AtLeastOnce), out).and_then(|request| request.token)
            });
            let done = Published::Done { matched: true };
            let token = token.expect("QoS 1 is answered");
            bed.step(|session, cx, out| session.handle_published(cx, token, done, out));
            assert!(!black_box(bed.wire.is_empty()));
        });
    });
    for (name, qos) in [("message out, QoS 0", QoS::AtMostOnce), ("message out, QoS 1, acknowledged", QoS::AtLeastOnce)]
    {
        let message = message(qos);
        let delivery = Delivery { qos, retain: false, subscription_ids: &[], check: false, seq: None, shared: None };
        let mut next = 1_u16;
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut fanout = Fanout::new(message.view(), Some(message.clone()), NOW);
                black_box(bed.step(|session, cx, out| session.deliver(cx, &mut fanout, &delivery, out)));
                if qos == QoS::AtLeastOnce {
                    let packet_id = PacketId::new(next).expect("counts from 1");
                    next = next.checked_add(1).unwrap_or(1);
                    let ack = Ack { packet_id, reason: Reason::SUCCESS, properties: Properties::default() };
                    bed.step(|session, cx, out| drop(session.handle_packet(cx, Packet::PubAck(ack), out)));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    session(&mut criterion);
    criterion.final_summary();
}
