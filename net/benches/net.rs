//! A message between two shards, and bytes through the network ring, without what comes between them in a broker.

use bifro_core::ids::ShardId;
use bifro_mqtt::wire::Wire;
use bifro_net::mesh::mesh;
use bifro_net::ring::{Event, Ring, RingConfig, listener_tcp};
use criterion::{Criterion, Throughput};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

fn hop(criterion: &mut Criterion) {
    let mut ends = mesh::<u64>(2, 1024);
    let (mut second, mut first) = (ends.pop().expect("two"), ends.pop().expect("two"));
    let mut inbox = Vec::new();
    let mut group = criterion.benchmark_group("mesh/hop");
    for batch in [1_u64, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("{batch} per turn"), |b| {
            b.iter(|| {
                for number in 0..batch {
                    first.send(ShardId(1), number);
                }
                first.flush();
                second.drain(batch as usize, &mut inbox);
                black_box(inbox.drain(..).count())
            });
        });
    }
    group.finish();
}

/// A connected socket in a ring, and its client.
fn connected() -> (Ring, bifro_core::ids::Slot, TcpStream) {
    let mut ring = Ring::new(RingConfig::default()).expect("io_uring");
    let listener = listener_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 8, false).expect("a listener");
    let address = socket2::SockRef::from(&listener).local_addr().expect("it is bound").as_socket().expect("an address");
    ring.listen(listener, 0);
    let client = TcpStream::connect(address).expect("it listens");
    client.set_nodelay(true).expect("an option");
    let mut events = Vec::new();
    loop {
        ring.turn(&mut events).expect("a turn");
        for event in events.drain(..) {
            if let Event::Accepted { fd, .. } = event {
                let slot = ring.add(fd);
                ring.recv(slot);
                return (ring, slot, client);
            }
        }
    }
}

fn echo(criterion: &mut Criterion) {
    let (mut ring, slot, mut client) = connected();
    let (mut events, mut spare) = (Vec::new(), vec![Wire::default()]);
    let mut group = criterion.benchmark_group("ring/echo");
    for bytes in [64_usize, 4096] {
        let message = vec![b'x'; bytes];
        let mut answer = vec![0; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{bytes} bytes, client's system calls included"), |b| {
            b.iter(|| {
                client.write_all(&message).expect("it is open");
                let (mut received, mut wire) = (0, spare.pop().unwrap_or_default());
                wire.clear();
                while received < bytes {
                    ring.turn(&mut events).expect("a turn");
                    for event in events.drain(..) {
                        match event {
                            Event::Received { buffer, len, .. } => {
                                wire.bytes.extend_from_slice(ring.buffer(&buffer, len));
                                ring.recycle(buffer);
                                received += len as usize;
                            }
                            Event::Sent { wire, .. } => spare.push(wire),
                            other => panic!("unexpected: {other:?}"),
                        }
                    }
                }
                ring.send(slot, wire);
                ring.turn(&mut events).expect("a turn");
                client.read_exact(&mut answer).expect("it is open");
                // The next send must not find this one in flight.
                while spare.is_empty() {
                    for event in events.drain(..) {
                        let Event::Sent { wire, .. } = event else { panic!("unexpected: {event:?}") };
                        spare.push(wire);
                    }
                    ring.turn(&mut events).expect("a turn");
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hop(&mut criterion);
    echo(&mut criterion);
    criterion.final_summary();
}
