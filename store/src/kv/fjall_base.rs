//! The base on disk: one fjall database per node, one keyspace per space, and a catalog that says which keyspace is whose.
//!
//! ```text
//! keyspace "catalog"                 space id (8, big-endian) ─► state record with the generation
//! keyspace "s<space>.<generation>"   key ─► value with checksum
//! ```
//! A checkpoint is one fjall batch over both keyspaces, so data and applied index cannot part, and is the only thing that is synced.
//! An installed snapshot fills a keyspace of the next generation and then changes the catalog. What the catalog does not name is
//! left over from a crash and dropped at the next start.

use super::base::{Commit, KvBase, KvInstall, KvView, Page, Pair, Scan, SpaceId, SpaceState};
use super::error::KvError;
use super::record;
use crate::data_dir::DataDir;
use crate::wal::free_bytes;
use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, LsmError, PersistMode, Readable, Snapshot};
use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Settings of the base.
#[derive(Clone, Debug)]
pub struct FjallConfig {
    /// Block cache of all spaces together.
    pub cache_bytes: u64,
    /// fjall's own journal, which holds checkpoints until they are in tables; at least 64 MiB.
    pub journal_bytes_max: u64,
    /// Memtable of one space, flushed when it is reached.
    pub memtable_bytes: u64,
    /// Free bytes that a checkpoint must leave, after room for itself and for its way through the LSM.
    pub reserve_bytes: u64,
}

impl Default for FjallConfig {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, journal_bytes_max: 256 << 20, memtable_bytes: 16 << 20, reserve_bytes: 128 << 20 }
    }
}

/// Threads for flushes and compaction. With more than one, fjall (3.1) keeps the first for flushes: it puts a compaction that it finds back into the queue, finds it again, and
/// so on at full speed for as long as the others compact. Half of a machine of two cores went there while messages were stored.
const WORKERS: usize = 1;

/// Tables of a space that are merged into its first level at once. What is stored for many sessions lies all over the keys, so that each time the whole level is written
/// anew: with fjall's 4, a quarter of what was stored while ten million messages were queued went there.
const TABLES_MERGED: u8 = 8;

/// How often a checkpoint's bytes are written before they rest: journal, table, and a compaction that holds old and new.
const SPACE_FACTOR: u64 = 4;

/// Where a space's data is.
#[derive(Clone)]
struct Place {
    generation: u64,
    data: Keyspace,
    state: SpaceState,
}

struct Inner {
    database: Database,
    catalog: Keyspace,
    path: PathBuf,
    config: FjallConfig,
    places: RwLock<HashMap<SpaceId, Place>>,
    next_generation: AtomicU64,
}

/// The base. Clones are the same base.
#[derive(Clone)]
pub struct FjallBase {
    inner: Arc<Inner>,
}

/// Sorts fjall's errors: damage is the space's, anything else the whole base's.
fn sorted(space: SpaceId, key: &[u8], error: fjall::Error) -> KvError {
    let corrupt = |what| KvError::Corrupt { space, key: key.to_vec(), what };
    match error {
        fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => corrupt("block checksum mismatch"),
        fjall::Error::Storage(LsmError::InvalidHeader(_) | LsmError::InvalidTrailer | LsmError::InvalidTag(_)) => {
            corrupt("a damaged block")
        }
        error => KvError::Base(Arc::new(error)),
    }
}

fn base_error(error: fjall::Error) -> KvError {
    KvError::Base(Arc::new(error))
}

/// Makes an empty database under another name, then gives it its own: what a process that is killed meanwhile leaves cannot be opened, and is
/// not opened.
fn make_empty(data: &DataDir, path: &Path) -> Result<(), KvError> {
    let failed = |error: io::Error| base_error(error.into());
    let unfinished = data.path().join("kv.new");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    let database = Database::builder(&unfinished).open().map_err(base_error)?;
    database.keyspace("catalog", KeyspaceCreateOptions::default).map_err(base_error)?;
    database.persist(PersistMode::SyncAll).map_err(base_error)?;
    drop(database);
    std::fs::rename(&unfinished, path).map_err(failed)?;
    std::fs::File::open(data.path()).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn keyspace_name(space: SpaceId, generation: u64) -> String {
    format!("s{}.{generation}", space.0)
}

/// The generation in a keyspace's name.
fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix('s')?.split_once('.')?.1.parse().ok()
}

impl FjallBase {
    /// Opens or creates the base in `data/kv`. Blocks while fjall replays its journal.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] if a catalog record is damaged, or what fjall says.
    pub fn open(data: &DataDir, config: FjallConfig) -> Result<Self, KvError> {
        let path = data.path().join("kv");
        if !path.exists() {
            make_empty(data, &path)?;
        }
        let builder = Database::builder(&path).cache_size(config.cache_bytes).worker_threads(WORKERS);
        let builder = builder.max_journaling_size(config.journal_bytes_max).manual_journal_persist(true);
        let database = builder.open().map_err(base_error)?;
        let catalog = database.keyspace("catalog", KeyspaceCreateOptions::default).map_err(base_error)?;
        let inner =
            Inner { database, catalog, path, config, places: RwLock::default(), next_generation: AtomicU64::new(1) };
        inner.recover()?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// Reads the catalog and drops keyspaces it does not name.
    fn recover(&self) -> Result<(), KvError> {
        let mut places = HashMap::new();
        for guard in self.catalog.iter() {
            let (key, sealed) = guard.into_inner().map_err(|error| sorted(SpaceId(0), b"catalog", error))?;
            let id = <[u8; 8]>::try_from(&*key).map_err(|_| KvError::Corrupt {
                space: SpaceId(0),
                key: key.to_vec(),
                what: "a foreign key in the catalog",
            })?;
            let space = SpaceId(u64::from_be_bytes(id));
            let (generation, state) = record::open_state(space, &sealed)?;
            let name = keyspace_name(space, generation);
            if !self.database.keyspace_exists(&name) {
                return Err(KvError::Corrupt { space, key: Vec::new(), what: "its keyspace is missing" });
            }
            places.insert(space, Place { generation, data: self.keyspace(&name)?, state });
        }
        let named: Vec<String> = places.iter().map(|(space, at)| keyspace_name(*space, at.generation)).collect();
        let mut highest = 0;
        for name in self.database.list_keyspace_names() {
            let Some(generation) = generation_of(&name) else { continue };
            highest = highest.max(generation);
            if !named.iter().any(|named| **named == *name) {
                self.database.delete_keyspace(self.keyspace(&name)?).map_err(base_error)?;
            }
        }
        self.next_generation.store(highest + 1, Ordering::Relaxed);
        *self.places.write().unwrap_or_else(PoisonError::into_inner) = places;
        Ok(())
    }

    fn keyspace(&self, name: &str) -> Result<Keyspace, KvError> {
        let options = || {
            let options = KeyspaceCreateOptions::default().manual_journal_persist(true);
            let compaction = Leveled::default().with_l0_threshold(TABLES_MERGED);
            options.max_memtable_size(self.config.memtable_bytes).compaction_strategy(Arc::new(compaction))
        };
        self.database.keyspace(name, options).map_err(base_error)
    }

    fn place(&self, space: SpaceId) -> Option<Place> {
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(&space).cloned()
    }

    fn fresh_place(&self, space: SpaceId) -> Result<Place, KvError> {
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let data = self.keyspace(&keyspace_name(space, generation))?;
        Ok(Place { generation, data, state: SpaceState::default() })
    }

    /// Refuses before anything is written: fjall takes no more writes after it has met a full disk.
    fn check_space(&self, bytes: usize) -> Result<(), KvError> {
        let needed_bytes = bytes as u64 * SPACE_FACTOR + self.config.reserve_bytes;
        let free_bytes = free_bytes(&self.path)?;
        if free_bytes < needed_bytes { Err(KvError::NoSpace { needed_bytes, free_bytes }) } else { Ok(()) }
    }

    /// Makes `place` the space's, together with what is in the batch, durably.
    fn settle(&self, space: SpaceId, place: Place, mut batch: fjall::OwnedWriteBatch) -> Result<(), KvError> {
        let sealed = record::seal_state(space, place.generation, &place.state);
        batch.insert(&self.catalog, space.0.to_be_bytes(), sealed);
        batch.durability(Some(PersistMode::SyncAll)).commit().map_err(base_error)?;
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let old = places.insert(space, place.clone());
        drop(places);
        match old {
            Some(old) if old.generation != place.generation => {
                self.database.delete_keyspace(old.data).map_err(base_error)
            }
            _ => Ok(()),
        }
    }
}

/// Collects a page from an iterator of fjall.
fn page(space: SpaceId, scan: &Scan, pairs: fjall::Iter) -> Result<Page, KvError> {
    let (mut page, mut bytes) = (Page::default(), 0);
    for guard in pairs {
        let (key, sealed) = guard.into_inner().map_err(|error| sorted(space, &scan.from, error))?;
        if page.pairs.len() >= scan.limit.max(1) || bytes >= scan.bytes_max && !page.pairs.is_empty() {
            page.next = Some(key.to_vec());
            break;
        }
        let value = record::open(space, &key, &sealed)?;
        bytes += key.len() + value.len();
        page.pairs.push((Box::from(&*key), Box::from(value)));
    }
    Ok(page)
}

fn bounds(scan: &Scan) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(&scan.from), scan.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
}

struct FjallView {
    space: SpaceId,
    snapshot: Snapshot,
    data: Keyspace,
    state: SpaceState,
}

impl KvView for FjallView {
    fn state(&self) -> &SpaceState {
        &self.state
    }

    fn scan(&self, scan: &Scan) -> Result<Page, KvError> {
        if scan.is_void() {
            return Ok(Page::default());
        }
        page(self.space, scan, self.snapshot.range::<&[u8], _>(&self.data, bounds(scan)))
    }
}

impl KvBase for FjallBase {
    fn spaces(&self) -> Result<Vec<(SpaceId, SpaceState)>, KvError> {
        let places = self.inner.places.read().unwrap_or_else(PoisonError::into_inner);
        let mut spaces: Vec<_> = places.iter().map(|(space, place)| (*space, place.state.clone())).collect();
        spaces.sort_by_key(|(space, _)| *space);
        Ok(spaces)
    }

    fn state(&self, space: SpaceId) -> Result<SpaceState, KvError> {
        Ok(self.inner.place(space).map(|place| place.state).unwrap_or_default())
    }

    fn get(&self, space: SpaceId, key: &[u8]) -> Result<Option<Box<[u8]>>, KvError> {
        let Some(place) = self.inner.place(space) else { return Ok(None) };
        let Some(sealed) = place.data.get(key).map_err(|error| sorted(space, key, error))? else { return Ok(None) };
        Ok(Some(Box::from(record::open(space, key, &sealed)?)))
    }

    fn scan(&self, space: SpaceId, scan: &Scan) -> Result<Page, KvError> {
        let Some(place) = self.inner.place(space) else { return Ok(Page::default()) };
        if scan.is_void() {
            return Ok(Page::default());
        }
        page(space, scan, place.data.range::<&[u8], _>(bounds(scan)))
    }

    fn commit(&self, space: SpaceId, commit: Commit<'_>) -> Result<(), KvError> {
        self.inner.check_space(commit.bytes)?;
        let mut place = match self.inner.place(space) {
            Some(place) => place,
            None => self.inner.fresh_place(space)?,
        };
        let mut batch = self.inner.database.batch();
        for (key, value) in commit.changes {
            match value {
                Some(value) => {
                    place.state.is_inhabited = true;
                    batch.insert(&place.data, key, record::seal(key, value));
                }
                None => batch.remove(&place.data, key),
            }
        }
        place.state.applied = commit.applied;
        place.state.meta = commit.meta.to_vec();
        self.inner.settle(space, place, batch)
    }

    fn view(&self, space: SpaceId) -> Result<Box<dyn KvView>, KvError> {
        let snapshot = self.inner.database.snapshot();
        let found = snapshot.get(&self.inner.catalog, space.0.to_be_bytes());
        let sealed = found.map_err(|error| sorted(space, b"", error))?.ok_or(KvError::NoSuchSpace(space))?;
        let (generation, state) = record::open_state(space, &sealed)?;
        // The snapshot and the place may straddle an install; then the snapshot is of data that is going.
        let place = self.inner.place(space).filter(|place| place.generation == generation);
        let data = place.ok_or(KvError::NoSuchSpace(space))?.data;
        Ok(Box::new(FjallView { space, snapshot, data, state }))
    }

    fn install(&self, space: SpaceId) -> Result<Box<dyn KvInstall>, KvError> {
        let place = self.inner.fresh_place(space)?;
        Ok(Box::new(FjallInstall { inner: self.inner.clone(), space, place: Some(place) }))
    }

    fn drop_space(&self, space: SpaceId) -> Result<(), KvError> {
        let Some(place) = self.inner.place(space) else { return Ok(()) };
        let mut batch = self.inner.database.batch().durability(Some(PersistMode::SyncAll));
        batch.remove(&self.inner.catalog, space.0.to_be_bytes());
        batch.commit().map_err(base_error)?;
        self.inner.places.write().unwrap_or_else(PoisonError::into_inner).remove(&space);
        self.inner.database.delete_keyspace(place.data).map_err(base_error)
    }
}

struct FjallInstall {
    inner: Arc<Inner>,
    space: SpaceId,
    /// Taken by the end.
    place: Option<Place>,
}

impl KvInstall for FjallInstall {
    fn add(&mut self, pairs: &[Pair]) -> Result<(), KvError> {
        self.inner.check_space(pairs.iter().map(|(key, value)| key.len() + value.len()).sum())?;
        let place = self.place.as_mut().expect("only the end takes it");
        let mut batch = self.inner.database.batch();
        for (key, value) in pairs {
            place.state.is_inhabited = true;
            batch.insert(&place.data, &**key, record::seal(key, value));
        }
        batch.commit().map_err(base_error)
    }

    fn finish(mut self: Box<Self>, applied: u64, meta: &[u8]) -> Result<(), KvError> {
        self.inner.check_space(meta.len())?;
        let mut place = self.place.take().expect("only the end takes it");
        place.state.applied = applied;
        place.state.meta = meta.to_vec();
        self.inner.settle(self.space, place, self.inner.database.batch())
    }
}

impl Drop for FjallInstall {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            // If this fails, the next start drops it: the catalog does not name it.
            let _dropped = self.inner.database.delete_keyspace(place.data);
        }
    }
}
