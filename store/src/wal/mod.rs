//! The write-ahead log of a node: every Raft group's entries and records in one raft-engine instance, behind a writer thread.
//!
//! Interface the range host is written against (names and shapes are settled; the code follows in this branch):
//! ```text
//! Wal::open(&DataDir, WalConfig, Fatal) -> Result<(Wal, Vec<RecoveredGroup>), WalError>      blocking, before shards start
//!   RecoveredGroup { group: GroupId, first: u64, last: u64 /* first > last: no entries */, records: Vec<(Record, Vec<u8>)> }
//! wal.port(wake: Wake) -> WalPort          one per shard; Wake = Arc<dyn Fn() + Send + Sync>
//! wal.read_now(group, Range<u64>, bytes_max) -> Result<Vec<WalEntry>, WalError>              blocking, for recovery
//! wal.metrics() -> Arc<WalMetrics>;  drop(wal) writes what is queued, then joins the threads
//!
//! WalEntry::new(index: u64, payload: &[u8]);  .index(); .payload()
//! WalBatch::default(), then in order: .append(group, Vec<WalEntry>)  (truncates a conflicting tail), .put_record(group, Record, Vec<u8>),
//!   .compact_to(group, first_kept), .delete_group(group);  .is_empty(), .bytes()
//! Record(u8); Record::HARD_STATE
//!
//! WalPort (owned by one shard, never blocks):
//!   submit(WalBatch) -> Result<Token, WalBatch>                    Err = queue full, hand it in again next turn (back-pressure)
//!   read(request: u64, group, Range<u64>, bytes_max) -> bool      false = too many reads outstanding
//!   poll(&mut Vec<WalEvent>)                                      once per turn, after each wake
//!   space() -> Space::{Ample, Short}                              Short: refuse new proposals (reason code), keep consuming
//!   is_quiet() -> bool                                            to be asked between prepare_park and parking, as for Inlet
//! WalEvent::
//!   Durable { token }            cumulative: this shard's batches up to token are on disk
//!   Refused { token, group, from, error }   the append from index `from` on was not written (NoSpace, or after such a hole); log as before.
//!                                Comes before the Durable of its token; the records and compactions of the same batch were written.
//!   Entries { request, group, result: Result<Vec<WalEntry>, WalError> }     a prefix of the asked range, at least one entry if any
//!   Pinned { group }             its old entries keep log files alive: checkpoint it and compact (sent to every shard)
//!   SpaceChanged(Space)
//! WalError::{NoSpace, Compacted, NotFound, Corrupt(..), Io(..), Newer.., Locked..}
//! ```
