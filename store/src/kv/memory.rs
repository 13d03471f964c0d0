//! A base in memory, for the simulator and as the model in tests. A commit is durable when it
//! returns; [`MemoryBase::copy`] is the disk at one moment, to go on from after a crash.

use super::base::{Commit, KvBase, KvInstall, KvView, Page, Pair, Scan, SpaceId, SpaceState};
use super::error::KvError;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Box<[u8]>, Box<[u8]>>;

#[derive(Clone, Debug, Default)]
struct Space {
    state: SpaceState,
    map: Arc<Map>,
}

#[derive(Debug, Default)]
struct Spaces {
    live: BTreeMap<SpaceId, Space>,
    is_full: bool,
}

/// The base. Clones share their spaces, as processes started one after the other share a disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryBase {
    spaces: Arc<Mutex<Spaces>>,
}

impl MemoryBase {
    fn lock(&self) -> MutexGuard<'_, Spaces> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While full, commits and installs answer [`KvError::NoSpace`].
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Everything as it is now, apart from this base: what a disk taken out at this moment holds.
    pub fn copy(&self) -> Self {
        let spaces = self.lock();
        let copied = Spaces { live: spaces.live.clone(), is_full: spaces.is_full };
        Self { spaces: Arc::new(Mutex::new(copied)) }
    }

    fn writable(&self) -> Result<MutexGuard<'_, Spaces>, KvError> {
        let spaces = self.lock();
        if spaces.is_full { Err(KvError::NoSpace { needed_bytes: 1, free_bytes: 0 }) } else { Ok(spaces) }
    }
}

fn page(map: &Map, scan: &Scan) -> Page {
    if scan.is_void() {
        return Page::default();
    }
    let from = Bound::Included(scan.from.as_slice());
    let to = scan.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut page, mut bytes) = (Page::default(), 0);
    for (key, value) in map.range::<[u8], _>((from, to)) {
        if page.pairs.len() >= scan.limit.max(1) || bytes >= scan.bytes_max && !page.pairs.is_empty() {
            page.next = Some(key.to_vec());
            break;
        }
        bytes += key.len() + value.len();
        page.pairs.push((key.clone(), value.clone()));
    }
    page
}

impl KvView for Space {
    fn state(&self) -> &SpaceState {
        &self.state
    }

    fn scan(&self, scan: &Scan) -> Result<Page, KvError> {
        Ok(page(&self.map, scan))
    }
}

impl KvBase for MemoryBase {
    fn spaces(&self) -> Result<Vec<(SpaceId, SpaceState)>, KvError> {
        Ok(self.lock().live.iter().map(|(id, space)| (*id, space.state.clone())).collect())
    }

    fn state(&self, space: SpaceId) -> Result<SpaceState, KvError> {
        Ok(self.lock().live.get(&space).map(|space| space.state.clone()).unwrap_or_default())
    }

    fn get(&self, space: SpaceId, key: &[u8]) -> Result<Option<Box<[u8]>>, KvError> {
        Ok(self.lock().live.get(&space).and_then(|space| space.map.get(key).cloned()))
    }

    fn scan(&self, space: SpaceId, scan: &Scan) -> Result<Page, KvError> {
        Ok(self.lock().live.get(&space).map(|space| page(&space.map, scan)).unwrap_or_default())
    }

    fn commit(&self, space: SpaceId, commit: Commit<'_>) -> Result<(), KvError> {
        let mut spaces = self.writable()?;
        let space = spaces.live.entry(space).or_default();
        let map = Arc::make_mut(&mut space.map);
        for (key, value) in commit.changes {
            match value {
                Some(value) => {
                    space.state.is_inhabited = true;
                    map.insert(key.into(), value.into());
                }
                None => {
                    map.remove(key);
                }
            }
        }
        space.state.applied = commit.applied;
        space.state.meta = commit.meta.to_vec();
        Ok(())
    }

    fn view(&self, space: SpaceId) -> Result<Box<dyn KvView>, KvError> {
        match self.lock().live.get(&space) {
            Some(found) => Ok(Box::new(found.clone())),
            None => Err(KvError::NoSuchSpace(space)),
        }
    }

    fn install(&self, space: SpaceId) -> Result<Box<dyn KvInstall>, KvError> {
        Ok(Box::new(MemoryInstall { base: self.clone(), space, map: Map::new() }))
    }

    fn drop_space(&self, space: SpaceId) -> Result<(), KvError> {
        self.lock().live.remove(&space);
        Ok(())
    }
}

struct MemoryInstall {
    base: MemoryBase,
    space: SpaceId,
    map: Map,
}

impl KvInstall for MemoryInstall {
    fn add(&mut self, pairs: &[Pair]) -> Result<(), KvError> {
        drop(self.base.writable()?);
        self.map.extend(pairs.iter().cloned());
        Ok(())
    }

    fn finish(self: Box<Self>, applied: u64, meta: &[u8]) -> Result<(), KvError> {
        let state = SpaceState { applied, meta: meta.to_vec(), is_inhabited: !self.map.is_empty() };
        let space = Space { state, map: Arc::new(self.map) };
        self.base.writable()?.live.insert(self.space, space);
        Ok(())
    }
}
