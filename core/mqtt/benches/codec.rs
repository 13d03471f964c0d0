//! The codec per packet and version, and a PUBLISH on its way to many.

use bifro_core::client::Version;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};
use bifro_core::time::Instant;
use bifro_mqtt::codec::{DecodeOptions, Fanout, FanoutScratch, PublishSpec, decode, encode};
use bifro_mqtt::packet::{
    Ack, Connect, Packet, PacketId, Publish, PublishProperties, Subscribe, SubscribeFilter, SubscribeFilters,
};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_mqtt::wire::Wire;
use criterion::{Criterion, Throughput};
use std::hint::black_box;

const PAYLOAD: &[u8] = &[b'x'; 256];
const SUBSCRIBERS: u64 = 100;

fn publish(qos: QoS, version: Version, properties: &[u8]) -> Packet<'_> {
    let properties = if version == Version::V5 { properties } else { &[] };
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "building/7/floor/3/room/12/temperature",
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        properties: PublishProperties { all: Properties::new(properties), ..PublishProperties::default() },
        payload: PAYLOAD,
    })
}

fn packets<'a>(version: Version, properties: &'a [u8], scratch: &'a mut Vec<u8>) -> Vec<(&'static str, Packet<'a>)> {
    let filter = SubscribeFilter {
        filter: "building/+/floor/#",
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    let connect = Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        properties: Properties::default(),
        client_id: "sensor-0123456789",
        will: None,
        username: Some("tenant/user"),
        password: Some(b"secret"),
    };
    let filters = SubscribeFilters::encode([filter], scratch);
    let packet_id = PacketId::MIN;
    vec![
        ("connect", Packet::Connect(connect)),
        ("publish_qos0", publish(QoS::AtMostOnce, version, properties)),
        ("publish_qos1", publish(QoS::AtLeastOnce, version, properties)),
        ("puback", Packet::PubAck(Ack { packet_id, reason: Reason::SUCCESS, properties: Properties::default() })),
        ("subscribe", Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), filters })),
        ("pingreq", Packet::PingReq),
    ]
}

fn codec(criterion: &mut Criterion) {
    let mut block = Vec::new();
    let mut writer = PropertyWriter::new(&mut block);
    writer.pair(PropertyId::UserProperty, "unit", "celsius");
    for (name, version) in [("3.1.1", Version::V311), ("5.0", Version::V5)] {
        let options = DecodeOptions { version: Some(version), packet_bytes_max: 1 << 20 };
        let mut scratch = Vec::new();
        for (kind, packet) in packets(version, &block, &mut scratch) {
            let mut bytes = Vec::new();
            encode(&packet, version, &mut bytes);
            let mut group = criterion.benchmark_group(format!("codec/{name}/{kind}"));
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function("decode", |b| {
                b.iter(|| black_box(decode(black_box(&bytes), &options).expect("well-formed")));
            });
            let mut out = Vec::with_capacity(bytes.len());
            group.bench_function("encode", |b| {
                b.iter(|| {
                    out.clear();
                    encode(black_box(&packet), version, &mut out);
                });
            });
            group.finish();
        }
    }
}

fn fanout(criterion: &mut Criterion) {
    let view = MessageView {
        topic: "building/7/floor/3/room/12/temperature",
        properties: &[],
        payload: PAYLOAD,
        qos: QoS::AtLeastOnce,
        retain: false,
        expiry_at: None,
        publisher: PublisherKey(1),
    };
    let mut scratch = FanoutScratch::default();
    let mut wire = Wire::default();
    let mut group = criterion.benchmark_group("fanout/100 subscribers");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    for (name, qos) in [("qos0", QoS::AtMostOnce), ("qos1", QoS::AtLeastOnce)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                wire.clear();
                let mut fanout = Fanout::with_scratch(view, None, Instant::from_micros(1), &mut scratch);
                for number in 1..=SUBSCRIBERS {
                    let packet_id = (qos != QoS::AtMostOnce).then(|| PacketId::new(number as u16)).flatten();
                    let spec = PublishSpec {
                        version: Version::V5,
                        dup: false,
                        qos,
                        retain: false,
                        packet_id,
                        alias: None,
                        subscription_ids: &[],
                        packet_bytes_max: 0,
                    };
                    black_box(fanout.append(&spec, &mut wire));
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    codec(&mut criterion);
    fanout(&mut criterion);
    criterion.final_summary();
}
