//! The blocking storage under the overlays, as a trait: fjall in the broker, memory in the simulator.
//!
//! A base keeps spaces. A space is an ordered map plus one [`SpaceState`], and changes only by whole commits: after a crash it is as some
//! finished commit left it, and at least as the last that returned. [`super::conformance`] is the executable form of this page.

use super::error::KvError;
use std::fmt;

/// A key-value space: the data of one range replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpaceId(pub u64);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key-value space {}", self.0)
    }
}

/// What a space knows of itself, committed with its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpaceState {
    /// Index of the last log entry the data contains: replay begins at the next.
    pub applied: u64,
    /// A small record of the owner's (range descriptor, configuration), opaque here.
    pub meta: Vec<u8>,
    /// Whether a put was ever committed: if not, any key is known to be absent without a look.
    pub is_inhabited: bool,
}

/// A key and what becomes of it; `None` deletes.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// What one commit does to a space.
pub struct Commit<'a> {
    /// Changes in ascending order of their keys.
    pub changes: Box<dyn Iterator<Item = Change<'a>> + 'a>,
    /// Bytes of keys and values, about.
    pub bytes: usize,
    /// Becomes [`SpaceState::applied`].
    pub applied: u64,
    /// Becomes [`SpaceState::meta`].
    pub meta: &'a [u8],
}

/// A key and its value.
pub type Pair = (Box<[u8]>, Box<[u8]>);

/// A range of keys, from its first on, and how much of it to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// First key.
    pub from: Vec<u8>,
    /// The key after the last; to the end of the space if absent.
    pub to: Option<Vec<u8>>,
    /// Pairs at most; at least one is looked for.
    pub limit: usize,
    /// Bytes of keys and values at which to stop; the pair that reaches it is included.
    pub bytes_max: usize,
}

impl Scan {
    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && self.to.as_ref().is_none_or(|to| key < to.as_slice())
    }

    /// Whether no key can be in it.
    pub fn is_void(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }
}

/// An answer to a [`Scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Pairs in the order of keys.
    pub pairs: Vec<Pair>,
    /// Where the rest of the range begins, if anything may be left. A page may be short, even empty, and yet have a rest.
    pub next: Option<Vec<u8>>,
}

/// A space as some commit left it, whatever is committed later. Blocking.
pub trait KvView: Send {
    /// The state that belongs to the data.
    fn state(&self) -> &SpaceState;

    /// One page of the data.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] if a record does not pass its checksum, or what the base says.
    fn scan(&self, scan: &Scan) -> Result<Page, KvError>;
}

/// The storage. Blocking; called from any thread.
pub trait KvBase: Send + Sync {
    /// All spaces and their states.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] or what the base says.
    fn spaces(&self) -> Result<Vec<(SpaceId, SpaceState)>, KvError>;

    /// The state of a space; the default if it does not exist yet. It comes into being with its first commit.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] or what the base says.
    fn state(&self, space: SpaceId) -> Result<SpaceState, KvError>;

    /// The value of a key.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] or what the base says.
    fn get(&self, space: SpaceId, key: &[u8]) -> Result<Option<Box<[u8]>>, KvError>;

    /// One page of a range.
    ///
    /// # Errors
    /// [`KvError::Corrupt`] or what the base says.
    fn scan(&self, space: SpaceId, scan: &Scan) -> Result<Page, KvError>;

    /// Applies changes and sets the state, as one: durable when it returns. Commits of one space come one after the other.
    ///
    /// # Errors
    /// [`KvError::NoSpace`] with nothing changed; after any other error the base is not to be written to again.
    fn commit(&self, space: SpaceId, commit: Commit<'_>) -> Result<(), KvError>;

    /// A view of the space as the last commit left it.
    ///
    /// # Errors
    /// [`KvError::NoSuchSpace`], [`KvError::Corrupt`] or what the base says.
    fn view(&self, space: SpaceId) -> Result<Box<dyn KvView>, KvError>;

    /// Begins to replace a space by a snapshot. The old data stays until [`KvInstall::finish`]; a crash before it leaves the old data.
    ///
    /// # Errors
    /// What the base says.
    fn install(&self, space: SpaceId) -> Result<Box<dyn KvInstall>, KvError>;

    /// Removes a space, durably. Removing what is not there is fine.
    ///
    /// # Errors
    /// What the base says.
    fn drop_space(&self, space: SpaceId) -> Result<(), KvError>;
}

/// A snapshot on its way in. Dropped unfinished, it leaves the old data. Blocking.
pub trait KvInstall: Send {
    /// Adds pairs, in any order; a key given again is replaced.
    ///
    /// # Errors
    /// [`KvError::NoSpace`] or what the base says.
    fn add(&mut self, pairs: &[Pair]) -> Result<(), KvError>;

    /// Puts the snapshot in the place of the old data, durably. Views of the old data stay good.
    ///
    /// # Errors
    /// [`KvError::NoSpace`] or what the base says.
    fn finish(self: Box<Self>, applied: u64, meta: &[u8]) -> Result<(), KvError>;
}
