//! The services among those of other nodes: what each listens to.
//!
//! # How a publish after SUBACK matches on every node
//! Each shard *announces* what it listens to, over the link it has to each live node: a filter when it gets its first subscriber, each
//! member of a group. The node that hears it adds a route ([`Receiver::Remote`]) as it adds those of its own clients, and
//! answers when no cache of its own contradicts it any more; only then SUBACK leaves. Routes of persistent sessions are announced likewise.
//!
//! A link that ends may have lost announcements. So a node whose shards have not all said [`Remote::Told`] since their links are up is *unheard*: it is
//! sent every message, and finds out itself who listens. A subscriber waits for every live node, but for those whose link has been down for
//! [`LINK_LEASE`]: by then the other end has noticed too, and holds this node for unheard. A node that is taken for dead may live, and one of its shards may stand still: how
//! long it is waited for is the matter of [`super::reliance`].

use super::dist::Origin;
use super::hearing::Extent;
use super::message::{Dict, Message};
use super::mutation::Mutation;
use super::registrations::Mine;
use super::reliance::{HearingCells, Reliance, Trust};
use super::telling::Telling;
use super::wire::{Remote, Route};
use super::{RangeServices, repeat_order};
use bifro_core::ids::{ConnRef, NodeId, NodeIdx, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::limits::LINK_LEASE;
use bifro_core::nodes::{Member, Node, Nodes};
use bifro_core::ports::{Receiver, RemoteSend, Via};
use bifro_core::roles::{Duties, Roles};
use bifro_core::time::{Instant, earlier};
use bifro_range::dist::RouteFilter;
use hashbrown::{HashMap, HashSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A route as a node announces it.
pub(super) type Announced = (TenantIdx, Arc<RouteFilter>);

/// What tells any two of them apart, in some order.
type Order = (u32, Box<str>, Option<(Box<str>, bool)>);

pub(super) fn order((tenant, route): &Announced) -> Order {
    let group = route.group.as_ref().map(|group| (group.name.clone(), group.ordered));
    (tenant.0, route.filter.clone(), group)
}

/// The link of this shard to a live node.
#[derive(Clone, Copy, Debug)]
enum Link {
    Up,
    /// The other end may not have noticed yet, and still rely on what it was told.
    Down {
        since: Instant,
    },
    /// It has noticed.
    Lapsed,
}

impl Link {
    /// When the other end will have noticed that the link is down.
    fn lapses_at(self) -> Option<Instant> {
        match self {
            Self::Down { since } => Some(since + LINK_LEASE),
            Self::Up | Self::Lapsed => None,
        }
    }
}

/// What a shard of another node has told over its link.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Counts its links; routes of earlier ones are stale once it has told everything.
    session: u32,
    routes: HashMap<(Announced, u32), u32>,
    /// Routes of this session on their way into the partitions here.
    adding: usize,
    told: bool,
    pub(super) reliance: Reliance,
}

/// A node of the cluster that a route waits for.
pub(super) type Unanswered = smallvec::SmallVec<[NodeIdx; 4]>;

/// One shard's part in the cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: Arc<Nodes>,
    /// When somebody came or went last.
    pub(super) changed_at: Instant,
    links: BTreeMap<NodeIdx, Link>,
    /// Who listens on this shard.
    pub(super) announced: HashMap<Announced, HashSet<Receiver>>,
    pub(super) heard: HashMap<(NodeIdx, ShardId), Heard>,
    /// Shards of live nodes that have told everything, and the shards here that they have told it; the same on all shards here, some messages later.
    pub(super) complete: HashMap<NodeIdx, BTreeMap<ShardId, ShardId>>,
    unheard: Vec<NodeIdx>,
    pub(super) trust: Trust,
    pub(super) mine: HashMap<Slot, Mine>,
    /// Nodes that are being told everything.
    pub(super) tellings: VecDeque<Telling>,
    /// Ranges that are to be led here, whoever is preferred: an operator wants it so. Until a node comes, goes or changes.
    pub(super) kept: BTreeSet<RangeIdx>,
}

impl Cluster {
    pub(super) fn new(me: NodeId, shard: ShardId, cells: Arc<HearingCells>) -> Self {
        Self {
            nodes: Arc::new(Nodes::alone(me)),
            changed_at: Instant::default(),
            links: BTreeMap::new(),
            announced: HashMap::new(),
            heard: HashMap::new(),
            complete: HashMap::new(),
            unheard: Vec::new(),
            trust: Trust::new(shard, cells),
            mine: HashMap::new(),
            tellings: VecDeque::new(),
            kept: BTreeSet::new(),
        }
    }

    pub(super) fn unheard(&self) -> &[NodeIdx] {
        &self.unheard
    }

    pub(super) fn is_up(&self, node: NodeIdx) -> bool {
        matches!(self.links.get(&node), Some(Link::Up))
    }

    /// What this shard thinks of its links and what it has heard.
    #[cfg(feature = "simulation")]
    pub(super) fn standing(&self) -> String {
        format!("links {:?}, complete {:?}, tellings {}", self.links, self.complete, self.tellings.len())
    }

    /// Nodes that a subscriber has to wait for: which rely on what this shard told them.
    fn relying(&self) -> Unanswered {
        let linked = self.links.iter().filter(|(_, link)| !matches!(link, Link::Lapsed)).map(|(&node, _)| node);
        linked.chain(self.trust.gone()).collect()
    }

    fn linked(&self) -> Unanswered {
        self.links.iter().filter(|(_, link)| matches!(link, Link::Up)).map(|(&node, _)| node).collect()
    }

    /// Connections here whose client ids a node keeps.
    pub(super) fn named_at(&self, node: NodeIdx) -> impl Iterator<Item = Slot> {
        self.mine.iter().filter(move |(_, mine)| mine.node == node).map(|(&slot, _)| slot)
    }

    /// When the first of the links that are down lapses; at once if there is more to tell.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if !self.tellings.is_empty() {
            return Some(Instant::default());
        }
        let links = self.links.values().filter_map(|link| link.lapses_at()).min();
        earlier(links, self.trust.next_timeout())
    }

    /// A node is unheard also as long as this shard has no link to it: a shard that stood still learns by its own links that time has
    /// passed, whatever the other shards know.
    pub(super) fn find_unheard(&mut self) {
        self.trust.look();
        let told = |idx| {
            let shards = self.complete.get(&idx).into_iter().flatten();
            shards.filter(|(shard, at)| self.trust.is_reliable((idx, **shard), **at)).count()
        };
        let is_heard = |node: &&Node| told(node.idx) >= usize::from(node.shards) && self.is_up(node.idx);
        let unheard = self.nodes.others.iter().filter(|node| !is_heard(node));
        self.unheard = unheard.map(|node| node.idx).collect();
    }
}

impl RangeServices {
    /// Takes part in a cluster, as `me`. Before anything is asked of the services.
    #[must_use]
    pub fn join(mut self, me: NodeId) -> Self {
        self.cluster = Some(Box::new(Cluster::new(me, self.shard, self.cells.clone())));
        self.retained.iter_mut().for_each(|range| range.machine.replicate(me));
        self
    }

    /// What this node does, until it is told with the others: before anything is asked of the services.
    #[must_use]
    pub fn with_roles(mut self, roles: Roles) -> Self {
        if let Some(cluster) = &mut self.cluster {
            let me = cluster.nodes.me;
            let members = vec![Member { id: me, duties: Duties { roles, is_draining: false } }];
            cluster.nodes = Arc::new(Nodes { members, ..Nodes::alone(me) });
        }
        self
    }

    pub(super) fn send_remote(&mut self, via: Via, tenant: Option<TenantIdx>, message: &Remote) {
        self.out.remote.push(RemoteSend { via, tenant, bytes: message.encode() });
    }

    /// The same message for several nodes, encoded once.
    pub(super) fn send_to_nodes(&mut self, nodes: &[NodeIdx], tenant: TenantIdx, message: &Remote) {
        if nodes.is_empty() {
            return;
        }
        let (bytes, tenant) = (message.encode(), Some(tenant));
        self.out.remote.extend(nodes.iter().map(|&node| RemoteSend {
            via: Via::To(node),
            tenant,
            bytes: bytes.clone(),
        }));
    }

    /// Nodes that rely on what this shard tells them, and those of them that it has links to.
    pub(super) fn other_nodes(&self) -> (Unanswered, Unanswered) {
        let cluster = self.cluster.as_ref();
        cluster.map_or_else(Default::default, |cluster| (cluster.relying(), cluster.linked()))
    }

    /// Which link of another node's shard it is that there is, or was last.
    pub(super) fn link_session(&self, node: NodeIdx, shard: ShardId) -> u32 {
        let heard = self.cluster.as_ref().and_then(|cluster| cluster.heard.get(&(node, shard)));
        heard.map_or(0, |heard| heard.session)
    }

    /// Tells the other nodes of a subscriber. Returns those that have to answer before it can rely on them.
    pub(super) fn announce(
        &mut self,
        token: u32,
        tenant: TenantIdx,
        route: &Arc<RouteFilter>,
        receiver: Receiver,
    ) -> Unanswered {
        let Some(cluster) = &mut self.cluster else { return Unanswered::new() };
        let receivers = cluster.announced.entry((tenant, route.clone())).or_default();
        let before = receivers.len();
        // One that is there already, or not the first of its filter, may come before anybody has answered to the first: it asks again.
        let nth = if receivers.insert(receiver) { nth(route, before) } else { 0 };
        let (unanswered, linked) = (cluster.relying(), cluster.linked());
        let message = Remote::Add { token: Some(token), route: Route::from(&**route), nth };
        self.send_to_nodes(&linked, tenant, &message);
        if self.is_planted(Mutation::SubscribeAlone) { Unanswered::new() } else { unanswered }
    }

    /// A subscriber has gone, or never came to be.
    pub(super) fn withdraw(&mut self, tenant: TenantIdx, route: &Arc<RouteFilter>, receiver: Receiver) {
        let Some(cluster) = &mut self.cluster else { return };
        let key = (tenant, route.clone());
        let Some(receivers) = cluster.announced.get_mut(&key) else { return };
        if !receivers.remove(&receiver) {
            return;
        }
        let left = receivers.len();
        if left == 0 {
            cluster.announced.remove(&key);
        }
        if left > 0 && route.group.is_none() {
            return;
        }
        let linked = cluster.linked();
        let message = Remote::Remove { route: Route::from(&**route), nth: nth(route, left) };
        self.send_to_nodes(&linked, tenant, &message);
    }

    pub(super) fn replace_nodes(&mut self, now: Instant, nodes: &Arc<Nodes>) {
        let Some(cluster) = &mut self.cluster else { return };
        let old = std::mem::replace(&mut cluster.nodes, nodes.clone());
        cluster.changed_at = now;
        cluster.kept.clear();
        if let Some(reigns) = &mut self.reigns {
            reigns.place_at = now;
            reigns.newest.count(nodes);
        }
        let mut come = Vec::new();
        for node in &nodes.others {
            cluster.links.entry(node.idx).or_insert_with(|| {
                cluster.trust.is_back(node.idx);
                come.push(node.idx);
                Link::Down { since: now }
            });
        }
        for gone in old.others.iter().filter(|node| nodes.get(node.idx).is_none()) {
            self.forget_node(now, *gone);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.find_unheard();
        }
        self.move_registrations();
        self.ask_keepers(now);
        self.ask_who_has_heard(&come);
        self.settle(now);
    }

    /// Whether any node, should it live or not, may have replicas of persistent sessions.
    pub(super) fn has_hosts(&self) -> bool {
        let is_host = |member: &Member| member.duties.roles.has(Roles::INBOX);
        self.cluster.as_ref().is_none_or(|cluster| cluster.nodes.members.iter().any(is_host))
    }

    /// A node has died, or left: its connections have gone with it, and nobody there listens any more.
    fn forget_node(&mut self, now: Instant, gone: Node) {
        let Some(cluster) = &mut self.cluster else { return };
        let node = gone.idx;
        let relies = cluster.trust.has_gone(now, node);
        cluster.links.remove(&node);
        cluster.complete.remove(&node);
        cluster.tellings.retain(|telling| telling.node != node);
        self.rely_no_more(node);
        let mut effects = Vec::new();
        self.owners.remove_node(now, node, &mut effects);
        self.carry_out_dict(effects);
        if let Some(host) = &mut self.host {
            host.node_down(now, gone.id);
        }
        if !self.forget_claims(node) {
            self.remove_node(node, None);
        }
        if !relies {
            self.release_additions(|waits_for| waits_for == node);
        }
        self.release_replications(|waits_for| waits_for == node);
        self.lose_keeper(now, node);
    }

    /// The links over which a node has told what it listens to.
    pub(super) fn sessions_of(&self, node: NodeIdx) -> BTreeMap<ShardId, u32> {
        let heard = self.cluster.iter().flat_map(|cluster| &cluster.heard).filter(|((of, _), _)| *of == node);
        heard.map(|((_, shard), heard)| (*shard, heard.session)).collect()
    }

    /// What a node that has died listened to is forgotten; if `sessions` are given, only as far as it has been told over no later links: it may have
    /// been taken for dead and be back by now.
    pub(super) fn remove_node(&mut self, node: NodeIdx, sessions: Option<&BTreeMap<ShardId, u32>>) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_of_then =
            |shard: &ShardId, heard: &Heard| sessions.is_none_or(|of| of.get(shard) == Some(&heard.session));
        let heard = cluster.heard.extract_if(|(of, shard), heard| *of == node && is_of_then(shard, heard));
        let mut heard = heard.collect::<Vec<_>>();
        repeat_order(&mut heard, |((_, shard), _)| *shard);
        for ((_, shard), heard) in heard {
            let mut routes: Vec<_> = heard.routes.into_keys().collect();
            repeat_order(&mut routes, |(announced, nth)| (order(announced), *nth));
            for ((tenant, route), nth) in routes {
                self.remove_from_partitions(tenant, &route, Receiver::Remote { node, shard, nth });
            }
        }
    }

    pub(super) fn begin_link(&mut self, now: Instant, via: Via) {
        match via {
            Via::To(node) => {
                let Some(cluster) = &mut self.cluster else { return };
                if cluster.nodes.get(node).is_some() {
                    cluster.links.insert(node, Link::Up);
                    cluster.find_unheard();
                    self.begin_telling(node);
                    self.ask_keepers(now);
                }
            }
            Via::From(node, shard) => {
                let Some(cluster) = &mut self.cluster else { return };
                let heard = cluster.heard.entry((node, shard)).or_default();
                heard.session = heard.session.wrapping_add(1);
                (heard.adding, heard.told) = (0, false);
                self.begin_reliance(now, node, shard);
                self.greet_peer(node, shard);
            }
        }
        self.settle(now);
    }

    /// The shard here where the link of another node's shard arrives.
    pub(super) fn arrives_at(&self, node: NodeIdx, shard: ShardId) -> ShardId {
        let complete = self.cluster.as_ref().and_then(|cluster| cluster.complete.get(&node));
        let heard_at = complete.and_then(|shards| shards.get(&shard)).copied();
        // By way of a third node it may be another than that which was dialled.
        heard_at.unwrap_or(ShardId(shard.0 % self.shards))
    }

    /// How many routes of this shard's a node is to know for a filter: one, or each member of a group.
    pub(super) fn members_of(&self, announced: &Announced) -> u32 {
        let receivers = self.cluster.as_ref().and_then(|cluster| cluster.announced.get(announced));
        let members = receivers.map_or(0, HashSet::len);
        let routes = if announced.1.group.is_some() { members } else { members.min(1) };
        u32::try_from(routes).expect("a group has fewer than 2^32 members")
    }

    /// Subscribers that wait for a node whose link is up again ask it again.
    pub(super) fn ask_again(&mut self, node: NodeIdx) {
        let Some(cluster) = &self.cluster else { return };
        let (mut asked, mut gone) = (Vec::new(), Vec::new());
        for (token, addition) in &self.additions {
            let key = (addition.tenant, addition.route.clone());
            if !addition.unanswered_nodes.contains(&node) {
                continue;
            }
            let token = u32::try_from(token).expect("it was one");
            if cluster.announced.contains_key(&key) {
                asked.push((key.0, Remote::Add { token: Some(token), route: Route::from(&*key.1), nth: 0 }));
            } else {
                gone.push(token);
            }
        }
        for (tenant, message) in asked {
            self.send_remote(Via::To(node), Some(tenant), &message);
        }
        gone.into_iter().for_each(|token| self.addition_answered(token, node));
        self.send_replications_again(node);
    }

    pub(super) fn end_link(&mut self, now: Instant, via: Via) {
        let Some(cluster) = &mut self.cluster else { return };
        match via {
            Via::To(node) => {
                if let Some(link) = cluster.links.get_mut(&node) {
                    *link = Link::Down { since: now };
                }
                cluster.find_unheard();
                self.stop_telling(node);
                self.drop_claims(now, node);
                self.lose_keeper(now, node);
            }
            Via::From(node, shard) => {
                self.lose_peer(node, shard);
                self.lose_guests(node, shard);
                let Some(cluster) = &mut self.cluster else { return };
                if let Some(heard) = cluster.heard.get_mut(&(node, shard)) {
                    heard.told = false;
                }
                self.end_reliance(node, shard);
                self.tell_shards_heard(node, shard, Extent::Nothing);
            }
        }
        self.settle(now);
    }

    /// False if the message cannot be read, or is none for this way.
    pub(super) fn handle_remote(&mut self, now: Instant, via: Via, tenant: Option<TenantIdx>, bytes: &[u8]) -> bool {
        let Some(message) = Remote::decode(bytes) else { return false };
        match (via, tenant, message) {
            (Via::To(node), None, Remote::Added { token }) => self.addition_answered(token, node),
            (Via::From(node, shard), Some(tenant), Remote::Add { token, route, nth }) => {
                self.hear_add((node, shard), token, (tenant, Arc::new(route.into())), nth);
            }
            (Via::From(node, shard), Some(tenant), Remote::Remove { route, nth }) => {
                let route = Arc::new(RouteFilter::from(route));
                let heard = self.cluster.as_mut().and_then(|cluster| cluster.heard.get_mut(&(node, shard)));
                if heard.is_some_and(|heard| heard.routes.remove(&((tenant, route.clone()), nth)).is_some()) {
                    self.remove_from_partitions(tenant, &route, Receiver::Remote { node, shard, nth });
                }
            }
            (Via::From(node, shard), None, Remote::Told) => {
                if let Some(heard) = self.cluster.as_mut().and_then(|cluster| cluster.heard.get_mut(&(node, shard))) {
                    heard.told = true;
                }
                self.finish_hearing(node, shard);
            }
            (Via::To(node), None, Remote::Relies { at }) => self.hear_relies(now, node, at),
            (Via::From(node, shard), None, Remote::MayRely { at }) => self.hear_may_rely(now, node, shard, at),
            (Via::From(node, _), Some(tenant), Remote::Register { req, conn, client_id }) => {
                let (conn, client) = (conn.of(node), self.stranger(tenant, client_id));
                self.send_to_owner_table(tenant, client, |client| match req {
                    Some(req) => Dict::Register { req: ReqId(req), conn, tenant, client },
                    None => Dict::Reregister { conn, tenant, client },
                });
            }
            (Via::From(node, _), Some(tenant), Remote::Unregister { conn, client_id }) => {
                let (conn, client) = (conn.of(node), self.stranger(tenant, client_id));
                self.send_to_owner_table(tenant, client, |client| Dict::Unregister { conn, tenant, client });
            }
            (via, tenant, message) if message.is_of_retain() => {
                if !self.hear_retain(now, via, tenant, message) {
                    return false;
                }
            }
            (via, None, message) if message.is_of_reigns() => {
                if !self.hear_reign(now, via, &message) {
                    return false;
                }
            }
            (Via::From(node, _), None, Remote::Raft { frame }) => {
                if !self.hear_frame(node, &frame) {
                    return false;
                }
            }
            (Via::To(node) | Via::From(node, _), tenant, Remote::Inbox(message)) => {
                if !self.hear_inbox(now, node, tenant, message) {
                    return false;
                }
            }
            (Via::To(_), None, Remote::Registered { conn, req }) => {
                let conn = conn.of(NodeIdx::HERE);
                return self.send_to_conn(conn, Dict::Registered { conn, req: ReqId(req) }, now);
            }
            (Via::To(_), None, Remote::Kick { conn }) => {
                let conn = conn.of(NodeIdx::HERE);
                return self.send_to_conn(conn, Dict::Kick { conn }, now);
            }
            _ => return false,
        }
        self.settle(now);
        true
    }

    fn send_to_conn(&mut self, conn: ConnRef, message: Dict, now: Instant) -> bool {
        if conn.shard.0 >= self.shards {
            return false;
        }
        self.send(conn.shard, Message::Dict(message));
        self.settle(now);
        true
    }

    fn hear_add(&mut self, from: (NodeIdx, ShardId), token: Option<u32>, (tenant, route): Announced, nth: u32) {
        let Some(heard) = self.cluster.as_mut().and_then(|cluster| cluster.heard.get_mut(&from)) else { return };
        let session = heard.session;
        heard.routes.insert(((tenant, route.clone()), nth), session);
        heard.adding += 1;
        let (node, shard) = from;
        let origin = Origin::Node { node, shard, session, token };
        self.add_to_partitions(origin, tenant, route, Receiver::Remote { node, shard, nth });
    }

    /// A route of another node is in all partitions here.
    pub(super) fn heard_added(&mut self, node: NodeIdx, shard: ShardId, session: u32, token: Option<u32>) {
        let heard = self.cluster.as_mut().and_then(|cluster| cluster.heard.get_mut(&(node, shard)));
        let Some(heard) = heard.filter(|heard| heard.session == session) else { return };
        heard.adding -= 1;
        if let Some(token) = token {
            self.send_remote(Via::From(node, shard), None, &Remote::Added { token });
        }
        self.finish_hearing(node, shard);
    }

    /// What an earlier link has told, and this one has not, is gone; then the shard can be relied on.
    pub(super) fn finish_hearing(&mut self, node: NodeIdx, shard: ShardId) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_heard = |heard: &&mut Heard| heard.told && heard.adding == 0 && cluster.trust.holds(&heard.reliance);
        let Some(heard) = cluster.heard.get_mut(&(node, shard)).filter(is_heard) else { return };
        let is_news = !std::mem::replace(&mut heard.reliance.is_told, true);
        let session = heard.session;
        let stale = heard.routes.extract_if(|_, of| *of != session).map(|(route, _)| route);
        let mut stale: Vec<_> = stale.collect();
        repeat_order(&mut stale, |(announced, nth)| (order(announced), *nth));
        for ((tenant, route), nth) in stale {
            self.remove_from_partitions(tenant, &route, Receiver::Remote { node, shard, nth });
        }
        if is_news {
            self.tell_shards_heard(node, shard, Extent::Everything);
        }
    }

    /// Nodes whose link has been down for long do not rely on what this shard told them.
    pub(super) fn lapse_links(&mut self, now: Instant) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut lapsed = Unanswered::new();
        for (&node, link) in &mut cluster.links {
            if link.lapses_at().is_some_and(|at| at <= now) {
                *link = Link::Lapsed;
                lapsed.push(node);
            }
        }
        if !lapsed.is_empty() {
            self.release_additions(|node| lapsed.contains(&node));
            self.release_replications(|node| lapsed.contains(&node));
        }
    }

    pub(super) fn release_additions(&mut self, is_released: impl Fn(NodeIdx) -> bool) {
        let mut done = Vec::new();
        for (token, addition) in &mut self.additions {
            let before = addition.unanswered_nodes.len();
            addition.unanswered_nodes.retain(|node| !is_released(*node));
            if addition.unanswered_nodes.len() < before {
                done.push(token);
            }
        }
        for token in done {
            self.finish_addition(token);
        }
    }

    fn addition_answered(&mut self, token: u32, node: NodeIdx) {
        let Some(addition) = self.additions.get_mut(token as usize) else { return };
        addition.unanswered_nodes.retain(|of| *of != node);
        self.finish_addition(token as usize);
    }
}

/// Which of a shard's routes of this filter it is: all subscribers without a group are one.
fn nth(route: &RouteFilter, members: usize) -> u32 {
    if route.group.is_some() { u32::try_from(members).expect("a group has fewer than 2^32 members") } else { 0 }
}
