//! Who the node is and how its key space is divided: decided once, when its data directory is new, and read ever after.
//!
//! The file `NODE` in the data directory, a line each: `bifro-uring node 1`, `id N`, `seed N`, `ranges N`, and `check N`, a CRC-32 of
//! what stands before it.

use super::error::HostError;
use crate::data_dir::DataDir;
use bifro_core::ids::NodeId;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

const HEADER: &str = "bifro-uring node 1";

/// The facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The node's identity.
    pub node: NodeId,
    /// Key of the hashes that decide about placement and tell publishers apart; secret.
    pub seed: u64,
    /// Ranges of persistent sessions, and as many of retained messages.
    pub ranges: u16,
}

impl Genesis {
    /// What the directory says; if it is new, `ranges` and random numbers, once they are durable.
    ///
    /// # Errors
    /// [`HostError::Node`] if the file is damaged, [`HostError::NodeFile`] if the system says no.
    pub(super) fn of(data: &DataDir, ranges: u16) -> Result<Self, HostError> {
        let path = data.path().join("NODE");
        let failed = |source| HostError::NodeFile { path: path.clone(), source };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| HostError::Node { path: path.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let genesis = Self { node: NodeId(random().map_err(failed)?), seed: random().map_err(failed)?, ranges };
                genesis.write(data.path(), &path).map_err(failed)?;
                Ok(genesis)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(HostError::Node { path }),
            Err(error) => Err(failed(error)),
        }
    }

    fn text(&self) -> String {
        let Self { node, seed, ranges } = self;
        let mut text = format!("{HEADER}\nid {}\nseed {seed}\nranges {ranges}\n", node.0);
        let check = crc32fast::hash(text.as_bytes());
        let _infallible = writeln!(text, "check {check}");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
        };
        let ranges = u16::try_from(field("ranges")?).ok().filter(|&ranges| ranges > 0)?;
        let genesis = Self { node: NodeId(field("id")?), seed: field("seed")?, ranges };
        (genesis.text() == text).then_some(genesis)
    }

    /// Renamed into place, so that a crash leaves no half a file.
    fn write(&self, dir: &Path, path: &Path) -> io::Result<()> {
        let draft = dir.join("NODE.new");
        let mut file = File::create(&draft)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(dir)?.sync_all()
    }
}

/// A number nobody outside can guess.
///
/// # Errors
/// What the system says.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_gets_an_identity_that_every_later_start_finds() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(dir.path()).expect("free");
        let first = Genesis::of(&data, 8).expect("new");
        assert_eq!(Genesis::of(&data, 16).expect("there"), first, "the number of ranges is decided once");
        assert_eq!(first.ranges, 8);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(dir.path()).expect("free");
        let whole = Genesis { node: NodeId(1), seed: 2, ranges: 3 }.text();
        for text in [whole.replace("ranges 3", "ranges 4"), String::new(), whole.replace("node 1", "node 2")] {
            std::fs::write(dir.path().join("NODE"), &text).expect("written");
            let said = Genesis::of(&data, 8).expect_err("damaged").to_string();
            assert!(said.contains("NODE") && said.contains("restore"), "{said}");
            assert_eq!(std::fs::read_to_string(dir.path().join("NODE")).expect("there"), text);
        }
    }
}
