//! What the log and the KV engine cost on this machine: `cargo run --release -p bifro-store --example storage [DIR]`, the directory
//! being on the disk in question.

use bifro_store::data_dir::DataDir;
use bifro_store::fatal::exit_process;
use bifro_store::kv::{FjallBase, FjallConfig, KvEngine, Outcome, SpaceId, SpaceLimits};
use bifro_store::wal::{Durability, GroupId, Wal, WalBatch, WalConfig, WalEntry, WalEvent, WalPort};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PAYLOAD_BYTES: usize = 256;
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let mut text = String::from(
        "| what | entries a batch | batches/s | entries/s | p99 batch | bytes written per payload byte |\n|---|---|---|---|---|---|\n",
    );
    for durability in [Durability::Fsync, Durability::Os] {
        for entries in [1, 16, 256] {
            text += &log_row(&root, durability, entries);
        }
    }
    text += &checkpoint(&root);
    std::io::stdout().write_all(text.as_bytes()).expect("somebody reads it");
}

fn fresh(root: &Path) -> PathBuf {
    let dir = root.join(format!("bifro-storage-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// Waits until everything up to the last submitted batch is durable.
fn wait(port: &mut WalPort, woken: &Receiver<()>) {
    let mut events = Vec::new();
    loop {
        port.poll(&mut events);
        if events.drain(..).any(|event| matches!(event, WalEvent::Durable { .. })) {
            return;
        }
        woken.recv().expect("the log lives");
    }
}

/// One port, one batch at a time, the next when the last is durable.
fn log_row(root: &Path, durability: Durability, entries: u64) -> String {
    let dir = fresh(root);
    let data = DataDir::open(&dir).expect("a data directory");
    let config = WalConfig { durability, ..WalConfig::default() };
    let (wal, _) = Wal::open(&data, config, exit_process()).expect("the log opens");
    let (ring, woken) = channel();
    let mut port = wal.port(Arc::new(move || {
        // The measurement may be over.
        let _ = ring.send(());
    }));
    let (mut next, mut took) = (1, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < SPAN {
        let mut batch = WalBatch::default();
        let some = (next..next + entries).map(|index| WalEntry::new(index, &[7; PAYLOAD_BYTES]));
        batch.append(GroupId(1), some.collect());
        next += entries;
        let sent = Instant::now();
        port.submit(batch).expect("there is room");
        wait(&mut port, &woken);
        took.push(sent.elapsed());
    }
    took.sort_unstable();
    let (batches, seconds) = (took.len() as f64, begun.elapsed().as_secs_f64());
    let written = wal.metrics().wal_write_bytes.read() as f64;
    drop((port, wal));
    let _ = std::fs::remove_dir_all(&dir);
    format!(
        "| log, {durability:?} | {entries} | {:.0} | {:.0} | {:.2?} | {:.2} |\n",
        batches / seconds,
        batches * entries as f64 / seconds,
        took[took.len() * 99 / 100],
        written / (batches * entries as f64 * PAYLOAD_BYTES as f64),
    )
}

/// A checkpoint of 32 MiB of messages, and messages that come and go between two checkpoints.
fn checkpoint(root: &Path) -> String {
    let dir = fresh(root);
    let data = DataDir::open(&dir).expect("a data directory");
    let base = FjallBase::open(&data, FjallConfig::default()).expect("the base opens");
    let engine = KvEngine::new(Arc::new(base)).expect("threads");
    let (ring, woken) = channel();
    let shard = engine.shard(
        Arc::new(move || {
            // The measurement may be over.
            let _ = ring.send(());
        }),
        SpaceLimits::default(),
    );
    let mut space = shard.open(SpaceId(1)).expect("a new space");
    let mut number = 0_u64;
    let begun = Instant::now();
    while !space.wants_checkpoint() {
        number += 1;
        space.put_new(&number.to_be_bytes(), &[7; PAYLOAD_BYTES]);
    }
    let filled = begun.elapsed();
    space.set_applied(number);
    let begun = Instant::now();
    assert!(space.checkpoint(b""));
    let mut done = Vec::new();
    while done.is_empty() {
        woken.recv().expect("the engine lives");
        shard.poll(&mut done);
    }
    let outcome = space.complete(done.remove(0));
    assert!(matches!(outcome, Outcome::Checkpointed { .. }), "the disk has room");
    let took = begun.elapsed();
    let begun = Instant::now();
    for fresh in number + 1..=2 * number {
        space.put_new(&fresh.to_be_bytes(), &[7; PAYLOAD_BYTES]);
        space.delete(&fresh.to_be_bytes());
    }
    let passing = begun.elapsed();
    drop((space, shard, engine));
    let _ = std::fs::remove_dir_all(&dir);
    let each = |span: Duration| span.as_nanos() as f64 / number as f64;
    format!(
        "\n{number} messages of {PAYLOAD_BYTES} B: put {:.0} ns each, checkpoint {took:.2?}; put and deleted again {:.0} ns each, nothing written\n",
        each(filled),
        each(passing),
    )
}
