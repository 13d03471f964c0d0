//! The bases against the conformance suite; a space against a shadow, with crashes.

mod damage;
mod shadow;

use super::*;
use crate::data_dir::DataDir;
use std::path::Path;

fn fjall(dir: &Path) -> FjallBase {
    let data = DataDir::open(dir).expect("the directory is free");
    FjallBase::open(&data, FjallConfig { reserve_bytes: 0, ..FjallConfig::default() }).expect("opened")
}

#[test]
fn the_base_in_memory_keeps_its_promises() {
    conformance::check(Box::new(MemoryBase::default()), |base| base);
}

#[test]
fn the_base_on_disk_keeps_its_promises_over_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    conformance::check(Box::new(fjall(dir.path())), |base| {
        drop(base);
        Box::new(fjall(dir.path()))
    });
}

/// A shard's end whose jobs run when the test says so.
fn stepped(base: Arc<dyn KvBase>) -> (KvEngine, KvShard) {
    let engine = KvEngine::stepped(base);
    let shard = engine.shard(Arc::new(|| {}), SpaceLimits { overlay_bytes: 4096, reads_max: 4 });
    (engine, shard)
}

/// Runs jobs until one is done, and gives it to the space.
fn complete(engine: &KvEngine, shard: &KvShard, space: &mut KvSpace) -> Outcome {
    let mut done = Vec::new();
    while done.is_empty() {
        assert!(engine.runner().step(), "something is queued");
        shard.poll(&mut done);
    }
    space.complete(done.remove(0))
}

#[test]
fn what_comes_and_goes_between_two_checkpoints_never_reaches_the_base() {
    let base = MemoryBase::default();
    let (engine, shard) = stepped(Arc::new(base.clone()));
    let mut space = shard.open(SpaceId(1)).expect("opened");
    space.put(b"stays", b"1");
    space.set_applied(1);
    assert!(space.checkpoint(b""));
    assert!(matches!(complete(&engine, &shard, &mut space), Outcome::Checkpointed { applied: 1, .. }));
    for number in 0..1000_u64 {
        space.put_new(&number.to_be_bytes(), b"message");
        space.delete(&number.to_be_bytes());
    }
    space.set_applied(2000);
    assert_eq!(space.overlay_bytes(), 0, "nothing is left of them");
    assert!(space.checkpoint(b"") && shard.metrics().kv_annihilated.read() == 1000);
    complete(&engine, &shard, &mut space);
    assert_eq!(conformance::everything(&base, SpaceId(1), 10).expect("read").len(), 1);
    assert_eq!(base.state(SpaceId(1)).expect("read").applied, 2000);
}

#[test]
fn a_full_disk_keeps_the_overlay_and_the_checkpoint_is_tried_again() {
    let base = MemoryBase::default();
    let (engine, shard) = stepped(Arc::new(base.clone()));
    let mut space = shard.open(SpaceId(1)).expect("opened");
    space.put(b"a", b"1");
    space.set_applied(1);
    base.set_full(true);
    assert!(space.checkpoint(b""));
    let failed = complete(&engine, &shard, &mut space);
    assert!(matches!(failed, Outcome::Failed { request: None, error: KvError::NoSpace { .. } }));
    assert_eq!((space.lookup(b"a"), space.checkpointed()), (Hot::Found(b"1"), 0));
    space.put(b"b", b"2");
    space.set_applied(2);
    base.set_full(false);
    assert!(space.checkpoint(b""));
    assert!(matches!(complete(&engine, &shard, &mut space), Outcome::Checkpointed { applied: 1, .. }));
    assert_eq!((space.lookup(b"b"), space.checkpointed()), (Hot::Found(b"2"), 1), "what came later is not in it");
}

#[test]
fn reads_are_bounded_and_a_request_in_use_is_refused() {
    let base = MemoryBase::default();
    conformance::commit(&base, SpaceId(1), &[("k", Some("v"))], 1).expect("committed");
    let (engine, shard) = stepped(Arc::new(base));
    let mut space = shard.open(SpaceId(1)).expect("opened");
    for request in 0..4 {
        assert!(space.get(request, b"k".to_vec()));
    }
    assert!(!space.get(0, b"k".to_vec()) && !space.get(4, b"k".to_vec()));
    let got = complete(&engine, &shard, &mut space);
    assert!(matches!(got, Outcome::Got { request: 0, value: Some(value) } if *value == *b"v"));
    assert!(space.get(4, b"k".to_vec()));
}

#[test]
fn a_snapshot_goes_over_in_chunks_and_can_be_resumed() {
    let (from, to) = (MemoryBase::default(), MemoryBase::default());
    let (engine, shard) = stepped(Arc::new(from.clone()));
    let mut space = shard.open(SpaceId(1)).expect("opened");
    for number in 0..100_u64 {
        space.put(&number.to_be_bytes(), &[7; 100]);
    }
    space.set_applied(100);
    assert!(space.snapshot(9, b"descriptor"));
    let Outcome::Checkpointed { applied: 100, snapshot: Some((9, mut snapshot)) } =
        complete(&engine, &shard, &mut space)
    else {
        panic!("a view of the checkpoint");
    };
    let mut install = to.install(SpaceId(1)).expect("begun");
    let first = snapshot.next_chunk(1000).expect("read").expect("there is more");
    let resume_at = first.last().expect("not empty").0.to_vec();
    install.add(&first).expect("added");
    // The connection broke after the first chunk: the last pair comes twice.
    snapshot.seek(resume_at);
    while let Some(chunk) = snapshot.next_chunk(1000).expect("read") {
        assert!(chunk.len() < 15, "about a thousand bytes");
        install.add(&chunk).expect("added");
    }
    install.finish(snapshot.applied(), snapshot.meta()).expect("finished");
    let all = |base: &MemoryBase| conformance::everything(base, SpaceId(1), 7).expect("read");
    assert_eq!((all(&to), to.state(SpaceId(1)).expect("read").meta), (all(&from), b"descriptor".to_vec()));
}
