//! The key-value engine under ranges: a write-back overlay per range above a blocking base (fjall, or memory for the simulator).
//!
//! Interface the range host is written against (names and shapes are settled; the code follows in this branch):
//! ```text
//! trait KvBase: Send + Sync        blocking storage: FjallBase::open(&DataDir, ..), MemoryBase::default() (crash(), for the simulator)
//! KvEngine::new(Arc<dyn KvBase>, JobRunner)      JobRunner::threads(n) | JobRunner::stepped() (simulator: runner.step() runs one job)
//!   .spaces() -> Result<Vec<SpaceInfo { space: SpaceId, applied: u64, meta: Vec<u8> }>, KvError>     blocking, at start
//!   .shard(wake: Wake) -> KvShard                one per shard
//! KvShard: .open(SpaceId) -> Result<KvSpace, KvError>       blocking; .poll(&mut Vec<KvDone>); KvDone.space says whose it is;
//!          .drop_space(KvSpace); .is_quiet()
//! KvSpace (one range, owned by a shard, never blocks):
//!   put(key: &[u8], value: &[u8]);  put_new(key, value)   (caller knows no such key is visible: a later delete leaves no trace)
//!   delete(key: &[u8]);  set_applied(index)               after the writes of one log entry
//!   applied(); checkpointed(); overlay_bytes(); wants_checkpoint() -> bool
//!   lookup(&key) -> Hot::{Found(&[u8]), Absent, Cold}
//!   get(request: u64, key)                  ─► Outcome::Got { request, value: Option<Vec<u8>> }
//!   scan(request: u64, Scan { from, to: Option<..>, limit, bytes_max }) ─► Outcome::Scanned { request, page: Page { items, next: Option<Vec<u8>> } }
//!     both answer with the state at completion; stop applying meanwhile if the answer decides what is applied
//!   scan_hot(&Scan) -> Option<Page>         when the base is known to be empty there
//!   checkpoint(meta: Vec<u8>) -> bool       freezes; false while one is running  ─► Outcome::Checkpointed { applied }: compact the log
//!   snapshot(request, meta) -> bool         a checkpoint followed by a view of it ─► Outcome::Snapshot { request, snapshot }
//!   complete(KvDone) -> Outcome             for each KvDone; also Outcome::Failed { request: Option<u64>, error: KvError }, Outcome::Retry (asked again)
//! KvSnapshot (Send, blocking): applied(), meta(), next_chunk(bytes_max) -> Result<Option<Vec<(Vec<u8>, Vec<u8>)>>, KvError>, seek(key)
//! KvInstall (Send, blocking): KvEngine::install(SpaceId) -> KvInstall; .add(chunk); .finish(applied, meta): old state stays until finish
//! KvError::{Corrupt { space, key }, NoSpace, Io.., Newer}
//! ```
