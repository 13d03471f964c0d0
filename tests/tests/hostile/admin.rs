//! Row 22: the HTTP endpoint for operators, used by no operator.

use crate::arena::{Arena, MIB};
use bifro_tests::{PATIENCE, http};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn row_22_wrong_methods_paths_and_queries_get_the_status_for_it() {
    let mut arena = Arena::new();
    let admin = arena.broker.address("admin");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(http::get(admin, path).status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            let answer = http::send(admin, request.as_bytes());
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            assert!(answer.head.to_lowercase().contains("allow: get"), "{answer:?}");
        }
    }
    let unknown =
        ["/metric", "/metrics/", "//metrics", "/../metrics", "/%6Detrics%00", "/api/v1/clients", "/%", "/\u{e9}"];
    for path in unknown {
        let answer = http::get(admin, path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    for query in ["per=core", "per", "per=shard&per=shard", "x=1", "per=%FF", &"a=b&".repeat(2000)] {
        let answer = http::get(admin, &format!("/metrics?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_22_heads_and_bodies_beyond_the_limit_are_cut_off() {
    let mut arena = Arena::new();
    let admin = arena.broker.address("admin");
    let requests = [
        ("a long header", format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10)), 431),
        ("many headers", format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000)), 431),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(80 << 10)), 414),
    ];
    for (name, request, status) in requests {
        let answer = http::send(admin, request.as_bytes());
        assert!(answer.status == status || answer.status == 431, "{name}: {answer:?}");
    }
    // A body that nobody asked for, announced as larger than memory, in chunks without end, or in two ways at once.
    for head in [
        "Content-Length: 18446744073709551615",
        "Transfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ] {
        let mut stream = TcpStream::connect(admin).expect("the admin listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = write!(stream, "POST /metrics HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
        let chunk = [&b"8000\r\n"[..], &vec![b'x'; 0x8000], b"\r\n"].concat();
        let written = (0..1000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(written < 1000, "{head}: 32 MB were taken");
    }
    arena.check();
    arena.finish(24 * MIB);
}

#[test]
fn row_22_what_is_no_http_is_closed_and_changes_nothing() {
    let mut arena = Arena::new();
    let admin = arena.broker.address("admin");
    let noise: [&[u8]; 8] = [
        b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz\x00 HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Header: \xFF\x00\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ];
    for bytes in noise {
        let mut stream = TcpStream::connect(admin).expect("the admin listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(bytes).expect("just connected");
        stream.shutdown(Shutdown::Write).expect("just connected");
        let mut answer = Vec::new();
        // A reset is an end like any other.
        let ended = stream.read_to_end(&mut answer);
        assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "{bytes:?}");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{:?}", String::from_utf8_lossy(&answer));
    }
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_22_clients_that_take_their_time_are_closed_and_keep_others_waiting_for_seconds_at_most() {
    let mut arena = Arena::new();
    let admin = arena.broker.address("admin");
    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(admin).expect("the admin listens");
            stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").expect("just connected");
            stream
        })
        .collect();
    let start = Instant::now();
    // Every place is taken; MQTT does not care.
    arena.check();
    let mut stream = TcpStream::connect(admin).expect("the kernel's queue has room");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("just connected");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer once a place is free");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(start.elapsed() < Duration::from_secs(15), "others waited for {:?}", start.elapsed());
    drop(slow);
    arena.finish(16 * MIB);
}
