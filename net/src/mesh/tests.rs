//! The mesh between real parked rings, and its order and fairness without them.

use super::*;
use crate::cores::{ExecutorsConfig, spawn_executors};
use crate::ring::{Ring, RingConfig};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const SMALL: RingConfig =
    RingConfig { entries: 64, cq_entries: 128, buffers: 8, buffer_bytes: 256, spin: Duration::ZERO };

/// Runs one future per end on its own unpinned executor, to the end.
fn on_shards<M, F, W>(ends: Vec<MeshEnd<M>>, work: F)
where
    M: Send + 'static,
    F: Fn(MeshEnd<M>, Ring) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + 'static,
{
    let shards = u16::try_from(ends.len()).expect("few");
    let ends: Mutex<Vec<Option<MeshEnd<M>>>> = Mutex::new(ends.into_iter().map(Some).collect());
    let config = ExecutorsConfig { shards, pin: None, name: "mesh-test".into() };
    let executors = spawn_executors(&config, move |shard| {
        let end = ends.lock().expect("not poisoned")[shard.index()].take().expect("one end per shard");
        let ring = Ring::new(SMALL).expect("io_uring");
        end.set_waker(ring.waker());
        work(end, ring)
    });
    executors.expect("executors").join();
}

/// Sleeps unless there is something to do, then fills the inbox.
async fn turn<M: Send>(end: &mut MeshEnd<M>, ring: &mut Ring, inbox: &mut Vec<(ShardId, M)>) {
    if end.prepare_park(false) {
        ring.park(None).await.expect("park");
        end.unpark();
    }
    ring.turn(&mut Vec::new()).expect("turn");
    end.drain(256, inbox);
}

/// One message of a volley; the last one passes the turn to the other side.
struct Ball {
    number: u64,
    ends_volley: bool,
}

/// Length of a volley: from one message, when the other side surely sleeps, to more than a queue holds.
fn volley_len(number: u64) -> u64 {
    match number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 {
        short if short % 4 == 0 => 1,
        long => 1 + long % 300,
    }
}

/// Sends a volley starting at `number`; returns the number after it.
fn hit(end: &mut MeshEnd<Ball>, to: ShardId, number: u64) -> u64 {
    let len = volley_len(number);
    for number in number..number + len {
        end.send(to, Ball { number, ends_volley: false });
    }
    end.send(to, Ball { number: number + len, ends_volley: true });
    number + len + 1
}

#[test]
fn two_parking_shards_exchange_a_million_messages_and_no_wake_up_is_lost() {
    const EACH: u64 = 500_000;
    let sleeps = Arc::new(AtomicU64::new(0));
    let total = sleeps.clone();
    on_shards(mesh::<Ball>(2, 128), move |mut end, mut ring| {
        let sleeps = sleeps.clone();
        async move {
            let peer = ShardId(1 - end.shard().0);
            let (mut sent, mut received, mut inbox) = (0, 0, Vec::new());
            if end.shard().0 == 0 {
                sent = hit(&mut end, peer, sent);
            }
            end.flush();
            let mut over = false;
            while !over || end.overflow_len() > 0 {
                turn(&mut end, &mut ring, &mut inbox).await;
                for (from, ball) in inbox.drain(..) {
                    assert_eq!((from, ball.number), (peer, received), "nothing lost, nothing overtaken");
                    received += 1;
                    if ball.ends_volley {
                        if sent < EACH || received < EACH {
                            sent = hit(&mut end, peer, sent);
                        }
                        over = sent >= EACH && received >= EACH;
                    }
                }
                end.flush();
            }
            sleeps.fetch_add(ring.counters().sleeps, Ordering::Relaxed);
        }
    });
    assert!(total.load(Ordering::Relaxed) > 1000, "the shards must really have parked");
}

#[test]
fn whoever_waits_for_a_peer_to_catch_up_is_woken_and_never_far_ahead() {
    const MESSAGES: u64 = 200_000;
    const BURST: u64 = 8;
    let sleeps = Arc::new(AtomicU64::new(0));
    let total = sleeps.clone();
    on_shards(mesh::<u64>(2, 1024), move |mut end, mut ring| {
        let sleeps = sleeps.clone();
        async move {
            if end.shard().0 == 0 {
                let mut sent = 0;
                while sent < MESSAGES {
                    let waits = end.is_peer_behind();
                    if !waits {
                        (sent..sent + BURST).for_each(|number| end.send(ShardId(1), number));
                        sent += BURST;
                        end.flush();
                    } else if end.prepare_park(true) {
                        ring.park(None).await.expect("park");
                        end.unpark();
                    }
                    ring.turn(&mut Vec::new()).expect("turn");
                    assert!(end.lanes[1].queue.len() <= BEHIND + BURST as usize);
                }
                sleeps.fetch_add(ring.counters().sleeps, Ordering::Relaxed);
                return;
            }
            let (mut received, mut inbox) = (0, Vec::new());
            while received < MESSAGES {
                turn(&mut end, &mut ring, &mut inbox).await;
                for (_, number) in inbox.drain(..) {
                    assert_eq!(number, received);
                    received += 1;
                    if received % 1000 == 0 {
                        // Long enough for the sender to be far ahead, and to sleep.
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
            }
        }
    });
    assert!(total.load(Ordering::Relaxed) > 100, "the sender must really have waited");
}

#[test]
fn both_queues_full_in_both_directions_is_no_deadlock() {
    const EACH: u64 = 100_000;
    on_shards(mesh::<u64>(3, 4), |mut end, mut ring| async move {
        let peers = [0, 1, 2].map(ShardId);
        for number in 0..EACH {
            peers.iter().for_each(|peer| end.send(*peer, number));
        }
        assert!(end.overflow_len() > 0);
        end.flush();
        let mut received = [0; 3];
        let mut inbox = Vec::new();
        while received != [EACH; 3] || end.overflow_len() > 0 {
            turn(&mut end, &mut ring, &mut inbox).await;
            for (from, number) in inbox.drain(..) {
                assert_eq!(number, received[from.index()]);
                received[from.index()] += 1;
            }
            end.flush();
        }
    });
}

#[test]
fn an_inlet_wakes_its_parked_shard_and_refuses_when_full() {
    const MESSAGES: u64 = 100_000;
    let (sender, inlet) = inlet::<u64>(16);
    let foreign = std::thread::spawn(move || {
        let mut refused = 0_u64;
        for number in 0..MESSAGES {
            let mut message = number;
            while let Err(back) = sender.send(message) {
                message = back;
                refused += 1;
                std::thread::yield_now();
            }
        }
        refused
    });
    let inlet = Mutex::new(Some(inlet));
    on_shards(mesh::<()>(1, 1), move |mut end, mut ring| {
        let inlet = inlet.lock().expect("not poisoned").take().expect("one shard");
        async move {
            inlet.attach(end.bell());
            let mut expected = 0;
            while expected < MESSAGES {
                if end.prepare_park(false) {
                    if inlet.is_empty() {
                        ring.park(None).await.expect("park");
                    }
                    end.unpark();
                }
                ring.turn(&mut Vec::new()).expect("turn");
                while let Some(number) = inlet.pop() {
                    assert_eq!(number, expected);
                    expected += 1;
                }
            }
        }
    });
    foreign.join().expect("the sender ends");
    let (sender, _kept) = super::inlet::<u8>(1);
    assert_eq!((sender.send(1), sender.send(2)), (Ok(()), Err(2)));
}

#[test]
fn draining_serves_every_peer_however_much_one_has_sent() {
    let mut ends = mesh::<u32>(3, 1024);
    for number in 0..1000 {
        ends[0].send(ShardId(2), number);
    }
    ends[1].send(ShardId(2), 7);
    ends[2].send(ShardId(2), 8);
    let mut out = Vec::new();
    ends[2].drain(80, &mut out);
    assert_eq!(out.len(), 80);
    assert!(out.contains(&(ShardId(1), 7)) && out.contains(&(ShardId(2), 8)));
    ends[2].drain(10_000, &mut out);
    assert_eq!(out.len(), 1002);
    let from_first: Vec<u32> = out.iter().filter(|(from, _)| from.0 == 0).map(|(_, number)| *number).collect();
    assert!(from_first.is_sorted());
}

#[test]
fn overflow_keeps_the_order_and_is_counted() {
    let mut ends = mesh::<u32>(2, 2);
    for number in 0..5 {
        ends[0].send(ShardId(1), number);
    }
    assert_eq!(ends[0].overflow_len(), 3);
    let mut out = Vec::new();
    ends[1].drain(1, &mut out);
    ends[0].send(ShardId(1), 5);
    assert_eq!(ends[0].overflow_len(), 4, "nothing overtakes what waits");
    while ends[0].overflow_len() > 0 {
        ends[0].flush();
        ends[1].drain(10, &mut out);
    }
    assert_eq!(out.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}
