//! Parking inside a glommio executor: deadlines, wakers, completions.

use super::*;
use crate::cores::{ExecutorsConfig, spawn_executors};
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// Runs `work` on one shard to its result.
fn on_executor<T: Send + 'static, W: Future<Output = T> + 'static>(work: impl FnOnce() -> W + Send + 'static) -> T {
    let config = ExecutorsConfig { shards: 1, pin: None, name: "ring-test".into() };
    let (sender, result) = channel();
    let once = Mutex::new(Some((work, sender)));
    let executors = spawn_executors(&config, move |_| {
        let (work, sender) = once.lock().expect("not poisoned").take().expect("one shard");
        let work = work();
        async move { sender.send(work.await).expect("the test waits") }
    });
    let result = result.recv().expect("a result");
    executors.expect("executors").join();
    result
}

/// Parks until `done` or the test's patience ends.
async fn park_until(bench: &mut Bench, what: &str, done: impl Fn(&Bench) -> bool) {
    let start = Instant::now();
    bench.turn();
    while !done(bench) {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        bench.ring.park(Some(PATIENCE)).await.expect("park");
        bench.turn();
    }
}

#[test]
fn a_deadline_ends_the_sleep_whatever_an_earlier_sleep_was_given() {
    on_executor(|| async {
        let mut ring = Ring::new(SMALL).expect("io_uring");
        let mut events = Vec::new();
        // A far deadline first, overtaken by a wake.
        ring.waker().wake();
        ring.park(Some(PATIENCE)).await.expect("park");
        for delay in [Duration::from_millis(30), Duration::from_millis(10)] {
            let start = Instant::now();
            while start.elapsed() < delay {
                ring.park(Some(delay.saturating_sub(start.elapsed()))).await.expect("park");
                ring.turn(&mut events).expect("turn");
            }
            assert!(start.elapsed() < PATIENCE / 2, "the far deadline must not count");
        }
        assert!(events.is_empty());
        assert!(ring.counters().sleeps >= 2);
    });
}

#[test]
fn a_zero_deadline_does_not_sleep() {
    on_executor(|| async {
        let mut ring = Ring::new(SMALL).expect("io_uring");
        ring.park(Some(Duration::ZERO)).await.expect("park");
        assert_eq!(ring.counters().sleeps, 0);
    });
}

#[test]
fn another_thread_wakes_a_parked_ring() {
    let (sender, receiver) = channel::<Waker>();
    let other = std::thread::spawn(move || receiver.recv().expect("a waker").wake());
    let slept = on_executor(move || async move {
        let mut ring = Ring::new(SMALL).expect("io_uring");
        sender.send(ring.waker()).expect("the other thread listens");
        ring.park(None).await.expect("park");
        ring.counters().sleeps
    });
    assert!(slept <= 1, "woken once, perhaps before it slept");
    other.join().expect("woke");
}

#[test]
fn connections_and_bytes_end_the_sleep_without_busy_turns() {
    let counters = on_executor(|| async {
        let mut bench = Bench::new(SMALL);
        let addr = bench.addr;
        let client = std::thread::spawn(move || {
            let mut client = TcpStream::connect(addr).expect("connect");
            client.set_read_timeout(Some(PATIENCE)).expect("option");
            for _ in 0..100 {
                client.write_all(b"ping").expect("write");
                client.read_exact(&mut [0; 4]).expect("read");
            }
        });
        park_until(&mut bench, "accepted", |bench| bench.accepted.len() == 1).await;
        let slot = bench.accepted[0];
        bench.ring.recv(slot);
        for round in 1..=100 {
            park_until(&mut bench, "ping", |bench| bench.bytes_of(slot).len() == 4 * round).await;
            bench.ring.send(slot, wire(b"pong"));
            park_until(&mut bench, "sent", |bench| bench.sent.len() == round).await;
        }
        park_until(&mut bench, "ended", |bench| bench.closed.len() == 1).await;
        client.join().expect("client");
        bench.ring.counters()
    });
    assert!(counters.enters < 500, "one or two system calls per round: {counters:?}");
}
