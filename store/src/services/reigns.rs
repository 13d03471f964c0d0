//! Who leads which range of persistent sessions, as one shard knows it, and what waits until somebody does.
//!
//! # How nothing is published past a range that changes its leader
//! A shard relies on *claims*. Each shard of a node that leads a range tells every shard of another node whose link arrives there, back
//! over that link: "this node leads range r in term t". The claim is made only when all live nodes have the routes of the range's sessions
//! (they have acknowledged each, see [`super::cluster`]), and it is worth as long as that link and that node. On the node itself claims go
//! over the mesh. A shard routes a publish only while it has a claim for every range ([`Reigns::is_complete`]); others wait.
//!
//! A reign that ends is told in this order. The range's shard tells all shards of its node, and waits for them; each passes it on over the
//! links that arrive there. Only then the routes leave the node's own partitions. Thus
//! - a publish that arrived here before is stored by a leader, or refused by the range's shard, which has no machine any more; the publisher
//!   hears that it failed;
//! - of a publish that arrives later the publisher's shard hears the end before the answer, since both use the same link, and takes the
//!   publish for failed: whatever is on its way to a node when a claim of that node ends has failed ([`Completion::LeaderLost`]).
//!
//! What the node has told others of its routes it withdraws only when every shard that was told of the end has confirmed it and
//! [`LINK_LEASE`] has passed, by when those whose links have ended know it by themselves. Routes of a node that has died are removed when
//! all shards have dropped its claims. So a route never goes before the claim it belongs to.
//!
//! # How messages keep their order past it
//! A message that has failed is tried again, and what its publisher sends behind it waits for that (bifro-net's `broker/again.rs`). That is order enough if nothing which
//! was sent *before* a failure is known is stored *after* it by another leader, or by the same in another reign. So
//! - messages are handed to a range's shard only while its claim counts on the shard where they are routed, and stored only while it leads: not
//!   while its routes become known. Shards here have confirmed the end of one reign before the next begins, behind whatever they had handed over;
//! - a peer answers each claim that it hears ([`Remote::Follows`]), and each end. What it sent before that came without knowing of it, and is refused
//!   ([`Services::is_followed_by`]), also if it has waited here for its receivers meanwhile
//!   ([`Services::reigns_seen`]);
//! - when a shard hears that a claim has come, has ended or counts no more since there is a newer one, all that is on its way to that node has failed, at once: also what
//!   that node will refuse for the reason above. What the shard routes from then on goes to who leads now, behind it.
//!
//! # What is asked
//! A request goes to the leader over the asker's own link and is answered over it, so both fare alike. If the claim ends first, it is asked
//! again of the next leader: all requests may be repeated. It carries the claim's term, and is dropped by whoever does not lead in that
//! term: so it is carried out at most once by each leader, and by the last for good. Answers and pushes carry how the asker
//! counts the claim, and are worth something only while that claim counts: one that was made again after a link had ended is another.
//!
//! # Connections whose range changes its leader
//! They go on: each tells the next leader which messages it has in hand ([`bifro_core::ports::Inbox::reattach`]), and is pushed the others. The
//! leader knows from its records who had an owner, and expects it for a while ([`bifro_range::limits::REATTACH_WITHIN`]); so does one that has lost
//! sight of a node which lives. A connection that has no leader for [`INBOX_ORPHANED_MAX`], or is refused, has to go; one
//! that would attach hears that the service is unavailable.

mod newest;
mod ties;

use super::cluster::Announced;
use super::leading::FindTenant;
use super::message::{Asked, AskedAs, Inbox as Request, Message, Reign};
use super::ranges::Service;
use super::wire::{Remote, RemoteInbox};
use super::{RangeServices, repeat_order};
use crate::fatal::Fatal;
use crate::host::StorageCells;
use bifro_core::ids::{ConnRef, NodeIdx, RangeId, RangeIdx, ReqId, ShardId, Slot, TenantIdx};
use bifro_core::limits::{INBOX_ORPHANED_MAX, LINK_LEASE};
use bifro_core::ports::{Completion, PortError, Receiver, Services, Via};
use bifro_core::time::Instant;
use newest::Newest;
use smallvec::SmallVec;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use ties::{Attachment, Orphaned};

/// That a node leads a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    term: u64,
    node: NodeIdx,
    /// By this shard's own count: a node that claims a range again in the same term, over another link, is another leader. What is asked of
    /// a leader, and what it says, carries this.
    nth: u32,
}

/// A shard of another node whose link arrives here.
type Peer = (NodeIdx, ShardId);

/// A request that is not answered. A settlement is asked of each range under the same number.
type Key = (AskedAs, RangeIdx);

/// Routes of a reign that has ended, as the other nodes know them.
#[derive(Debug)]
struct Withdrawal {
    range: RangeIdx,
    term: u64,
    not_before: Instant,
    /// Shards of this node that have not said yet that all their peers know.
    unconfirmed: usize,
    routes: Vec<(Announced, Receiver)>,
}

/// A node that has died, if not for good.
#[derive(Debug, Default)]
struct Forgetting {
    /// Answers to come from shards that may still count on its claims.
    unanswered: usize,
    /// The links over which it has told its routes until then.
    sessions: BTreeMap<ShardId, u32>,
}

/// Those of the claims that are not among the others.
fn without(claims: &[Claim], others: &[Claim]) -> SmallVec<[Claim; 2]> {
    claims.iter().filter(|claim| !others.contains(claim)).copied().collect()
}

/// See the module's page.
pub(super) struct Reigns {
    /// By range.
    claims: Vec<SmallVec<[Claim; 2]>>,
    pub(super) newest: Newest,
    /// Claims taken so far.
    claims_taken: u32,
    /// Ranges that nobody claims.
    unled: usize,
    asked: BTreeMap<Key, Request>,
    /// Connections here that have inboxes.
    attached: HashMap<Slot, Attachment>,
    /// Ranges that nobody claims and somebody waits for, or has.
    orphaned: BTreeMap<RangeIdx, Orphaned>,
    /// Topics whose receivers are asked for once there is a claim for every range.
    topics: Vec<(ReqId, TenantIdx, Box<str>)>,
    peers: BTreeSet<Peer>,
    /// Claims that peers have been told and have not heard yet.
    unfollowed: BTreeMap<Peer, usize>,
    /// Counts the changes of what this node leads.
    seen: u64,
    /// Ends that peers have been told and have not confirmed.
    unconfirmed: BTreeMap<(RangeIdx, u64), BTreeSet<Peer>>,
    /// Reigns of this shard's ranges that end, and how many shards do not know yet.
    ending: BTreeMap<RangeIdx, (u64, usize)>,
    withdrawals: Vec<Withdrawal>,
    /// When it is looked again whether replicas are where they belong.
    pub(super) place_at: Instant,
    /// Nodes that have died.
    forgetting: BTreeMap<NodeIdx, Forgetting>,
    /// For what is loaded when a reign begins.
    pub(super) find_tenant: FindTenant,
    pub(super) fatal: Fatal,
    /// Where the node is told which ranges nobody leads; none if that is another shard's business.
    cells: Option<Arc<StorageCells>>,
}

impl Reigns {
    /// Of so many ranges, which nobody leads yet.
    pub(super) fn new(ranges: u16, find_tenant: FindTenant, fatal: Fatal, cells: Option<Arc<StorageCells>>) -> Self {
        let reigns = Self {
            claims: vec![SmallVec::new(); ranges.into()],
            newest: Newest::new(ranges),
            claims_taken: 0,
            unled: ranges.into(),
            asked: BTreeMap::new(),
            attached: HashMap::new(),
            orphaned: BTreeMap::new(),
            topics: Vec::new(),
            peers: BTreeSet::new(),
            unfollowed: BTreeMap::new(),
            seen: 0,
            unconfirmed: BTreeMap::new(),
            ending: BTreeMap::new(),
            withdrawals: Vec::new(),
            place_at: Instant::default(),
            forgetting: BTreeMap::new(),
            find_tenant,
            fatal,
            cells,
        };
        (0..ranges).for_each(|range| reigns.tell_unled(RangeIdx(range), true));
        reigns
    }

    fn tell_unled(&self, range: RangeIdx, is_unled: bool) {
        if let Some(cells) = &self.cells {
            cells.set_unled(RangeId::of(Service::Inbox, range), is_unled);
        }
    }

    /// Whether every range has a leader whose routes are all known here.
    pub(super) const fn is_complete(&self) -> bool {
        self.unled == 0
    }

    /// Ranges that nobody leads, as far as this shard knows.
    pub(super) const fn unled(&self) -> usize {
        self.unled
    }

    /// Whether the claim that counts is this one.
    fn is_counted(&self, range: RangeIdx, nth: u32) -> bool {
        self.leader(range).is_some_and(|claim| claim.nth == nth)
    }

    /// The newest claim counts, if it is of the newest term.
    fn leader(&self, range: RangeIdx) -> Option<Claim> {
        let claims = self.claims.get(range.index())?.iter();
        claims.filter(|claim| !self.newest.is_past(range, claim)).max().copied()
    }

    /// Whether a peer has heard all that it was told this node leads, and leads no more.
    pub(super) fn is_followed_by(&self, node: NodeIdx, shard: ShardId) -> bool {
        let peer = (node, shard);
        !self.unfollowed.contains_key(&peer) && !self.unconfirmed.values().any(|peers| peers.contains(&peer))
    }

    /// How often what this node leads has changed.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Ranges that nobody leads.
    #[cfg(feature = "simulation")]
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = RangeIdx> {
        (0..self.claims.len() as u16).map(RangeIdx).filter(|range| self.leader(*range).is_none())
    }

    /// Ranges this node leads.
    fn led_here(&self) -> Vec<(RangeIdx, u64)> {
        let here = |claims: &SmallVec<[Claim; 2]>| claims.iter().find(|claim| claim.node == NodeIdx::HERE).copied();
        (0..).map(RangeIdx).zip(&self.claims).filter_map(|(range, claims)| Some((range, here(claims)?.term))).collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let ready = self.withdrawals.iter().filter(|withdrawal| withdrawal.unconfirmed == 0);
        let orphaned = self.orphaned.values().filter_map(|orphaned| orphaned.is_long_at());
        ready.map(|withdrawal| withdrawal.not_before).chain([self.place_at]).chain(orphaned).min()
    }
}

impl RangeServices {
    /// Asks a range's leader, now or as soon as there is one.
    pub(super) fn ask_leader(&mut self, now: Instant, range: RangeIdx, request: Request) {
        let Some(reigns) = &self.reigns else {
            return self.send_to_range(range, request);
        };
        let claim = reigns.leader(range);
        if claim.is_none() && self.refuses(now, range, &request) {
            return;
        }
        // What nobody waits for is not worth keeping: a message that was not committed is pushed again.
        if let (Some(asked), Some(reigns)) = (request.asked_as(), &mut self.reigns) {
            reigns.asked.insert((asked, range), request.clone());
        }
        if let Some(claim) = claim {
            self.send_to_leader(now, range, claim, request);
        }
    }

    fn send_to_leader(&mut self, now: Instant, range: RangeIdx, claim: Claim, request: Request) {
        let Claim { term, node, nth } = claim;
        if node == NodeIdx::HERE {
            let asked = Asked { node, shard: self.shard, term, claim: nth, request };
            return self.send(self.home(range), Message::Asked(Box::new(asked)));
        }
        let tenant = request.tenant();
        if let Some(message) = RemoteInbox::of(&request, self.shard, term, nth, now) {
            self.send_remote(Via::To(node), tenant, &Remote::Inbox(message));
        }
    }

    /// The request was answered, by a leader counted so. None if it is not waited for: it was answered before, it never was asked, or another leads now.
    pub(super) fn take_asked(&mut self, asked: AskedAs, range: Option<RangeIdx>, claim: u32) -> Option<Request> {
        let reigns = self.reigns.as_mut()?;
        let first = (asked, range.unwrap_or(RangeIdx(0)));
        let last = (asked, range.unwrap_or(RangeIdx(u16::MAX)));
        let key = *reigns.asked.range(first..=last).next()?.0;
        if !reigns.is_counted(key.1, claim) {
            return None;
        }
        reigns.asked.remove(&key)
    }

    /// True if the topic is asked for later.
    pub(super) fn puts_off(&mut self, req: ReqId, tenant: TenantIdx, topic: &str) -> bool {
        if self.are_receivers_known() {
            return false;
        }
        let Some(reigns) = self.reigns.as_mut() else { return false };
        reigns.topics.push((req, tenant, topic.into()));
        true
    }

    /// A node leads a range, in a newer term if it did before.
    fn take_claim(&mut self, now: Instant, range: RangeIdx, node: NodeIdx, term: u64) {
        let Some(reigns) = &mut self.reigns else { return };
        reigns.claims_taken = reigns.claims_taken.wrapping_add(1);
        let claim = Claim { term, node, nth: reigns.claims_taken };
        self.change_claims(now, range, |claims| {
            claims.retain(|earlier| earlier.node != claim.node);
            claims.push(claim);
        });
    }

    /// It does not any more.
    fn end_claim(&mut self, now: Instant, range: RangeIdx, node: NodeIdx, term: u64) {
        self.change_claims(now, range, |claims| claims.retain(|claim| (claim.node, claim.term) != (node, term)));
    }

    /// Changes the claims of a range; whoever counted on a leader that is none any more hears it.
    fn change_claims(&mut self, now: Instant, range: RangeIdx, change: impl FnOnce(&mut SmallVec<[Claim; 2]>)) {
        let Some(reigns) = &mut self.reigns else { return };
        let before = reigns.leader(range);
        let Some(claims) = reigns.claims.get_mut(range.0 as usize) else { return };
        let earlier = claims.clone();
        change(claims);
        let (gone, come) = (without(&earlier, claims), without(claims, &earlier));
        reigns.newest.hear(range, &come);
        let after = reigns.leader(range);
        reigns.unled = reigns.unled + usize::from(before.is_some() && after.is_none())
            - usize::from(before.is_none() && after.is_some());
        if before.is_some() != after.is_some() {
            reigns.tell_unled(range, after.is_none());
        }
        reigns.seen += u64::from(gone.iter().chain(&come).any(|claim| claim.node == NodeIdx::HERE));
        let overtaken = before.filter(|before| after != Some(*before));
        // What is for inboxes here is handed to them only while they are led here: of what was sent before they were nothing is on its way.
        let come = come.into_iter().filter(|claim| claim.node != NodeIdx::HERE);
        let lost: BTreeSet<_> = gone.into_iter().chain(come).chain(overtaken).map(|claim| claim.node).collect();
        for node in lost {
            self.complete(Completion::LeaderLost { node });
        }
        if before == after {
            return;
        }
        if let Some(reigns) = &mut self.reigns {
            match after {
                Some(_) => reigns.orphaned.remove(&range),
                None => reigns.orphaned.insert(range, Orphaned::Since(now)),
            };
        }
        if let Some(claim) = after {
            self.ask_again_of(now, range, claim);
        }
        self.move_inboxes(range, after.is_some());
    }

    fn ask_again_of(&mut self, now: Instant, range: RangeIdx, claim: Claim) {
        let Some(reigns) = &self.reigns else { return };
        let open = reigns.asked.iter().filter(|((_, of), _)| *of == range);
        for request in open.map(|(_, request)| request.clone()).collect::<Vec<_>>() {
            self.send_to_leader(now, range, claim, request);
        }
    }

    /// Asks for topics that were put off, if they need not be any more. False: there are none.
    pub(super) fn go_on_matching(&mut self) -> bool {
        let has_topics = self.reigns.as_ref().is_some_and(|reigns| !reigns.topics.is_empty());
        if !has_topics || !self.are_receivers_known() {
            return false;
        }
        let topics = self.reigns.as_mut().map(|reigns| std::mem::take(&mut reigns.topics));
        for (req, tenant, topic) in topics.into_iter().flatten() {
            self.ask_partition(req, tenant, &topic);
        }
        true
    }

    /// This node leads a range of this shard, and all who live have its routes.
    pub(super) fn proclaim(&mut self, range: RangeIdx, term: u64) {
        for shard in self.all_shards() {
            self.send(shard, Message::Reign(Reign::Leads { range, term }));
        }
    }

    /// It does not lead it any more. These are its routes.
    pub(super) fn abdicate(&mut self, now: Instant, range: RangeIdx, term: u64, routes: Vec<(Announced, Receiver)>) {
        let Some(reigns) = &mut self.reigns else { return };
        let unconfirmed = usize::from(self.shards);
        reigns.ending.insert(range, (term, unconfirmed));
        let not_before = now + LINK_LEASE;
        reigns.withdrawals.push(Withdrawal { range, term, not_before, unconfirmed, routes });
        for shard in self.all_shards() {
            self.send(shard, Message::Reign(Reign::Ends { range, term }));
        }
    }

    pub(super) fn handle_reign(&mut self, now: Instant, from: ShardId, message: Reign) {
        match message {
            Reign::Leads { range, term } => {
                if from == self.shard {
                    self.expect_owners(now, range);
                }
                self.take_claim(now, range, NodeIdx::HERE, term);
                self.tell_peers(&Remote::Leads { range: range.0, term });
                self.await_followers();
            }
            Reign::Ends { range, term } => {
                self.end_claim(now, range, NodeIdx::HERE, term);
                self.tell_peers(&Remote::Ends { range: range.0, term });
                self.send(from, Message::Reign(Reign::Ended { range, term }));
                if let Some(reigns) = &mut self.reigns {
                    let peers = reigns.peers.clone();
                    reigns.unconfirmed.insert((range, term), peers);
                }
                self.confirm_ends();
            }
            Reign::Ended { range, term } => self.handle_ended(range, term),
            Reign::Confirmed { range, term } => {
                let withdrawals = self.reigns.iter_mut().flat_map(|reigns| &mut reigns.withdrawals);
                for withdrawal in withdrawals.filter(|of| (of.range, of.term) == (range, term)) {
                    withdrawal.unconfirmed -= 1;
                }
            }
            Reign::Forget { node } => {
                let is_back = self.cluster.as_ref().is_some_and(|cluster| cluster.is_up(node));
                // Another shard may hear late of a death that was none. What the node has claimed since it is back would not be said again. Should
                // this shard be the late one, it is to hear next that nobody has heard the node, and sends it everything.
                if from == self.shard || !is_back {
                    self.drop_claims(now, node);
                }
                self.send(from, Message::Reign(Reign::Forgotten { node }));
            }
            Reign::Forgotten { node } => self.handle_forgotten(node),
            Reign::OwnersLost { node, shard } => {
                let is_lost = |conn: ConnRef| conn.node == node && shard.is_none_or(|shard| conn.shard == shard);
                self.lose_owners(now, &is_lost, shard.is_some());
            }
            Reign::Frame { from, bytes } => self.receive_frame(now, from, &bytes),
        }
    }

    fn tell_peers(&mut self, message: &Remote) {
        let peers: Vec<_> = self.reigns.iter().flat_map(|reigns| &reigns.peers).copied().collect();
        for (node, shard) in peers {
            self.send_remote(Via::From(node, shard), None, message);
        }
    }

    /// Every peer has been told of one more claim.
    fn await_followers(&mut self) {
        let Some(reigns) = &mut self.reigns else { return };
        for &peer in &reigns.peers {
            *reigns.unfollowed.entry(peer).or_default() += 1;
        }
    }

    /// A peer has heard of one of them.
    fn hear_follower(&mut self, peer: Peer) {
        let Some(reigns) = &mut self.reigns else { return };
        if let Entry::Occupied(mut unheard) = reigns.unfollowed.entry(peer) {
            *unheard.get_mut() -= 1;
            if *unheard.get() == 0 {
                unheard.remove();
            }
        }
    }

    /// Whether this shard counts on this node for the range.
    pub(super) fn is_led_here(&self, range: RangeIdx) -> bool {
        self.reigns.as_ref().is_none_or(|reigns| reigns.leader(range).is_some_and(|claim| claim.node == NodeIdx::HERE))
    }

    fn handle_ended(&mut self, range: RangeIdx, term: u64) {
        let Some(reigns) = &mut self.reigns else { return };
        let Some((of, unanswered)) = reigns.ending.get_mut(&range) else { return };
        if *of != term {
            return;
        }
        *unanswered -= 1;
        if *unanswered > 0 {
            return;
        }
        reigns.ending.remove(&range);
        let withdrawal = reigns.withdrawals.iter().find(|of| (of.range, of.term) == (range, term));
        let routes = withdrawal.map(|withdrawal| withdrawal.routes.clone()).unwrap_or_default();
        for ((tenant, route), receiver) in routes {
            self.remove_from_partitions(tenant, &route, receiver);
        }
        self.begin_reign_that_waits(range);
    }

    /// Whether a reign of the range has not ended for all shards here.
    pub(super) fn is_ending(&self, range: RangeIdx) -> bool {
        self.reigns.as_ref().is_some_and(|reigns| reigns.ending.contains_key(&range))
    }

    /// Tells the ranges' shards of ends that all peers know of.
    fn confirm_ends(&mut self) {
        let Some(reigns) = &mut self.reigns else { return };
        let done: Vec<_> =
            reigns.unconfirmed.iter().filter(|(_, peers)| peers.is_empty()).map(|(&end, _)| end).collect();
        for (range, term) in done {
            if let Some(reigns) = &mut self.reigns {
                reigns.unconfirmed.remove(&(range, term));
            }
            self.send(self.home(range), Message::Reign(Reign::Confirmed { range, term }));
        }
    }

    /// Takes back what the other nodes were told of reigns that have long ended.
    pub(super) fn withdraw_reigns(&mut self, now: Instant) {
        let Some(reigns) = &mut self.reigns else { return };
        let is_due = |of: &mut Withdrawal| of.unconfirmed == 0 && of.not_before <= now;
        let due: Vec<_> = reigns.withdrawals.extract_if(.., is_due).collect();
        for ((tenant, route), receiver) in due.into_iter().flat_map(|withdrawal| withdrawal.routes) {
            // Led here again, the range may have the subscription still.
            if !self.has_subscription(receiver) {
                self.withdraw(tenant, &route, receiver);
            }
        }
    }

    /// A node has died: its routes may go when nobody here counts on its claims. False if they may go at once.
    pub(super) fn forget_claims(&mut self, node: NodeIdx) -> bool {
        let sessions = self.sessions_of(node);
        let Some(reigns) = &mut self.reigns else { return false };
        let forgetting = reigns.forgetting.entry(node).or_default();
        // It may have died before, and been back, since the last of them has answered.
        forgetting.unanswered += usize::from(self.shards);
        forgetting.sessions = sessions;
        reigns.peers.retain(|(of, _)| *of != node);
        reigns.unfollowed.retain(|(of, _), _| *of != node);
        for peers in reigns.unconfirmed.values_mut() {
            peers.retain(|(of, _)| *of != node);
        }
        self.confirm_ends();
        // Every shard hears by itself who has died, so each sees to its own ranges.
        self.send(self.shard, Message::Reign(Reign::OwnersLost { node, shard: None }));
        for shard in self.all_shards() {
            self.send(shard, Message::Reign(Reign::Forget { node }));
        }
        true
    }

    fn handle_forgotten(&mut self, node: NodeIdx) {
        let Some(reigns) = &mut self.reigns else { return };
        let Some(forgetting) = reigns.forgetting.get_mut(&node) else { return };
        forgetting.unanswered -= 1;
        if forgetting.unanswered == 0
            && let Some(forgetting) = reigns.forgetting.remove(&node)
        {
            self.remove_node(node, Some(&forgetting.sessions));
        }
    }

    /// Nothing that a node has claimed to this shard is worth anything any more.
    pub(super) fn drop_claims(&mut self, now: Instant, node: NodeIdx) {
        let ranges = self.reigns.as_ref().map_or(0, |reigns| reigns.claims.len());
        for range in (0..).map(RangeIdx).take(ranges) {
            self.change_claims(now, range, |claims| claims.retain(|claim| claim.node != node));
        }
    }

    /// A peer's link arrives: it is told what this node leads.
    pub(super) fn greet_peer(&mut self, node: NodeIdx, shard: ShardId) {
        if self.reigns.as_ref().is_some_and(|reigns| reigns.peers.contains(&(node, shard))) {
            // Nobody has said yet that its earlier link is over.
            self.lose_peer(node, shard);
        }
        let Some(reigns) = &mut self.reigns else { return };
        reigns.peers.insert((node, shard));
        let led = reigns.led_here();
        if !led.is_empty() {
            reigns.unfollowed.insert((node, shard), led.len());
        }
        for (range, term) in led {
            self.send_remote(Via::From(node, shard), None, &Remote::Leads { range: range.0, term });
        }
    }

    /// A peer's link has ended: it will notice, and so will whoever counts on its connections.
    pub(super) fn lose_peer(&mut self, node: NodeIdx, shard: ShardId) {
        let Some(reigns) = &mut self.reigns else { return };
        reigns.peers.remove(&(node, shard));
        reigns.unfollowed.remove(&(node, shard));
        for peers in reigns.unconfirmed.values_mut() {
            peers.remove(&(node, shard));
        }
        self.confirm_ends();
        for to in self.all_shards() {
            self.send(to, Message::Reign(Reign::OwnersLost { node, shard: Some(shard) }));
        }
    }

    /// What another node says of who leads. False if nobody says such a thing.
    pub(super) fn hear_reign(&mut self, now: Instant, via: Via, message: &Remote) -> bool {
        match (via, message) {
            (Via::To(node), &Remote::Leads { range, term }) => {
                self.take_claim(now, RangeIdx(range), node, term);
                self.send_remote(via, None, &Remote::Follows);
            }
            (Via::To(node), &Remote::Ends { range, term }) => {
                self.end_claim(now, RangeIdx(range), node, term);
                self.send_remote(via, None, &Remote::Ended { range, term });
            }
            (Via::From(node, shard), Remote::Follows) => self.hear_follower((node, shard)),
            (Via::From(node, shard), &Remote::Ended { range, term }) => {
                let reigns = self.reigns.as_mut();
                let peers = reigns.and_then(|reigns| reigns.unconfirmed.get_mut(&(RangeIdx(range), term)));
                if let Some(peers) = peers {
                    peers.remove(&(node, shard));
                }
                self.confirm_ends();
            }
            _ => return false,
        }
        true
    }
}
