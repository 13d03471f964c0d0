//! The echo example under thousands of connections from threads of the standard library, on several shards.

#[path = "../examples/ring_echo/echo.rs"]
mod echo;

use bifro_net::cores::{ExecutorsConfig, SHARD_PANIC_EXIT_CODE, spawn_executors};
use bifro_net::mesh::{Inlet, InletSender, inlet, mesh};
use bifro_net::ring::{Counters, Ring, RingConfig, listener_tcp};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// An echo server on its own threads.
struct Server {
    addr: SocketAddr,
    stops: Vec<InletSender<()>>,
    counters: Arc<Mutex<Vec<Counters>>>,
    executors: bifro_net::cores::Executors,
}

impl Server {
    fn start(shards: u16) -> Self {
        // Reserves a port that every shard then binds.
        let listeners: Vec<_> = {
            let first = listener_tcp(([127, 0, 0, 1], 0).into(), 4096, true).expect("listener");
            let probe = TcpListener::from(first.try_clone().expect("clone"));
            let addr = probe.local_addr().expect("bound");
            std::iter::once(first)
                .chain((1..shards).map(|_| listener_tcp(addr, 4096, true).expect("listener")))
                .map(|fd| (addr, Some(fd)))
                .collect()
        };
        let addr = listeners[0].0;
        let (stops, inlets): (Vec<_>, Vec<Inlet<()>>) = (0..shards).map(|_| inlet(1)).unzip();
        let parts = mesh::<()>(shards, 1).into_iter().zip(inlets).zip(listeners);
        let parts = Mutex::new(parts.map(Some).collect::<Vec<_>>());
        let counters = Arc::new(Mutex::new(Vec::new()));
        let results = counters.clone();
        let config = ExecutorsConfig { shards, pin: None, name: "echo".into() };
        let executors = spawn_executors(&config, move |shard| {
            let part = parts.lock().expect("not poisoned")[shard.index()].take();
            let ((end, inlet), (_, listener)) = part.expect("one part per shard");
            let mut ring = Ring::new(RingConfig { buffers: 256, ..RingConfig::default() }).expect("a ring");
            end.set_waker(ring.waker());
            inlet.attach(end.bell());
            ring.listen(listener.expect("one listener per shard"), 0);
            let results = results.clone();
            async move {
                let counters = echo::serve(ring, end, inlet).await.expect("the ring works");
                results.lock().expect("not poisoned").push(counters);
            }
        });
        Self { addr, stops, counters, executors: executors.expect("executors") }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).expect("option");
        client
    }

    fn stop(self) -> Vec<Counters> {
        for stop in &self.stops {
            stop.send(()).expect("one message fits");
        }
        self.executors.join();
        std::mem::take(&mut *self.counters.lock().expect("not poisoned"))
    }
}

fn echoes(mut client: &TcpStream, message: &[u8]) {
    client.write_all(message).expect("write");
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).expect("read");
    assert!(answer == message);
}

#[test]
fn two_shards_echo_for_thousands_of_connections_that_come_and_go() {
    let server = Server::start(2);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let server = &server;
            scope.spawn(move || {
                let mut clients: Vec<TcpStream> = (0..600).map(|_| server.connect()).collect();
                for round in 0..3 {
                    for (index, client) in clients.iter().enumerate() {
                        let word = (thread << 24) | (round << 16) | u32::try_from(index).expect("few");
                        echoes(client, &word.to_le_bytes().repeat(16));
                    }
                    // A third of them leave: orderly, half closed first, or with a reset.
                    for (index, client) in clients.iter_mut().enumerate().filter(|(index, _)| index % 3 == 0) {
                        match index % 2 {
                            0 => {
                                client.shutdown(Shutdown::Write).expect("shutdown");
                                assert_eq!(client.read(&mut [0; 1]).expect("an orderly end"), 0);
                            }
                            _ => socket2::SockRef::from(&*client).set_linger(Some(Duration::ZERO)).expect("option"),
                        }
                        *client = server.connect();
                    }
                }
            });
        }
    });
    let counters = server.stop();
    assert_eq!(counters.len(), 2);
    assert!(counters.iter().all(|counters| counters.recvs > 1000), "both shards got connections: {counters:?}");
}

#[test]
fn large_messages_are_echoed_whole_while_readers_are_slow() {
    let server = Server::start(1);
    let message: Arc<Vec<u8>> = Arc::new((0..3_000_000_u32).map(|at| (at % 253) as u8).collect());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut reader, message) = (server.connect(), message.clone());
            let mut writer = reader.try_clone().expect("clone");
            let sent = message.clone();
            let writer = std::thread::spawn(move || {
                writer.write_all(&sent).expect("write");
                writer.shutdown(Shutdown::Write).expect("shutdown");
            });
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let mut small = [0; 1000];
                while let Ok(read @ 1..) = reader.read(&mut small) {
                    all.extend_from_slice(&small[..read]);
                    std::thread::yield_now();
                }
                writer.join().expect("writer");
                assert!(all == *message);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("client");
    }
    server.stop();
}

/// Names the child process of the next test.
const PANIC_IN: &str = "BIFRO_TEST_PANIC_IN";

#[test]
fn a_panic_on_a_shard_ends_the_process_with_its_reason() {
    match std::env::var(PANIC_IN).as_deref() {
        Ok("work") => return panic_on_a_shard(|| panic!("the work broke")),
        Ok("background") => {
            return panic_on_a_shard(|| glommio::spawn_local(async { panic!("the background broke") }).detach());
        }
        _ => {}
    }
    for place in ["work", "background"] {
        let output = std::process::Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "a_panic_on_a_shard_ends_the_process_with_its_reason", "--nocapture"])
            .env(PANIC_IN, place)
            .output()
            .expect("a child process");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(SHARD_PANIC_EXIT_CODE), "{told}");
        assert!(told.contains(&format!("shard 1 panicked: the {place} broke")), "{told}");
    }
}

fn panic_on_a_shard<T>(panics: impl Fn() -> T + Send + Sync + 'static) {
    let panics = Arc::new(panics);
    let config = ExecutorsConfig { shards: 2, pin: None, name: "doomed".into() };
    let executors = spawn_executors(&config, move |shard| {
        let panics = panics.clone();
        async move {
            if shard.0 == 1 {
                panics();
            }
            std::future::pending::<()>().await;
        }
    });
    executors.expect("executors").join();
}
