//! What a node keeps about the cluster: how often it was started, whom to look for, who never comes back, and whether it is to go.
//!
//! One TOML file, replaced as a whole: written beside, synced, renamed. The number of starts is on the disk before the first word is
//! said, so that no word of a process is older than one of its predecessor.

use crate::error::UnderlayError;
use bifro_core::ids::NodeId;
use bifro_swim::Peer;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Name of the file in the data directory.
pub const FILE: &str = "membership.toml";
/// The newest format this version reads, and the one it writes.
const FORMAT: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: u32,
    starts: u32,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    peers: Vec<KnownPeer>,
    #[serde(default)]
    expelled: Vec<KnownPeer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownPeer {
    // TOML's integers have a sign.
    id: String,
    address: SocketAddr,
}

/// The file, and what was last written to it.
#[derive(Debug)]
pub struct Identity {
    /// None if nothing is kept.
    path: Option<PathBuf>,
    starts: u32,
    is_draining: bool,
    peers: Vec<Peer>,
    expelled: Vec<Peer>,
}

impl KnownPeer {
    fn of(peer: &Peer) -> Self {
        Self { id: peer.id.0.to_string(), address: peer.address }
    }

    fn read(self) -> Result<Peer, String> {
        match self.id.parse() {
            Ok(id) => Ok(Peer { id: NodeId(id), address: self.address }),
            Err(_) => Err(format!("is damaged: {:?} is no node id", self.id)),
        }
    }
}

impl Identity {
    /// Reads the file, if there is one, and counts this start in it.
    ///
    /// # Errors
    /// It cannot be read or written, or is not what this version writes.
    pub fn open(data_dir: &Path) -> Result<Self, UnderlayError> {
        let path = data_dir.join(FILE);
        let refuse = |problem: String| UnderlayError::Identity { path: path.clone(), problem };
        let kept = match std::fs::read_to_string(&path) {
            Ok(text) => parse(&text).map_err(refuse)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Self { starts: 0, ..Self::volatile() },
            Err(error) => return Err(refuse(format!("cannot be read: {error}"))),
        };
        let mut identity = Self { path: Some(path.clone()), ..kept };
        std::fs::create_dir_all(data_dir).map_err(|error| refuse(format!("cannot be written: {error}")))?;
        let (peers, expelled) = (identity.peers.clone(), identity.expelled.clone());
        identity.save(identity.starts.saturating_add(1), peers, expelled)?;
        Ok(identity)
    }

    /// Of a node that keeps nothing: every start is the first one of a new node.
    pub const fn volatile() -> Self {
        Self { path: None, starts: 1, is_draining: false, peers: Vec::new(), expelled: Vec::new() }
    }

    /// How often the node was started, this time included.
    pub const fn starts(&self) -> u32 {
        self.starts
    }

    /// Whom an earlier process knew.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Whom an earlier process knew never to come back.
    pub fn expelled(&self) -> &[Peer] {
        &self.expelled
    }

    /// Whether the node is to go, as an operator said.
    pub const fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Keeps that it is to go, or that it is not, if that is news.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_draining(&mut self, is_draining: bool) -> Result<(), UnderlayError> {
        if self.is_draining == is_draining {
            return Ok(());
        }
        self.is_draining = is_draining;
        self.write()
    }

    /// Keeps these, if they are others than before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&mut self, starts: u32, peers: Vec<Peer>, expelled: Vec<Peer>) -> Result<(), UnderlayError> {
        if (starts, &peers, &expelled) == (self.starts, &self.peers, &self.expelled) {
            return Ok(());
        }
        (self.starts, self.peers, self.expelled) = (starts, peers, expelled);
        self.write()
    }

    fn write(&self) -> Result<(), UnderlayError> {
        let Some(path) = &self.path else { return Ok(()) };
        let known = |peers: &[Peer]| peers.iter().map(KnownPeer::of).collect();
        let (peers, expelled) = (known(&self.peers), known(&self.expelled));
        let contents = Contents { format: FORMAT, starts: self.starts, draining: self.is_draining, peers, expelled };
        let text = toml::to_string(&contents).expect("numbers and strings are TOML");
        replace(path, text.as_bytes()).map_err(|error| UnderlayError::Identity {
            path: path.clone(),
            problem: format!("cannot be written: {error}"),
        })
    }
}

fn parse(text: &str) -> Result<Identity, String> {
    let contents: Contents = toml::from_str(text).map_err(|error| format!("is damaged: {error}"))?;
    if contents.format > FORMAT {
        return Err(format!("has format {}, this version knows {FORMAT}: start a newer version", contents.format));
    }
    let read = |peers: Vec<KnownPeer>| peers.into_iter().map(KnownPeer::read).collect::<Result<Vec<_>, _>>();
    Ok(Identity {
        path: None,
        starts: contents.starts,
        is_draining: contents.draining,
        peers: read(contents.peers)?,
        expelled: read(contents.expelled)?,
    })
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("toml.new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_peers_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let peers = vec![Peer { id: NodeId(u64::MAX), address: "[::1]:7946".parse().expect("an address") }];
        let mut first = Identity::open(dir.path()).expect("a new file");
        assert_eq!((first.starts(), first.peers()), (1, &[][..]));
        let expelled = vec![Peer { id: NodeId(7), address: "10.0.0.7:7946".parse().expect("an address") }];
        first.save(1, peers.clone(), expelled.clone()).expect("it can be written");
        let mut second = Identity::open(dir.path()).expect("what was written");
        assert_eq!((second.starts(), second.peers(), second.expelled()), (2, &peers[..], &expelled[..]));
        second.save(9, Vec::new(), expelled).expect("it can be written");
        assert_eq!(Identity::open(dir.path()).expect("what was written").starts(), 10);
    }

    #[test]
    fn that_a_node_is_to_go_outlives_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(FILE), "format = 1\nstarts = 4\n").expect("it can be written");
        let mut identity = Identity::open(dir.path()).expect("the format of before");
        assert_eq!((identity.starts(), identity.is_draining()), (5, false));
        identity.set_draining(true).expect("it can be written");
        assert!(Identity::open(dir.path()).expect("what was written").is_draining());
    }

    #[test]
    fn damage_and_the_future_are_refused_with_the_files_name() {
        let dir = tempfile::tempdir().expect("a directory");
        for (text, expected) in [
            ("format = 4\nstarts = 1", "start a newer version"),
            ("format = 1", "missing field `starts`"),
            ("format = 1\nstarts = 1\n[[peers]]\nid = \"x\"\naddress = \"1.2.3.4:5\"", "no node id"),
            ("\u{0}", "is damaged"),
        ] {
            std::fs::write(dir.path().join(FILE), text).expect("it can be written");
            let told = Identity::open(dir.path()).expect_err(text).to_string();
            assert!(told.contains(expected) && told.contains(FILE), "{told}");
        }
    }
}
