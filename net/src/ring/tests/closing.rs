//! Ends of connections, and what becomes of their slots.

use super::*;

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    client.write_all(b"question").expect("write");
    client.shutdown(std::net::Shutdown::Write).expect("shutdown");
    bench.until("ended", |bench| !bench.closed.is_empty());
    assert!(bench.closed[0].1.is_none());
    assert_eq!(bench.bytes_of(slot), b"question");
    bench.ring.send(slot, wire(b"answer"));
    bench.ring.close(slot);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an orderly end");
    assert_eq!(answer, b"answer");
}

#[test]
fn closing_lets_the_send_in_flight_finish() {
    let mut bench = Bench::new(SMALL);
    let (client, slot) = bench.connect();
    bench.ring.recv(slot);
    let bytes = pattern(16 << 20);
    bench.ring.send(slot, wire(&bytes));
    bench.ring.close(slot);
    bench.settle();
    assert!(bench.ring.is_sending(slot) && !bench.ring.is_open(slot));
    let reader = read_all(client);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    assert!(reader.join().expect("reader").expect("an orderly end") == bytes);
    assert!(bench.sent.is_empty() && bench.closed.is_empty(), "no events after close");
}

#[test]
fn unread_bytes_do_not_turn_a_close_into_a_reset() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    client.write_all(&pattern(100_000)).expect("write");
    bench.ring.send(slot, wire(b"goodbye"));
    bench.settle();
    bench.ring.close(slot);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an orderly end");
    assert_eq!(answer, b"goodbye");
}

#[test]
fn aborting_cuts_a_stuck_send_short() {
    for close_first in [false, true] {
        let mut bench = Bench::new(SMALL);
        let (client, slot) = bench.connect();
        bench.ring.recv(slot);
        bench.ring.send(slot, wire(&pattern(16 << 20)));
        bench.settle();
        if close_first {
            bench.ring.close(slot);
            bench.settle();
        }
        assert!(bench.ring.is_sending(slot));
        bench.ring.abort(slot);
        bench.ring.abort(slot);
        bench.until("closed", |bench| bench.ring.sockets() == 0);
        assert!(bench.sent.is_empty() && bench.closed.is_empty(), "no events after abort");
        let read = read_all(client).join().expect("reader");
        assert!(read.map_or(0, |bytes| bytes.len()) < 16 << 20);
    }
}

#[test]
fn a_slot_is_reused_with_the_next_generation_and_its_old_name_means_nothing() {
    let mut bench = Bench::new(SMALL);
    let (_first, old) = bench.connect();
    bench.ring.recv(old);
    bench.ring.close(old);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    let (mut second, new) = bench.connect();
    assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
    bench.ring.recv(new);
    bench.ring.abort(old);
    bench.ring.close(old);
    assert!(!bench.ring.is_open(old) && !bench.ring.is_sending(old));
    second.write_all(b"still here").expect("write");
    bench.until("received", |bench| bench.bytes_of(new) == b"still here");
}

#[test]
fn nothing_received_is_reported_after_close() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    bench.settle();
    client.write_all(b"ignored").expect("write");
    bench.ring.close(slot);
    bench.until("closed", |bench| bench.ring.sockets() == 0);
    assert_eq!(bench.bytes_of(slot), b"");
    // Its buffer is back: all of them are usable.
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    let said = pattern(50_000);
    let told = said.clone();
    let writer = std::thread::spawn(move || client.write_all(&told).map(|()| client));
    bench.until("received", |bench| bench.bytes_of(slot).len() == said.len());
    writer.join().expect("writer").expect("write");
}

#[test]
fn dropping_a_ring_ends_everything_in_flight() {
    let mut bench = Bench::new(SMALL);
    let (client, slot) = bench.connect();
    let (idle, idle_slot) = bench.connect();
    bench.ring.recv(slot);
    bench.ring.recv(idle_slot);
    bench.ring.send(slot, wire(&pattern(16 << 20)));
    bench.settle();
    let addr = bench.addr;
    drop(bench);
    assert!(read_all(client).join().expect("reader").map_or(0, |bytes| bytes.len()) < 16 << 20);
    assert_eq!(read_all(idle).join().expect("reader").expect("an orderly end"), b"");
    assert!(TcpStream::connect(addr).is_err());
}
