//! The machine: its state, its inputs, and what it does by the clock.

use crate::config::Config;
use crate::effect::{Effect, Event};
use crate::gossip::Gossip;
use crate::heal::Healing;
use crate::limits;
use crate::member::{Announcement, Answer, Health, Incarnation, Member, Order, Status};
use crate::message::{Body, Message, Report, Rumour};
use crate::probe::Prober;
use crate::suspicion::Suspicion;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bifro_core::ids::NodeId;
use bifro_core::rng::Prng;
use bifro_core::time::{Instant, earlier};
use core::net::SocketAddr;
use core::time::Duration;

/// How exact eviction and forgetting are.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Somebody known from an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub id: NodeId,
    /// Where it was.
    pub address: SocketAddr,
}

/// One node's view of the cluster. See the crate's page.
#[derive(Debug)]
pub struct Swim {
    pub(crate) config: Config,
    pub(crate) me: Announcement,
    /// Everybody else.
    pub(crate) members: BTreeMap<NodeId, Member>,
    /// Present members by address.
    pub(crate) addresses: BTreeMap<SocketAddr, NodeId>,
    pub(crate) suspicions: BTreeMap<NodeId, Suspicion>,
    pub(crate) gossip: Gossip,
    pub(crate) prober: Prober,
    /// Lifeguard's local health multiplier: how much slower this node judges, because it seems to be slow itself.
    pub(crate) local_health: u32,
    pub(crate) rng: Prng,
    /// Whom to ask has to be worked out anew.
    pub(crate) healing_is_stale: bool,
    /// This node spoke up against news of its end since that was last looked at.
    pub(crate) spoke_up: bool,
    healing: Healing,
    seeds: Vec<SocketAddr>,
    remembered: Vec<Peer>,
    next_gossip: Instant,
    next_sync: Instant,
    next_housekeeping: Instant,
    effects: VecDeque<Effect>,
    pub(crate) phase: Phase,
}

/// How far this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Taking,
    Leaving,
    /// It must end.
    Superseded,
}

impl Swim {
    /// A node that knows nobody yet. `me` has the word 0 of its start; `remembered` are the [`Self::peers`] of an earlier process.
    pub fn new(config: Config, me: Announcement, remembered: Vec<Peer>, rng: Prng, now: Instant) -> Self {
        let next_sync = now + config.sync_interval;
        Self {
            prober: Prober::new(now),
            config,
            me,
            members: BTreeMap::new(),
            addresses: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            gossip: Gossip::default(),
            local_health: 0,
            rng,
            healing_is_stale: true,
            spoke_up: false,
            healing: Healing::default(),
            seeds: Vec::new(),
            remembered,
            next_gossip: now,
            next_sync,
            next_housekeeping: now + HOUSEKEEPING,
            effects: VecDeque::new(),
            phase: Phase::Taking,
        }
    }

    /// What this node says of itself.
    pub const fn me(&self) -> &Announcement {
        &self.me
    }

    /// Everybody else who is known, also those who are dead or gone.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One of them.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// How many take part, this node included.
    pub fn present(&self) -> usize {
        1 + self.addresses.len()
    }

    /// Lifeguard's local health multiplier: 0 is healthy, [`limits::LOCAL_HEALTH`] the worst.
    pub const fn local_health(&self) -> u32 {
        self.local_health
    }

    /// How many addresses are asked again and again, because nobody answers there.
    pub fn lost(&self) -> usize {
        self.healing.len()
    }

    /// Whom to remember for the next start: whoever did not leave.
    pub fn peers(&self) -> Vec<Peer> {
        let members = self.members.values().filter(|member| member.status <= Status::Dead);
        let known = members.map(|member| Peer { id: member.announcement.id, address: member.announcement.address });
        let unseen = self.remembered.iter().filter(|peer| !self.members.contains_key(&peer.id)).copied();
        known.chain(unseen).collect()
    }

    /// Asks these addresses, unless members are there, for ever. Replaces those of the last call.
    pub fn set_seeds(&mut self, mut seeds: Vec<SocketAddr>, now: Instant) {
        seeds.truncate(limits::SEEDS);
        self.seeds = seeds;
        self.healing_is_stale = true;
        self.refresh_healing(now);
    }

    /// Says how this node is, if that has changed.
    pub fn set_health(&mut self, health: Health) {
        if self.me.health != health {
            self.me.health = health;
            self.speak_up();
        }
    }

    /// Says whether this node is to go, if that is news.
    pub fn set_draining(&mut self, is_draining: bool) {
        if self.me.duties.is_draining != is_draining {
            self.me.duties.is_draining = is_draining;
            self.speak_up();
        }
    }

    /// Tells a member what an operator wants of it. It may be lost, and may be told again with the same number. False if there is no
    /// such member now.
    pub fn order(&mut self, id: NodeId, seq: u64, order: Order) -> bool {
        let member = self.members.get(&id).filter(|member| member.status.is_present());
        let Some(address) = member.map(|member| member.announcement.address) else { return false };
        self.send(Some(id), address, Body::Order { seq, order });
        true
    }

    /// What [`Effect::Obey`] asked for is done.
    pub fn obeyed(&mut self, to: NodeId, address: SocketAddr, seq: u64, answer: Answer) {
        self.send(Some(to), address, Body::Obeyed { seq, answer });
    }

    /// Says that this node goes. It is to be driven on until [`Self::has_told`].
    pub fn leave(&mut self) {
        if self.phase == Phase::Taking {
            self.phase = Phase::Leaving;
            self.me.incarnation = self.me.incarnation.next();
            self.gossip.add(Rumour::Left { id: self.me.id, incarnation: self.me.incarnation });
        }
    }

    /// Whether everything this node has to say was said as often as it is to be.
    pub fn has_told(&self) -> bool {
        self.gossip.is_empty() || self.addresses.is_empty()
    }

    /// A member that is dead or has left does not come back, an operator says: it is asked no more, and others take its place at once. Old
    /// news do not bring it back; it itself could come, as a newcomer, unless it is expelled, which also a node can be that is not known. False if there is no such member.
    pub fn remove(&mut self, id: NodeId, is_expelled: bool, now: Instant) -> bool {
        match self.members.get(&id) {
            _ if id == self.me.id => return false,
            Some(member) if member.status.is_present() => return false,
            Some(member) => {
                let incarnation = if is_expelled { Incarnation::LAST } else { member.announcement.incarnation };
                self.hear(Rumour::Removed { id, incarnation }, now);
            }
            None if is_expelled => self.hear(Rumour::Removed { id, incarnation: Incarnation::LAST }, now),
            None => return false,
        }
        self.refresh_healing(now);
        true
    }

    /// Who was expelled, to be kept for the next process.
    pub fn expelled(&self) -> Vec<Peer> {
        let expelled = self.members.values().filter(|member| member.is_expelled());
        expelled.map(|member| Peer { id: member.announcement.id, address: member.announcement.address }).collect()
    }

    /// Somebody was expelled whom this process has never met, which is no reason to let it in.
    pub(crate) fn note_expelled(&mut self, id: NodeId, now: Instant) {
        if self.members.len() < limits::MEMBERS {
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let remembered = self.remembered.iter().find(|peer| peer.id == id);
            let peer = Peer { id, address: remembered.map_or(nowhere, |peer| peer.address) };
            self.recall_expelled(&[peer], now);
            self.gossip.add(Rumour::Removed { id, incarnation: Incarnation::LAST });
            self.tell(Event::Removed(id));
        }
    }

    /// Takes over whom an earlier process knew to be expelled.
    pub fn recall_expelled(&mut self, expelled: &[Peer], now: Instant) {
        self.members.extend(expelled.iter().map(|peer| (peer.id, Member::expelled(*peer, now))));
        self.healing_is_stale = true;
    }

    /// The next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.phase == Phase::Superseded {
            return None;
        }
        let mut next = earlier(self.prober.next_timeout(), self.healing.next_due());
        let suspicion = self.suspicions.values().map(Suspicion::deadline).min();
        next = earlier(next, suspicion);
        next = earlier(next, Some(self.next_sync.min(self.next_housekeeping)));
        if self.gossip.is_empty() { next } else { earlier(next, Some(self.next_gossip)) }
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(due) = self.next_timeout() else { return };
        let late = now.since(due);
        if late > self.config.probe_interval {
            self.resume_after(late, now);
        }
        self.end_suspicions(now);
        self.probe(now);
        if self.next_gossip <= now && !self.gossip.is_empty() {
            self.spread();
            self.next_gossip = now + self.config.gossip_interval;
        }
        if self.next_sync <= now {
            self.next_sync = now + self.config.sync_interval / 2 + self.jitter(self.config.sync_interval);
            self.compare_with_somebody();
        }
        if self.next_housekeeping <= now {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now);
        }
        self.refresh_healing(now);
        for address in self.healing.due(now, self.config.heal_interval_max, &mut self.rng) {
            let reports = self.reports();
            self.send(None, address, Body::Table { reports, answer: true });
        }
    }

    /// This process did not run: whoever seems to be silent may have spoken. Nobody is judged by that time.
    fn resume_after(&mut self, late: Duration, now: Instant) {
        self.suspicions.values_mut().for_each(|suspicion| suspicion.extend(late));
        self.prober.start_anew(now);
        self.feel_worse(1);
    }

    fn end_suspicions(&mut self, now: Instant) {
        let over: Vec<NodeId> =
            self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline() <= now).map(|(&id, _)| id).collect();
        for id in over {
            let Some(member) = self.members.get(&id) else { continue };
            self.hear(Rumour::Dead { id, incarnation: member.announcement.incarnation }, now);
        }
    }

    fn spread(&mut self) {
        let targets = self.pick(self.config.gossip_fanout, &[]);
        for (id, address) in targets {
            self.send(Some(id), address, Body::Gossip);
        }
    }

    fn compare_with_somebody(&mut self) {
        for (id, address) in self.pick(1, &[]) {
            self.send(Some(id), address, Body::Digest { digest: self.digest() });
        }
    }

    fn keep_house(&mut self, now: Instant) {
        let (grace, memory) = (self.config.eviction_grace, self.config.departure_memory);
        let mut evicted = Vec::new();
        for member in self.members.values_mut() {
            if member.status == Status::Dead && !member.evicted && now.since(member.since) >= grace {
                member.evicted = true;
                evicted.push(member.announcement.id);
            }
        }
        self.members.retain(|_, member| member.status != Status::Left || now.since(member.since) < memory);
        self.bound(Status::Dead, limits::LOST);
        self.bound(Status::Removed, limits::REMOVED);
        evicted.into_iter().for_each(|id| self.tell(Event::Evicted(id)));
    }

    /// Forgets who has been thus for longest, of more than so many; nobody who was expelled.
    fn bound(&mut self, status: Status, most: usize) {
        let thus = self.members.values().filter(|member| member.status == status && !member.is_expelled());
        let mut thus: Vec<(Instant, NodeId)> = thus.map(|member| (member.since, member.announcement.id)).collect();
        if thus.len() > most {
            thus.sort_unstable();
            for (_, id) in &thus[..thus.len() - most] {
                self.members.remove(id);
            }
            self.healing_is_stale = true;
        }
    }

    /// Works out whom to ask again and again: seeds, remembered peers and dead members, where no present member is.
    pub(crate) fn refresh_healing(&mut self, now: Instant) {
        if !core::mem::take(&mut self.healing_is_stale) {
            return;
        }
        let dead = self.members.values().filter(|member| member.status == Status::Dead);
        self.remembered.retain(|peer| !self.members.contains_key(&peer.id));
        let wanted: BTreeSet<SocketAddr> = (self.seeds.iter().copied())
            .chain(self.remembered.iter().map(|peer| peer.address))
            .chain(dead.map(|member| member.announcement.address))
            .filter(|address| *address != self.me.address && !self.addresses.contains_key(address))
            .collect();
        self.healing.set(&wanted, now, self.config.heal_interval);
    }

    /// A message has come.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        if self.phase == Phase::Superseded {
            return;
        }
        let Message { from, address, to, body, rumours } = message;
        for rumour in rumours {
            self.hear(rumour, now);
        }
        let is_own = from == self.me.id;
        if is_own || to.is_some_and(|to| to != self.me.id) {
            // For somebody who was here, or from somebody who has this node's identity: it is told who is here.
            if !(is_own && address == self.me.address) && self.phase != Phase::Superseded {
                let word = Rumour::Alive(self.me.clone());
                self.send_with(Some(from), address, Body::Gossip, Some(word));
            }
            return;
        }
        match body {
            Body::Ping { seq } => self.send(Some(from), address, Body::Ack { seq }),
            Body::PingRequest { seq, target, address: at } => self.relay((from, address), seq, (target, at), now),
            Body::Ack { seq } => self.handle_ack(seq, now),
            Body::Nack { seq } => self.prober.handle_nack(seq),
            Body::Gossip => {}
            Body::Order { seq, order } => self.effects.push_back(Effect::Obey { from, address, seq, order }),
            Body::Obeyed { seq, answer } => self.effects.push_back(Effect::Obeyed { from, seq, answer }),
            Body::Digest { digest } => {
                if digest != self.digest() {
                    let reports = self.reports();
                    self.send(Some(from), address, Body::Table { reports, answer: true });
                }
            }
            Body::Table { reports, answer } => self.handle_table((from, address), reports, answer, now),
        }
        self.refresh_healing(now);
    }

    fn handle_table(
        &mut self,
        (from, address): (NodeId, SocketAddr),
        reports: Vec<Report>,
        answer: bool,
        now: Instant,
    ) {
        self.spoke_up = false;
        for report in reports {
            self.merge(report, from, now);
        }
        // Whoever said that this node is dead hears its answer at once: it may have no other way to.
        if answer || self.spoke_up {
            let reports = self.reports();
            self.send(Some(from), address, Body::Table { reports, answer: false });
        }
    }

    fn reports(&self) -> Vec<Report> {
        let me = Report { announcement: self.me.clone(), status: self.own_status() };
        let others = self
            .members
            .values()
            .map(|member| Report { announcement: member.announcement.clone(), status: member.status });
        core::iter::once(me).chain(others).collect()
    }

    fn own_status(&self) -> Status {
        if self.phase == Phase::Leaving { Status::Left } else { Status::Alive }
    }

    /// Equal for equal sets of present members with equal words, whatever is thought of them.
    fn digest(&self) -> u64 {
        let me = core::iter::once(&self.me).filter(|_| self.phase == Phase::Taking);
        let present = self.members.values().filter(|member| member.status.is_present()).map(|m| &m.announcement);
        me.chain(present).fold(0, |digest, one| {
            let word = u64::from(one.incarnation.start) << 32 | u64::from(one.incarnation.word);
            digest ^ Prng::new(one.id.0).derive(word).next_u64()
        })
    }

    /// Sends with the rumours that fit; first what the receiver needs to know about itself.
    pub(crate) fn send(&mut self, to: Option<NodeId>, address: SocketAddr, body: Body) {
        let first = to.and_then(|to| self.verdict(to, address));
        self.send_with(to, address, body, first);
    }

    pub(crate) fn send_with(&mut self, to: Option<NodeId>, address: SocketAddr, body: Body, first: Option<Rumour>) {
        let most = self.config.transmissions(self.present());
        let mut message = Message { from: self.me.id, address: self.me.address, to, body, rumours: Vec::new() };
        if !message.is_bulk() {
            message.rumours = self.gossip.tell(first, most, limits::RUMOURS_PER_MESSAGE);
        }
        self.effects.push_back(Effect::Send { address, message });
    }

    /// What a node has to hear of itself, if it is not thought to be alive (Lifeguard's buddy system), or not to be where it is: another
    /// process has its identity.
    fn verdict(&self, id: NodeId, address: SocketAddr) -> Option<Rumour> {
        let member = self.members.get(&id)?;
        let incarnation = member.announcement.incarnation;
        match member.status {
            Status::Alive if member.announcement.address == address => None,
            Status::Alive => Some(Rumour::Alive(member.announcement.clone())),
            Status::Suspect => Some(Rumour::Suspect { id, incarnation, from: self.me.id }),
            Status::Dead => Some(Rumour::Dead { id, incarnation }),
            Status::Left => Some(Rumour::Left { id, incarnation }),
            Status::Removed => Some(Rumour::Removed { id, incarnation }),
        }
    }

    /// At most `count` present members at random.
    pub(crate) fn pick(&mut self, count: usize, without: &[NodeId]) -> Vec<(NodeId, SocketAddr)> {
        let candidates = self.addresses.iter().filter(|(_, id)| !without.contains(id));
        let mut candidates: Vec<(NodeId, SocketAddr)> = candidates.map(|(&address, &id)| (id, address)).collect();
        let count = count.min(candidates.len());
        for at in 0..count {
            let other = at + self.rng.below((candidates.len() - at) as u64) as usize;
            candidates.swap(at, other);
        }
        candidates.truncate(count);
        candidates
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    pub(crate) fn feel_worse(&mut self, by: u32) {
        self.local_health = (self.local_health + by).min(limits::LOCAL_HEALTH);
    }

    pub(crate) fn feel_better(&mut self) {
        self.local_health = self.local_health.saturating_sub(1);
    }

    /// As if everything had been told.
    #[cfg(test)]
    pub(crate) fn forget_news(&mut self) {
        self.gossip = Gossip::default();
    }

    fn jitter(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.rng.below(u64::try_from(below.as_micros()).unwrap_or(u64::MAX)))
    }
}
