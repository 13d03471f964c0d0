//! TCP echo on the network ring: `ring_echo [port] [shards]`. One shard by default; it reports its counters when its standard
//! input ends.

mod echo;

use bifro_net::cores::{ExecutorsConfig, pinning, spawn_executors};
use bifro_net::mesh::{Inlet, inlet, mesh};
use bifro_net::ring::{Ring, RingConfig, listener_tcp};
use std::io::Read;
use std::sync::Mutex;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().map_or(Ok(47_200), |port| port.parse())?;
    let shards: u16 = args.next().map_or(Ok(1), |shards| shards.parse())?;
    let (stops, inlets): (Vec<_>, Vec<Inlet<()>>) = (0..shards).map(|_| inlet(1)).unzip();
    let ends: Vec<_> = mesh::<()>(shards, 1).into_iter().zip(inlets).map(Some).collect();
    let ends = Mutex::new(ends);
    let config = ExecutorsConfig { shards, pin: pinning(shards), name: "echo".into() };
    let executors = spawn_executors(&config, move |shard| {
        let (end, inlet) = ends.lock().expect("not poisoned")[shard.index()].take().expect("one end per shard");
        let mut ring = Ring::new(RingConfig::default()).expect("a ring");
        let listener = listener_tcp(([127, 0, 0, 1], port).into(), 4096, true).expect("a listener");
        end.set_waker(ring.waker());
        inlet.attach(end.bell());
        ring.listen(listener, 0);
        async move {
            let counters = echo::serve(ring, end, inlet).await.expect("the ring works");
            eprintln!("{counters:?}");
        }
    })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for stop in stops {
        stop.send(()).expect("one message fits");
    }
    executors.join();
    Ok(())
}
