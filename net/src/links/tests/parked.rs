//! Two shards, each with its links driven from its ring, which sleeps whenever neither readiness nor a timer nor [`Links::has_more`] says
//! otherwise.

use super::*;
use crate::cores::{ExecutorsConfig, spawn_executors};
use crate::ring::{Event, Ring, RingConfig};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

const ROUNDS: usize = 500;

/// An endpoint whose keep-alives would help a missed wake-up along too late to pass the test.
fn patient(node: u64) -> End {
    let mut config = config(node, "secret");
    config.limits.keep_alive = PATIENCE;
    config.limits.idle = 3 * PATIENCE;
    End::new(config)
}

/// Takes turns until `react` has had enough of what happens. How often the ring slept.
async fn drive(end: &mut End, mut react: impl FnMut(&mut Links, LinkEvent) -> bool) -> u64 {
    let mut ring = Ring::new(RingConfig { entries: 64, cq_entries: 256, ..RingConfig::default() }).expect("io_uring");
    ring.watch(end.links.as_fd(), 1).expect("watch");
    let (mut happened, mut enough) = (Vec::new(), false);
    while !enough {
        ring.turn(&mut happened).expect("turn");
        let readable = happened.drain(..).any(|event| matches!(event, Event::Readable { token: 1 }));
        let due = end.links.next_timeout().is_some_and(|due| due <= end.clock.now());
        if readable || due || end.links.has_more() {
            end.links.read(end.clock.now(), &mut end.events);
        }
        for event in end.events.drain(..) {
            enough |= react(&mut end.links, event);
        }
        end.links.transmit(end.clock.now());
        if !end.links.has_more() {
            let wait = end.links.next_timeout().map(|due| due.since(end.clock.now()));
            ring.park(wait).await.expect("park");
        }
    }
    ring.counters().sleeps
}

/// Says something as often as it is answered; a megabyte each tenth time.
async fn caller(callee: Receiver<SocketAddr>) -> u64 {
    let mut end = patient(1);
    let link = end.dial(callee.recv().expect("the other shard is there"));
    let (mut rounds, megabyte) = (0, vec![7; 1 << 20]);
    let sleeps = drive(&mut end, |links, event| {
        match event {
            LinkEvent::Up { .. } => {}
            LinkEvent::Messages { run, .. } => rounds += messages_of(run).count(),
            LinkEvent::Down { reason, .. } => panic!("{reason}"),
        }
        let message = if rounds % 10 == 0 { &megabyte[..] } else { &b"ping"[..] };
        links.send(link, Lane::Bulk, message).expect("room");
        rounds == ROUNDS
    });
    let sleeps = sleeps.await;
    end.close(link, "enough");
    end.turn();
    sleeps
}

/// Says everything back until it is closed.
async fn callee(caller: Sender<SocketAddr>) -> u64 {
    let mut end = patient(2);
    caller.send(end.links.local_addr()).expect("the other shard waits");
    let sleeps = drive(&mut end, |links, event| {
        if let LinkEvent::Messages { link, lane, run } = &event {
            messages_of(run.clone()).for_each(|bytes| links.send(*link, *lane, &bytes).expect("room"));
        }
        matches!(event, LinkEvent::Down { .. })
    });
    sleeps.await
}

#[test]
fn readiness_and_timers_are_enough_to_drive_links_from_rings_that_sleep() {
    let config = ExecutorsConfig { shards: 2, pin: None, name: "links-test".into() };
    let (sender, slept) = channel();
    let (to_caller, from_callee) = channel();
    let ends = Mutex::new((Some(to_caller), Some(from_callee)));
    let start = Instant::now();
    let executors = spawn_executors(&config, move |shard| {
        let mut ends = ends.lock().expect("not poisoned");
        let (to_caller, from_callee) = if shard.0 == 0 { (None, ends.1.take()) } else { (ends.0.take(), None) };
        let sender = sender.clone();
        async move {
            let sleeps = match (from_callee, to_caller) {
                (Some(from_callee), _) => caller(from_callee).await,
                (_, to_caller) => callee(to_caller.expect("one for each shard")).await,
            };
            sender.send(sleeps).expect("the test waits");
        }
    });
    let slept = [slept.recv().expect("a result"), slept.recv().expect("a result")];
    executors.expect("executors").join();
    assert!(start.elapsed() < PATIENCE / 2, "no wake-up was missed: {:?}", start.elapsed());
    assert!(slept.iter().all(|sleeps| *sleeps > 0), "{slept:?}");
}
