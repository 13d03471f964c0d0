//! Who the node is and what cluster it is of: decided once, and read ever after.
//!
//! ```text
//! data/NODE      the node's id, drawn when the directory is new
//! data/CLUSTER   what the nodes of its cluster have agreed on (bifro-genesis); a node by itself agrees with itself
//! data/GENESIS   until then, if it is to be of a cluster with others: what it has promised and accepted as one of the seeds
//! ```
//! Each is text, a line per field, the first its name and version (`bifro-uring cluster 1`), the last `check N` with a CRC-32 of what stands
//! before it. Each is replaced as a whole: written beside, synced, renamed.

use super::error::HostError;
use crate::data_dir::DataDir;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_genesis::{Ballot, ClusterGenesis, Ledger, Vote};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const NODE: &str = "NODE";
const CLUSTER: &str = "CLUSTER";
const GENESIS: &str = "GENESIS";

/// The facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// The node's identity.
    pub node: NodeId,
    /// Its cluster, also if it is alone.
    pub cluster: ClusterId,
    /// Key of the hashes that decide about placement and tell publishers apart; secret, the same on all nodes.
    pub seed: u64,
    /// Ranges of persistent sessions, and as many of retained messages; the same on all nodes.
    pub ranges: u16,
    /// The nodes that made the cluster, in ascending order.
    pub founders: Vec<NodeId>,
}

impl Genesis {
    pub(super) fn new(node: NodeId, of: ClusterGenesis) -> Self {
        let ClusterGenesis { cluster, seed, ranges, founders } = of;
        Self { node, cluster, seed, ranges, founders }
    }
}

/// A data directory with a node's identity, held by this process.
#[derive(Debug)]
pub struct NodeDir {
    pub(super) data: DataDir,
    node: NodeId,
}

impl NodeDir {
    /// Takes hold of the directory; if it is new, it becomes that of a new node.
    ///
    /// # Errors
    /// [`HostError::DataDir`] if it cannot be used; [`HostError::Node`] if the identity is damaged or gone; [`HostError::NodeFile`] if the
    /// system says no.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let data = DataDir::open(path)?;
        let file = path.join(NODE);
        let found = read(&file, "bifro-uring node 2", |fields| Some(NodeId(fields.number("id")?)), node_text)?;
        let node = match found {
            Some(node) => node,
            // Its data is another's than that of the node it would become.
            None if [CLUSTER, GENESIS, "wal"].iter().any(|name| path.join(name).exists()) => {
                return Err(HostError::Node { path: file });
            }
            None => {
                let node = NodeId(random().map_err(|source| HostError::NodeFile { path: file.clone(), source })?);
                replace(path, NODE, &node_text(&node))?;
                node
            }
        };
        Ok(Self { data, node })
    }

    /// Who the node is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What the node remembers of the genesis of its cluster.
    ///
    /// # Errors
    /// [`HostError::Node`] if a file is damaged, or gone although there is data; [`HostError::NodeFile`] if the system says no.
    pub fn ledger(&self) -> Result<Ledger, HostError> {
        let file = self.data.path().join(CLUSTER);
        let decided = read(&file, "bifro-uring cluster 1", |fields| fields.genesis(), cluster_text)?;
        if decided.is_some() {
            return Ok(Ledger { decided, ..Ledger::default() });
        }
        // The cluster is known before anything is stored.
        if self.data.path().join("wal").exists() {
            return Err(HostError::Node { path: file });
        }
        let file = self.data.path().join(GENESIS);
        let ledger = read(&file, "bifro-uring genesis 1", |fields| fields.ledger(), ledger_text)?;
        Ok(ledger.unwrap_or_default())
    }

    /// The node's cluster; if it has none, from now on one of its own.
    ///
    /// # Errors
    /// As [`Self::ledger`]; [`HostError::Unfinished`] if the node was asked to have a part in another.
    pub fn alone(&self, ranges: u16) -> Result<ClusterGenesis, HostError> {
        let ledger = self.ledger()?;
        if let Some(decided) = ledger.decided {
            return Ok(decided);
        }
        if ledger != Ledger::default() {
            return Err(HostError::Unfinished { path: self.data.path().join(GENESIS) });
        }
        let failed = |source| HostError::NodeFile { path: self.data.path().join(CLUSTER), source };
        let cluster = ClusterId(random().map_err(failed)?.max(1));
        let seed = random().map_err(failed)?;
        let decided = ClusterGenesis { cluster, seed, ranges, founders: vec![self.node] };
        self.file().keep(&Ledger { decided: Some(decided.clone()), ..Ledger::default() })?;
        Ok(decided)
    }

    /// Where the ledger is kept.
    pub fn file(&self) -> LedgerFile {
        LedgerFile { dir: self.data.path().to_owned() }
    }
}

/// Where a node keeps what it has promised, accepted and learned. Of no use once the directory is not held any more.
#[derive(Debug)]
pub struct LedgerFile {
    dir: PathBuf,
}

impl LedgerFile {
    /// Returns when it is on the disk.
    ///
    /// # Errors
    /// [`HostError::NodeFile`]: the system says no.
    pub fn keep(&self, ledger: &Ledger) -> Result<(), HostError> {
        match &ledger.decided {
            None => replace(&self.dir, GENESIS, &ledger_text(ledger)),
            Some(decided) => {
                replace(&self.dir, CLUSTER, &cluster_text(decided))?;
                // What is decided says everything; should this one stay, nobody reads it.
                let _ = std::fs::remove_file(self.dir.join(GENESIS));
                Ok(())
            }
        }
    }
}

/// Lines of a name and numbers.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name)?.1.split(' ').map(|number| number.parse().ok()).collect()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.numbers(name)?.first().copied()
    }

    fn genesis(&self) -> Option<ClusterGenesis> {
        let genesis = ClusterGenesis {
            cluster: ClusterId(self.number("cluster")?),
            seed: self.number("seed")?,
            ranges: self.number("ranges")?.try_into().ok()?,
            founders: self.numbers("founders")?.into_iter().map(NodeId).collect(),
        };
        genesis.is_valid().then_some(genesis)
    }

    fn ballot(&self, name: &str) -> Option<Ballot> {
        match self.numbers(name)?[..] {
            [round, node] => Some(Ballot { round, node }),
            _ => None,
        }
    }

    fn ledger(&self) -> Option<Ledger> {
        let accepted = match self.ballot("accepted") {
            Some(ballot) => Some(Vote { ballot, value: self.genesis()? }),
            None => None,
        };
        Some(Ledger { promised: self.ballot("promised")?, accepted, decided: None })
    }
}

fn node_text(node: &NodeId) -> String {
    checked(format!("bifro-uring node 2\nid {}\n", node.0))
}

fn genesis_lines(genesis: &ClusterGenesis) -> String {
    let ClusterGenesis { cluster, seed, ranges, founders } = genesis;
    let founders: Vec<String> = founders.iter().map(|founder| founder.0.to_string()).collect();
    format!("cluster {}\nseed {seed}\nranges {ranges}\nfounders {}\n", cluster.0, founders.join(" "))
}

fn cluster_text(genesis: &ClusterGenesis) -> String {
    checked(format!("bifro-uring cluster 1\n{}", genesis_lines(genesis)))
}

fn ledger_text(ledger: &Ledger) -> String {
    let Ballot { round, node } = ledger.promised;
    let mut text = format!("bifro-uring genesis 1\npromised {round} {node}\n");
    if let Some(Vote { ballot: Ballot { round, node }, value }) = &ledger.accepted {
        text = format!("{text}accepted {round} {node}\n{}", genesis_lines(value));
    }
    checked(text)
}

fn checked(mut text: String) -> String {
    let check = crc32fast::hash(text.as_bytes());
    let _infallible = writeln!(text, "check {check}");
    text
}

/// What the file says, if there is one: it must be exactly what would be written for it.
fn read<T>(
    path: &Path,
    header: &str,
    parse: impl Fn(&Fields<'_>) -> Option<T>,
    text: impl Fn(&T) -> String,
) -> Result<Option<T>, HostError> {
    let damaged = || HostError::Node { path: path.to_owned() };
    match std::fs::read_to_string(path) {
        Ok(found) => {
            let fields = found.lines().next().filter(|first| *first == header).map(|_| Fields(&found));
            let value = fields.and_then(|fields| parse(&fields)).filter(|value| text(value) == found);
            value.map(Some).ok_or_else(damaged)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged()),
        Err(source) => Err(HostError::NodeFile { path: path.to_owned(), source }),
    }
}

/// Renamed into place, so that a crash leaves no half a file.
fn replace(dir: &Path, name: &str, text: &str) -> Result<(), HostError> {
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| HostError::NodeFile { path: path.clone(), source })
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

    fn open(dir: &tempfile::TempDir) -> NodeDir {
        NodeDir::open(dir.path()).expect("a usable directory")
    }

    fn genesis() -> ClusterGenesis {
        ClusterGenesis { cluster: ClusterId(u64::MAX), seed: 2, ranges: 3, founders: vec![NodeId(4), NodeId(5)] }
    }

    #[test]
    fn a_new_directory_gets_an_identity_that_every_later_start_finds() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = open(&dir);
        let (node, alone) = (first.node(), first.alone(8).expect("new"));
        drop(first);
        let second = open(&dir);
        assert_eq!(second.node(), node);
        assert_eq!(second.alone(16).expect("there"), alone, "the number of ranges is decided once");
        assert_eq!((alone.ranges, &alone.founders[..]), (8, &[node][..]));
    }

    #[test]
    fn a_ledger_is_found_as_it_was_kept_and_what_is_decided_takes_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let node = open(&dir);
        assert_eq!(node.ledger().expect("new"), Ledger::default());
        let promised = Ledger { promised: Ballot { round: 1, node: u64::MAX }, ..Ledger::default() };
        let vote = Vote { ballot: Ballot { round: 1, node: 7 }, value: genesis() };
        let accepted = Ledger { accepted: Some(vote), ..promised.clone() };
        for ledger in [promised, accepted] {
            node.file().keep(&ledger).expect("kept");
            assert_eq!(node.ledger().expect("there"), ledger);
            let said = node.alone(8).expect_err("it has a part in another").to_string();
            assert!(said.contains("GENESIS") && said.contains("[cluster]"), "{said}");
        }
        let decided = Ledger { decided: Some(genesis()), ..Ledger::default() };
        node.file().keep(&decided).expect("kept");
        assert_eq!(node.ledger().expect("there"), decided);
        assert_eq!(node.alone(8).expect("there"), genesis());
        assert!(!dir.path().join(GENESIS).exists());
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(open(&dir));
        let path = dir.path().join(NODE);
        let whole = std::fs::read_to_string(&path).expect("there");
        for text in [whole.replace("id ", "id 1"), String::new(), whole.replace("node 2", "node 3")] {
            std::fs::write(&path, &text).expect("written");
            let said = NodeDir::open(dir.path()).expect_err("damaged").to_string();
            assert!(said.contains("NODE") && said.contains("restore"), "{said}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        }
        std::fs::write(&path, &whole).expect("written");
        let node = open(&dir);
        let whole = cluster_text(&genesis());
        for text in
            [whole.replace("ranges 3", "ranges 4"), whole.replace("founders 4 5", "founders 5 4"), String::new()]
        {
            std::fs::write(dir.path().join(CLUSTER), &text).expect("written");
            let said = node.ledger().expect_err("damaged").to_string();
            assert!(said.contains("CLUSTER") && said.contains("restore"), "{said}");
        }
    }

    #[test]
    fn data_without_the_files_that_say_whose_it_is_gets_no_new_ones() {
        let dir = tempfile::tempdir().expect("a directory");
        let node = open(&dir);
        node.alone(8).expect("new");
        std::fs::create_dir(dir.path().join("wal")).expect("data");
        std::fs::remove_file(dir.path().join(CLUSTER)).expect("there");
        assert!(node.ledger().expect_err("gone").to_string().contains("CLUSTER"));
        drop(node);
        std::fs::remove_file(dir.path().join(NODE)).expect("there");
        assert!(NodeDir::open(dir.path()).expect_err("gone").to_string().contains("NODE"));
    }
}
