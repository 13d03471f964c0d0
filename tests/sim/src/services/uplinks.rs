//! The ends of links that a shard has: made and made again as long as the other node lives, and over when nothing was heard for long. As bifro-net's
//! `broker/uplinks.rs` over `links/`, without ways by way of a third node.
//!
//! What quinn-proto does with time is kept: whatever arrives puts the end of a link off, when it is read and not when it arrived; and so
//! does the first thing that is sent afterwards.

use super::shard::Shard;
use super::talk::{Hello, LinkId, LinkInput, LinkOutput, Note, Parcel};
use bifro_core::ids::{NodeIdx, ShardId};
use bifro_core::limits::LINK_IDLE;
use bifro_core::nodes::Nodes;
use bifro_core::ports::Via;
use bifro_core::time::Instant;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// From a link that ended to the next attempt: at first, and at most.
const DIAL_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long a link may take to be made.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How often an end says that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// This end of a link.
#[derive(Debug)]
struct End {
    dialled: bool,
    via: Option<Via>,
    made_by: Instant,
    idle_at: Instant,
    /// Something was sent since something was heard.
    has_sent: bool,
    ping_at: Instant,
}

/// The link this shard is to have to a node.
#[derive(Debug)]
struct Dial {
    link: Option<LinkId>,
    at: Instant,
    delay: Duration,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Uplinks {
    me: Hello,
    nodes: Arc<Nodes>,
    dials: BTreeMap<NodeIdx, Dial>,
    ends: BTreeMap<LinkId, End>,
    by_way: BTreeMap<Key, LinkId>,
}

/// A way, in an order.
type Key = (NodeIdx, Option<ShardId>);

const fn key(via: Via) -> Key {
    match via {
        Via::To(node) => (node, None),
        Via::From(node, shard) => (node, Some(shard)),
    }
}

impl Uplinks {
    pub(crate) fn new(me: Hello) -> Self {
        let nodes = Arc::new(Nodes::alone(me.node));
        Self { me, nodes, dials: BTreeMap::new(), ends: BTreeMap::new(), by_way: BTreeMap::new() }
    }

    /// Whether there is this end of the link.
    pub(crate) fn knows(&self, link: LinkId) -> bool {
        self.ends.contains_key(&link)
    }

    /// When the shard is to turn again even if nothing comes.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let dials = self.dials.values().filter(|dial| dial.link.is_none()).map(|dial| dial.at);
        let ends = self.ends.values().map(|end| match end.via {
            Some(_) => end.ping_at.min(end.idle_at),
            None => end.made_by,
        });
        dials.chain(ends).min()
    }
}

impl Shard {
    /// Other nodes have come or gone.
    pub(super) fn set_links_nodes(&mut self, nodes: &Arc<Nodes>) {
        self.uplinks.nodes = nodes.clone();
        let gone = self.uplinks.by_way.iter().filter(|((node, _), _)| nodes.get(*node).is_none());
        for link in gone.map(|(_, &link)| link).collect::<Vec<_>>() {
            self.close_link(link);
        }
        let gone = self.uplinks.dials.extract_if(.., |node, _| nodes.get(*node).is_none());
        for link in gone.filter_map(|(_, dial)| dial.link).collect::<Vec<_>>() {
            self.close_link(link);
        }
        for node in &nodes.others {
            let dial = Dial { link: None, at: self.now, delay: DIAL_AGAIN.0 };
            self.uplinks.dials.entry(node.idx).or_insert(dial);
        }
    }

    /// Takes in what links have brought, then looks which of them are over, and makes those that are missing.
    pub(super) fn handle_links(&mut self) {
        while let Some(input) = self.inputs.links.pop_front() {
            match input {
                LinkInput::Called(link) => {
                    self.begin_link(link, false);
                    self.post(link, Parcel::Answer);
                }
                LinkInput::Note(link, Note::Close) => self.forget_link(link),
                // Of a link that is over: whoever thinks otherwise hears it, as by QUIC's stateless reset.
                LinkInput::Parcel(link, _) | LinkInput::Note(link, Note::Ping) if !self.uplinks.knows(link) => {
                    self.outputs.links.push(LinkOutput::Note(link, Note::Close));
                }
                LinkInput::Note(link, Note::Ping) => self.hear(link),
                LinkInput::Parcel(link, parcel) => {
                    self.hear(link);
                    self.handle_parcel(link, parcel);
                }
            }
        }
        self.end_links();
        self.dial();
    }

    fn begin_link(&mut self, link: LinkId, dialled: bool) {
        let now = self.now;
        let end = End {
            dialled,
            via: None,
            made_by: now + HANDSHAKE,
            idle_at: now + LINK_IDLE,
            has_sent: false,
            ping_at: now + KEEP_ALIVE,
        };
        self.uplinks.ends.insert(link, end);
    }

    fn hear(&mut self, link: LinkId) {
        let Some(end) = self.uplinks.ends.get_mut(&link) else { return };
        (end.idle_at, end.has_sent) = (self.now + LINK_IDLE, false);
    }

    fn sends(&mut self, link: LinkId) {
        let Some(end) = self.uplinks.ends.get_mut(&link) else { return };
        if !std::mem::replace(&mut end.has_sent, true) {
            end.idle_at = self.now + LINK_IDLE;
        }
    }

    fn post(&mut self, link: LinkId, parcel: Parcel) {
        self.sends(link);
        self.outputs.links.push(LinkOutput::Parcel(link, parcel));
    }

    fn handle_parcel(&mut self, link: LinkId, parcel: Parcel) {
        let Some(end) = self.uplinks.ends.get(&link) else { return };
        let (dialled, via) = (end.dialled, end.via);
        match parcel {
            Parcel::Answer => self.post(link, Parcel::Greet(self.uplinks.me)),
            Parcel::Greet(peer) if dialled => self.dialled(link, peer),
            Parcel::Greet(peer) => match self.uplinks.nodes.find(peer.node, peer.nonce).map(|node| node.idx) {
                Some(node) => {
                    self.post(link, Parcel::Greet(self.uplinks.me));
                    self.open_link(link, Via::From(node, ShardId(peer.shard)));
                }
                None => self.close_link(link),
            },
            Parcel::Batch(frames) => {
                if let Some(via) = via {
                    self.receive_batch(via, frames);
                }
            }
        }
    }

    fn dialled(&mut self, link: LinkId, peer: Hello) {
        let dial = self.uplinks.dials.iter_mut().find(|(_, dial)| dial.link == Some(link));
        let Some((&node, dial)) = dial else { return self.close_link(link) };
        let expected =
            self.uplinks.nodes.get(node).is_some_and(|node| (node.id, node.nonce) == (peer.node, peer.nonce));
        if expected {
            dial.delay = DIAL_AGAIN.0;
            self.open_link(link, Via::To(node));
        } else {
            self.close_link(link);
        }
    }

    /// There is a way, or another link for it: what it had is over.
    fn open_link(&mut self, link: LinkId, via: Via) {
        if let Some(&before) = self.uplinks.by_way.get(&key(via)) {
            self.close_link(before);
        }
        self.uplinks.by_way.insert(key(via), link);
        if let Some(end) = self.uplinks.ends.get_mut(&link) {
            end.via = Some(via);
        }
        self.link_up(via);
    }

    /// Ends a link, and tells the other end.
    fn close_link(&mut self, link: LinkId) {
        if self.uplinks.knows(link) {
            self.outputs.links.push(LinkOutput::Note(link, Note::Close));
        }
        self.forget_link(link);
    }

    /// A link is over; one that this shard wants is made again.
    fn forget_link(&mut self, link: LinkId) {
        let Some(end) = self.uplinks.ends.remove(&link) else { return };
        self.outputs.links.push(LinkOutput::Over(link));
        let now = self.now;
        if let Some(dial) = self.uplinks.dials.values_mut().find(|dial| dial.link == Some(link)) {
            (dial.link, dial.at) = (None, now + dial.delay);
            dial.delay = (dial.delay * 2).min(DIAL_AGAIN.1);
        }
        if let Some(via) = end.via {
            self.uplinks.by_way.remove(&key(via));
            self.link_down(via);
        }
    }

    /// Nothing was heard of these for too long, or they were never made.
    fn end_links(&mut self) {
        let now = self.now;
        let is_over = |end: &End| if end.via.is_some() { end.idle_at <= now } else { end.made_by <= now };
        let over = self.uplinks.ends.iter().filter(|(_, end)| is_over(end)).map(|(&link, _)| link);
        for link in over.collect::<Vec<_>>() {
            self.forget_link(link);
        }
    }

    fn dial(&mut self) {
        let now = self.now;
        let due = self.uplinks.dials.iter().filter(|(_, dial)| dial.link.is_none() && dial.at <= now);
        for node in due.map(|(&node, _)| node).collect::<Vec<_>>() {
            let Some(to) = self.uplinks.nodes.get(node).copied() else { continue };
            let link = self.next_link();
            self.begin_link(link, true);
            if let Some(dial) = self.uplinks.dials.get_mut(&node) {
                dial.link = Some(link);
            }
            let shard = self.me.0 % to.shards;
            self.outputs.links.push(LinkOutput::Dial { link, node: to.id, shard });
        }
    }

    /// Ends the turn: hands over what it has for other nodes, and says that this end lives where it has nothing to say.
    pub(super) fn flush_links(&mut self) {
        for (via, frames) in self.remotes.batches() {
            if let Some(&link) = self.uplinks.by_way.get(&key(via)) {
                self.post(link, Parcel::Batch(frames));
            }
        }
        let now = self.now;
        let due = self.uplinks.ends.iter().filter(|(_, end)| end.via.is_some() && end.ping_at <= now);
        for link in due.map(|(&link, _)| link).collect::<Vec<_>>() {
            self.sends(link);
            self.outputs.links.push(LinkOutput::Note(link, Note::Ping));
            if let Some(end) = self.uplinks.ends.get_mut(&link) {
                end.ping_at = now + KEEP_ALIVE;
            }
        }
    }
}
