//! Accepting and receiving: echo, pauses, want of buffers, want of descriptors, readiness of foreign descriptors.

use super::*;

#[test]
fn what_a_client_says_is_received_and_what_is_sent_is_read() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    client.write_all(b"hello").expect("write");
    bench.until("received", |bench| bench.bytes_of(slot) == b"hello");
    bench.ring.send(slot, wire(b"world"));
    assert!(bench.ring.is_sending(slot));
    let mut answer = [0; 5];
    bench.until("sent", |bench| bench.sent.len() == 1);
    client.read_exact(&mut answer).expect("read");
    assert_eq!(&answer, b"world");
    let (sent, wire, error) = bench.sent.pop().expect("one");
    assert_eq!((sent, wire.bytes.as_slice(), error.is_none()), (slot, &b"world"[..], true));
    assert!(!bench.ring.is_sending(slot));
}

#[test]
fn the_peer_address_of_an_accepted_connection_is_known() {
    let mut ring = Ring::new(SMALL).expect("io_uring");
    let listener = listener_tcp(([127, 0, 0, 1], 0).into(), 16, true).expect("listener");
    let addr = SockRef::from(&listener).local_addr().ok().and_then(|addr| addr.as_socket()).expect("bound");
    ring.listen(listener, 42);
    let client = TcpStream::connect(addr).expect("connect");
    let mut events = Vec::new();
    while events.is_empty() {
        ring.turn(&mut events).expect("turn");
    }
    let Some(Event::Accepted { listener: 42, fd }) = events.pop() else { panic!("not accepted") };
    assert_eq!(peer_addr(&fd), client.local_addr().ok());
    drop(client);
}

#[test]
fn an_idle_turn_costs_no_system_call() {
    let mut bench = Bench::new(SMALL);
    let (_client, slot) = bench.connect();
    bench.ring.recv(slot);
    bench.settle();
    bench.turn();
    let before = bench.ring.counters();
    for _ in 0..1000 {
        bench.turn();
    }
    assert_eq!(bench.ring.counters(), before);
}

#[test]
fn a_paused_connection_is_not_read_until_it_resumes() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    client.write_all(b"before ").expect("write");
    bench.until("received", |bench| bench.bytes_of(slot) == b"before ");
    bench.ring.pause_recv(slot);
    bench.settle();
    client.write_all(b"after").expect("write");
    bench.settle();
    assert_eq!(bench.bytes_of(slot), b"before ");
    bench.ring.resume_recv(slot);
    bench.until("received", |bench| bench.bytes_of(slot) == b"before after");
}

#[test]
fn pausing_and_resuming_within_a_turn_loses_nothing() {
    let mut bench = Bench::new(SMALL);
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    let said = pattern(200_000);
    let told = said.clone();
    let writer = std::thread::spawn(move || client.write_all(&told).map(|()| client));
    let mut toggles = 0;
    bench.until("all received", |bench| {
        bench.ring.pause_recv(slot);
        if toggles % 3 == 0 {
            bench.turn();
        }
        bench.ring.resume_recv(slot);
        toggles += 1;
        bench.bytes_of(slot).len() == said.len()
    });
    assert_eq!(bench.bytes_of(slot), said);
    writer.join().expect("writer").expect("write");
}

#[test]
fn want_of_buffers_ends_when_buffers_come_back() {
    let mut bench = Bench::new(RingConfig { buffers: 2, buffer_bytes: 64, ..SMALL });
    let (mut client, slot) = bench.connect();
    bench.ring.recv(slot);
    let said = pattern(100_000);
    let told = said.clone();
    let writer = std::thread::spawn(move || client.write_all(&told).map(|()| client));
    bench.until("all received", |bench| bench.bytes_of(slot).len() == said.len());
    assert_eq!(bench.bytes_of(slot), said);
    assert!(bench.ring.counters().enobufs > 0);
    let client = writer.join().expect("writer").expect("write");
    // With every buffer on loan the ring waits instead of spinning.
    bench.recycles = false;
    let mut client = client;
    client.write_all(&said[..1000]).expect("write");
    bench.until("all buffers on loan", |bench| bench.held.len() == 2);
    bench.turn();
    bench.turn();
    let idle = bench.ring.counters();
    for _ in 0..100 {
        bench.turn();
    }
    assert_eq!(bench.ring.counters(), idle);
    bench.recycles = true;
    for buffer in std::mem::take(&mut bench.held) {
        bench.ring.recycle(buffer);
    }
    bench.until("the rest", |bench| bench.bytes_of(slot).len() == said.len() + 1000);
}

#[test]
fn many_connections_share_few_buffers() {
    let mut bench = Bench::new(RingConfig { entries: 8, cq_entries: 16, buffers: 4, buffer_bytes: 64, ..SMALL });
    let clients: Vec<_> = (0..100).map(|_| bench.connect()).collect();
    for (mut client, slot) in clients.iter().map(|(client, slot)| (client, *slot)) {
        bench.ring.recv(slot);
        client.write_all(&slot.index.to_le_bytes().repeat(100)).expect("write");
    }
    for (_, slot) in &clients {
        bench.until("received", |bench| bench.bytes_of(*slot) == slot.index.to_le_bytes().repeat(100));
        bench.ring.send(*slot, wire(b"ok"));
    }
    bench.until("sent", |bench| bench.sent.len() == 100);
    assert!(bench.ring.counters().queue_full > 0, "eight entries are too few for a hundred connections");
}

/// Runs on its own thread with its own table of descriptors, so that no other test runs out of them.
#[test]
fn without_descriptors_accepting_stops_and_goes_on_when_resumed() {
    let test = || {
        let mut bench = Bench::new(SMALL);
        bench.turn();
        let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(bench.addr).expect("connect")).collect();
        bench.until("accepted", |bench| bench.accepted.len() == 3);
        // SAFETY: gives this thread a copy of the table; all descriptors made here are closed on this thread.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
        let late = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        let mut hoard: Vec<OwnedFd> = Vec::new();
        while let Ok(fd) = late.try_clone().map(OwnedFd::from) {
            hoard.push(fd);
        }
        late.connect(&bench.addr.into()).expect("connect");
        bench.until("refused", |bench| !bench.accept_failures.is_empty());
        assert_eq!(bench.accept_failures[0].raw_os_error(), Some(libc::EMFILE));
        bench.turn();
        assert_eq!(bench.accept_failures.len(), 1, "accepting waits to be resumed");
        hoard.truncate(hoard.len() - 2);
        bench.ring.resume_accept(0);
        bench.until("accepted", |bench| bench.accepted.len() == 4);
        clients.push(late.into());
    };
    std::thread::spawn(test).join().expect("the test");
}

#[test]
fn nobody_is_accepted_after_listening_stopped() {
    let mut bench = Bench::new(SMALL);
    let (_client, _slot) = bench.connect();
    bench.ring.stop_listening();
    bench.until("refused", |bench| TcpStream::connect(bench.addr).is_err());
    assert!(bench.accept_failures.is_empty());
}

#[test]
fn a_socket_file_is_replaced_only_if_nobody_listens() {
    let path = std::env::temp_dir().join(format!("bifro-ring-{}.sock", std::process::id()));
    let first = listener_unix(&path, 0o600, 16).expect("bound");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(listener_unix(&path, 0o600, 16).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
    drop(first);
    let mut bench = Bench::new(SMALL);
    let second = listener_unix(&path, 0o666, 16).expect("the stale file is replaced");
    bench.ring.stop_listening();
    let mut events = Vec::new();
    bench.ring.listen(second, 1);
    let mut client = std::os::unix::net::UnixStream::connect(&path).expect("connect");
    while !matches!(events.last(), Some(Event::Accepted { listener: 1, .. })) {
        bench.ring.turn(&mut events).expect("turn");
    }
    let Some(Event::Accepted { fd, .. }) = events.pop() else { panic!("just seen") };
    assert_eq!(peer_addr(&fd), None);
    let slot = bench.ring.add(fd);
    bench.ring.recv(slot);
    client.write_all(b"local").expect("write");
    bench.until("received", |bench| bench.bytes_of(slot) == b"local");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "precious").expect("written");
    assert_eq!(listener_unix(&path, 0o600, 16).expect_err("not a socket").kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
    std::fs::remove_file(&path).expect("removed");
}
