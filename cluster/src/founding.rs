//! Drives [`bifro_genesis::Founding`]: asks seeds over the links, writes the ledger, tells an operator whom the node waits for.

use crate::entrance::Standpoint;
use crate::error::FoundingError;
use crate::links::{Asked, Links};
use crate::seeds::look_up;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::rng::Prng;
use bifro_genesis::{ClusterGenesis, Config, Draft, Effect, Ledger, Question, Reply, Seat, Waiting};
use bifro_net::clock::Clock;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval_at, sleep};

/// How soon an operator is told whom the node waits for, and how often after that.
const FIRST_WORD: Duration = Duration::from_secs(2);
const NEXT_WORD: Duration = Duration::from_secs(5);
/// Replies that wait for the machine.
const REPLIES: usize = 256;
/// For how long nothing is to be done if the machine wants nothing: only that there is a bound.
const LONG: Duration = Duration::from_secs(60);

/// Puts a ledger on the disk and returns when it is there.
pub type Keep = Box<dyn FnMut(&Ledger) -> Result<(), String> + Send>;

/// What a node brings along to the genesis of its cluster.
pub struct Founding {
    /// What its disk holds.
    pub ledger: Ledger,
    /// What it would have the cluster be.
    pub draft: Draft,
    /// Puts a ledger on the disk and returns when it is there.
    pub keep: Keep,
    /// It has met nobody yet: if others are of another cluster than it, this is the one that does not go on.
    pub is_newcomer: bool,
}

/// One of the seeds.
struct Place {
    name: String,
    addresses: Vec<SocketAddr>,
    /// A question that can be asked again at any time is on its way to it.
    is_asked: bool,
    /// Why it was not heard last time.
    problem: Option<String>,
}

impl Place {
    fn why_missing(&self) -> String {
        let name = &self.name;
        match (&self.addresses[..], &self.problem) {
            ([], _) => format!("{name} (no address)"),
            (_, Some(problem)) => format!("{name} ({problem})"),
            (_, None) => name.clone(),
        }
    }

    fn why_without_vote(&self) -> String {
        let name = &self.name;
        match self.addresses[..] {
            [_] => format!("{name} (has no vote, for it keeps nothing)"),
            [..] => format!("{name} (has no vote, for it stands for several addresses: name each by itself)"),
        }
    }
}

type Told = Result<ClusterGenesis, FoundingError>;

/// See the module's page.
pub(crate) struct Founder {
    machine: bifro_genesis::Founding,
    clock: Clock,
    me: NodeId,
    /// Where this node is reached, and where it listens.
    own: [SocketAddr; 2],
    places: Vec<Place>,
    links: Links,
    keep: Keep,
    /// See [`Founding::is_newcomer`].
    is_newcomer: bool,
    /// Whom to tell when the cluster is known; nobody any more.
    tell: Option<oneshot::Sender<Told>>,
    askers: HashMap<u64, oneshot::Sender<Reply>>,
    asked: u64,
    /// Another cluster that was told of.
    stranger: Option<ClusterId>,
    replied: mpsc::Sender<(usize, Result<Reply, String>)>,
    replies: mpsc::Receiver<(usize, Result<Reply, String>)>,
}

impl Founder {
    pub(crate) fn new(at: &Standpoint, links: Links, founding: Founding, tell: oneshot::Sender<Told>) -> Self {
        let mut names: Vec<String> = Vec::new();
        for seed in &at.seeds {
            if !names.contains(seed) {
                names.push(seed.clone());
            }
        }
        // A node that is told of nobody is the first.
        if names.is_empty() {
            names.push(at.advertised.to_string());
        }
        let clock = Clock::start();
        let machine = bifro_genesis::Founding::new(
            Config::default(),
            at.id,
            founding.ledger,
            names.len(),
            founding.draft,
            Prng::new(at.nonce).derive(at.id.0),
            clock.now(),
        );
        let place = |name| Place { name, addresses: Vec::new(), is_asked: false, problem: None };
        let (replied, replies) = mpsc::channel(REPLIES);
        Self {
            machine,
            clock,
            me: at.id,
            own: [at.advertised, at.bound],
            places: names.into_iter().map(place).collect(),
            links,
            keep: founding.keep,
            is_newcomer: founding.is_newcomer,
            tell: Some(tell),
            askers: HashMap::new(),
            asked: 0,
            stranger: None,
            replied,
            replies,
        }
    }

    /// Until the thread ends: when this node knows its cluster, others ask.
    pub(crate) async fn run(mut self, mut questions: mpsc::Receiver<Asked>) {
        if let Err(error) = self.found(&mut questions).await {
            return self.tell(Err(error));
        }
        while let Some(asked) = questions.recv().await {
            self.hear(asked);
            if let Err(error) = self.carry_out() {
                tracing::error!(%error, "questions about the cluster's genesis are answered no more");
                return;
            }
        }
    }

    /// Until the cluster is known.
    async fn found(&mut self, questions: &mut mpsc::Receiver<Asked>) -> Result<(), FoundingError> {
        let (resolved, mut addresses) = mpsc::channel(1);
        tokio::spawn(look_up(self.places.iter().map(|place| place.name.clone()).collect(), resolved));
        let mut word = interval_at(TokioInstant::now() + FIRST_WORD, NEXT_WORD);
        word.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.tell.is_some() {
            let due = self.machine.next_timeout().map_or(LONG, |due| due.since(self.clock.now()));
            tokio::select! {
                biased;
                Some(asked) = questions.recv() => self.hear(asked),
                Some((seat, reply)) = self.replies.recv() => self.handle_reply(seat, reply),
                Some(found) = addresses.recv() => self.find(found),
                _ = word.tick() => self.say_whom_it_waits_for(),
                () = sleep(due) => self.machine.handle_timeout(self.clock.now()),
            }
            self.carry_out()?;
        }
        Ok(())
    }

    fn hear(&mut self, Asked { question, answer }: Asked) {
        self.asked += 1;
        self.askers.insert(self.asked, answer);
        self.machine.handle_question(self.asked, question, self.clock.now());
    }

    fn handle_reply(&mut self, seat: usize, reply: Result<Reply, String>) {
        let place = &mut self.places[seat];
        place.is_asked = false;
        match reply {
            Ok(reply) => {
                place.problem = None;
                self.machine.handle_reply(seat, reply, self.clock.now());
            }
            Err(problem) => place.problem = Some(problem),
        }
    }

    /// The seeds' names have been looked up.
    fn find(&mut self, found: Vec<Vec<SocketAddr>>) {
        let now = self.clock.now();
        for (seat, mut addresses) in found.into_iter().enumerate() {
            // What this node's socket cannot reach is another way to the same node, as a rule.
            if addresses.iter().any(|address| address.is_ipv4() == self.own[1].is_ipv4()) {
                addresses.retain(|address| address.is_ipv4() == self.own[1].is_ipv4());
            }
            addresses.sort_unstable();
            addresses.dedup();
            let to = match addresses[..] {
                [] => Seat::Unknown,
                [address] if self.own.contains(&address) => Seat::Mine,
                [_] => Seat::Elsewhere,
                [..] => Seat::Shared,
            };
            self.places[seat].addresses = addresses;
            self.machine.set_seat(seat, to, now);
        }
        self.machine.handle_timeout(now);
    }

    /// In order: what comes after a ledger may leave only when that is on the disk.
    fn carry_out(&mut self) -> Result<(), FoundingError> {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Keep(ledger) => (self.keep)(&ledger).map_err(FoundingError::Keep)?,
                Effect::Ask { seat, question } => self.ask(seat, question),
                Effect::Reply { asker, reply } => {
                    if let Some(asker) = self.askers.remove(&asker) {
                        // It may have given up.
                        let _ = asker.send(reply);
                    }
                }
                Effect::Settled(genesis) => {
                    let founders: Vec<_> = genesis.founders.iter().map(ToString::to_string).collect();
                    let founders = founders.join(" ");
                    tracing::info!(cluster = %genesis.cluster, founders, ranges = genesis.ranges, "the cluster is known");
                    self.tell(Ok(genesis));
                }
                Effect::Conflict { seat, node, theirs } => self.refuse(seat, node, &theirs)?,
            }
        }
        Ok(())
    }

    fn tell(&mut self, told: Told) {
        if let Some(tell) = self.tell.take() {
            // If nobody waits any more the process ends.
            let _ = tell.send(told);
        }
    }

    fn ask(&mut self, seat: usize, question: Question) {
        let place = &mut self.places[seat];
        // One that does not answer is called again and again by each call already.
        if question == Question::Ask && std::mem::replace(&mut place.is_asked, true) {
            return;
        }
        for &address in &place.addresses {
            let (links, question, replied) = (self.links.clone(), question.clone(), self.replied.clone());
            tokio::spawn(async move {
                let reply = links.ask(address, &question).await;
                // Nobody waits for it once the cluster is known.
                let _ = replied.send((seat, reply)).await;
            });
        }
    }

    /// Another node's cluster is not this one's. A node that has met nobody yet does not begin to; others go on without that one.
    fn refuse(&mut self, seat: usize, node: NodeId, theirs: &ClusterGenesis) -> Result<(), FoundingError> {
        let Some(ours) = self.machine.decided() else { return Ok(()) };
        if self.is_newcomer && ours.is_of_one(self.me) {
            let place = self.places[seat].name.clone();
            let (me, ours, theirs) = (self.me, ours.cluster, theirs.cluster);
            return Err(FoundingError::Conflict { me, ours, other: node, place, theirs });
        }
        if self.stranger.replace(theirs.cluster) != Some(theirs.cluster) {
            tracing::warn!(
                %node, ours = %ours.cluster, theirs = %theirs.cluster,
                "a node at the address of a seed is of another cluster, and is refused: if it is to be part of this one, start it with an empty \
                 data_dir; if not, take its address out of cluster.seeds"
            );
        }
        Ok(())
    }

    fn say_whom_it_waits_for(&self) {
        if self.machine.decided().is_some() {
            return;
        }
        let Waiting { heard, seeds, is_seed, missing, without_vote } = self.machine.waiting(self.clock.now());
        let missing = missing.iter().map(|&seat| self.places[seat].why_missing());
        let without_vote = without_vote.iter().map(|&seat| self.places[seat].why_without_vote());
        let missing = missing.chain(without_vote).collect::<Vec<_>>().join(", ");
        let needed = seeds / 2 + 1;
        if is_seed {
            tracing::warn!(
                "waiting for a majority of the seeds to create the cluster: heard {heard} of {seeds}, {needed} are needed; not heard: {missing}; \
                 start them, or see that UDP reaches them"
            );
        } else {
            tracing::warn!(
                "waiting for the seeds to create the cluster, which this node, being none of them, cannot: heard {heard} of {seeds}; \
                 not heard: {missing}; start them, or see that UDP reaches them"
            );
        }
    }
}
