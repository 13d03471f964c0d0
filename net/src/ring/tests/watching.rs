//! Descriptors of others: readiness is reported once per arrival, and however often the kernel ends the poll.

use super::*;
use std::net::UdpSocket;
use std::os::fd::AsFd;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    socket.set_nonblocking(true).expect("option");
    socket
}

#[test]
fn datagrams_are_announced_with_the_token_of_their_socket() {
    let mut bench = Bench::new(SMALL);
    let (one, other, sender) = (socket(), socket(), socket());
    bench.ring.watch(one.as_fd(), 7).expect("watch");
    bench.ring.watch(other.as_fd(), 8).expect("watch");
    bench.settle();
    assert!(bench.readable.is_empty(), "nothing has arrived");
    for round in 1..=1000 {
        let (socket, token) = if round % 3 == 0 { (&other, 8) } else { (&one, 7) };
        sender.send_to(b"ping", socket.local_addr().expect("bound")).expect("send");
        bench.until("readable", |bench| bench.readable.contains(&token));
        assert!(bench.readable.drain(..).all(|said| said == token));
        assert_eq!(socket.recv(&mut [0; 8]).expect("it was said to be readable"), 4);
    }
}

#[test]
fn what_is_there_already_is_announced_and_the_owner_may_go_first() {
    let mut bench = Bench::new(SMALL);
    let (socket, sender) = (socket(), socket());
    sender.send_to(b"early", socket.local_addr().expect("bound")).expect("send");
    bench.ring.watch(socket.as_fd(), 1).expect("watch");
    bench.until("readable", |bench| bench.readable == [1]);
    drop(socket);
    bench.settle();
    assert_eq!(bench.readable, [1]);
}
