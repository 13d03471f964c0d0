//! Sending: shared payloads, more pieces than a request holds, slow readers, peers that are gone.

use super::*;
use bifro_core::ids::PublisherKey;
use bifro_core::message::{MessageView, QoS};

/// A wire of `cuts` shared payloads of `payload` bytes between small headers, and the bytes it stands for.
fn wire_with_cuts(cuts: usize, payload: usize) -> (Wire, Vec<u8>) {
    let payload = pattern(payload);
    let view = MessageView {
        topic: "t",
        properties: &[],
        payload: &payload,
        qos: QoS::AtMostOnce,
        retain: false,
        expiry_at: None,
        publisher: PublisherKey(0),
    };
    let message = view.to_message();
    let mut wire = Wire::default();
    for cut in 0..cuts {
        wire.bytes.extend_from_slice(&cut.to_le_bytes());
        wire.push_shared(message.clone());
    }
    wire.bytes.extend_from_slice(b"end");
    let bytes = wire.pieces().collect::<Vec<_>>().concat();
    (wire, bytes)
}

#[test]
fn shared_payloads_arrive_in_their_places() {
    let mut bench = Bench::new(SMALL);
    let (client, slot) = bench.connect();
    let reader = read_all(client);
    let (wire, expected) = wire_with_cuts(3, 100_000);
    bench.ring.send(slot, wire);
    bench.until("sent", |bench| bench.sent.len() == 1);
    bench.ring.close(slot);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    assert!(reader.join().expect("reader").expect("read") == expected);
}

#[test]
fn more_pieces_than_one_request_holds_go_out_in_several() {
    let mut bench = Bench::new(SMALL);
    let (client, slot) = bench.connect();
    let reader = read_all(client);
    let (wire, expected) = wire_with_cuts(3000, 700);
    let cuts = wire.cuts().len();
    bench.ring.send(slot, wire);
    bench.until("sent", |bench| bench.sent.len() == 1);
    assert_eq!(bench.sent[0].1.cuts().len(), cuts, "the wire comes back whole");
    assert_eq!(bench.ring.counters().short_sends, 5, "6001 pieces, 1024 at a time");
    bench.ring.close(slot);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    assert!(reader.join().expect("reader").expect("read") == expected);
}

#[test]
fn a_slow_reader_delays_only_itself() {
    let mut bench = Bench::new(SMALL);
    let (slow, slow_slot) = bench.connect();
    let bytes = pattern(16 << 20);
    bench.ring.send(slow_slot, wire(&bytes));
    bench.settle();
    assert!(bench.ring.is_sending(slow_slot) && bench.sent.is_empty());
    let (mut quick, quick_slot) = bench.connect();
    for _ in 0..100 {
        bench.ring.send(quick_slot, wire(b"tick"));
        let sent = bench.sent.len();
        bench.until("sent", |bench| bench.sent.len() > sent);
        quick.read_exact(&mut [0; 4]).expect("read");
    }
    let reader = read_all(slow);
    bench.until("sent", |bench| !bench.ring.is_sending(slow_slot));
    bench.ring.close(slow_slot);
    bench.until("closed", |bench| bench.ring.sockets() == 1);
    assert!(reader.join().expect("reader").expect("read") == bytes);
}

#[test]
fn sending_to_a_peer_that_is_gone_returns_the_wire_with_the_error() {
    let mut bench = Bench::new(SMALL);
    let (client, slot) = bench.connect();
    bench.ring.recv(slot);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("option");
    drop(client);
    bench.until("reset", |bench| !bench.closed.is_empty());
    assert_eq!(bench.closed[0].1.as_ref().and_then(io::Error::raw_os_error), Some(libc::ECONNRESET));
    bench.ring.send(slot, wire(b"too late"));
    bench.until("failed", |bench| !bench.sent.is_empty());
    let (_, wire, error) = bench.sent.pop().expect("one");
    assert_eq!(wire.bytes, b"too late");
    assert_eq!(error.and_then(|error| error.raw_os_error()), Some(libc::EPIPE));
    bench.ring.abort(slot);
    assert_eq!(bench.ring.sockets(), 0);
}

#[test]
#[should_panic(expected = "one send in flight")]
fn a_second_send_while_one_is_in_flight_is_a_fault_of_the_caller() {
    let mut bench = Bench::new(SMALL);
    let (_client, slot) = bench.connect();
    bench.ring.send(slot, wire(b"one"));
    bench.ring.send(slot, wire(b"two"));
}
