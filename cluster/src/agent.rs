//! The underlay's thread: drives the machine, tells the rest of the process, keeps what the next process needs.

use crate::entrance::Standpoint;
use crate::hello::Standing;
use crate::identity::Identity;
use crate::links::Links;
use crate::orders::{Asker, Done, Orders};
use crate::seeds::look_up;
use crate::view::{UnderlayMetrics, View, ViewCell};
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::ranges::{RangeAnswer, RangeOrder};
use bifro_core::rng::Prng;
use bifro_core::roles::{Duties, Roles};
use bifro_core::time::{Instant, earlier};
use bifro_net::clock::Clock;
use bifro_swim::{
    Announcement, Answer, Config, Effect, Event, Health, Incarnation, Load, Member, Message, Order, Peer, Status, Swim,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Requests of operators that wait.
const REQUESTS: usize = 16;
/// Messages fed to the machine before it looks at the clock.
const BATCH: usize = 1_024;
/// How often the node looks how it is.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
/// How long this node waits at most until others know that it leaves.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what was said at last is given to arrive.
const LINGER: Duration = Duration::from_millis(200);
/// How long nodes may take to say what they bear: whoever asks wants to see the others in any case.
const TELLING: Duration = Duration::from_millis(700);

/// Answers about ranges that wait to be passed on.
const RANGE_ANSWERS: usize = 256;

/// Hears what this node's shards say of their ranges, once; on any thread.
pub type RangesDone = Box<dyn FnOnce(RangeAnswer) + Send>;

/// What a node that joins brings along, besides its [`crate::Place`].
pub struct Settings {
    /// Of which cluster it is; none if it keeps nothing.
    pub cluster: Option<ClusterId>,
    /// Starts and peers.
    pub identity: Identity,
    /// Timings.
    pub swim: Config,
    /// Shards of this node.
    pub shards: u16,
    /// What the node does for the others.
    pub roles: Roles,
    /// What it bears. Called on the underlay's thread.
    pub load: Box<dyn Fn() -> Load + Send>,
    /// Has its shards do what an operator wants of their ranges. Called on the underlay's thread, and must not wait.
    pub ranges: Box<dyn Fn(RangeOrder, RangesDone) + Send>,
    /// Has the process end in order, as an operator wants it to. Called on the underlay's thread.
    pub end: Box<dyn Fn() + Send>,
    /// How the node is. Called once a second, on the underlay's thread.
    pub health: Box<dyn Fn() -> Health + Send>,
    /// Called when there may be news of the members, on the underlay's thread.
    pub watcher: Box<dyn FnMut(&View) + Send>,
    /// Called when this process must not go on, with the reason.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What the rest of the process has to do with a running underlay. Copies share everything.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What is known of the cluster.
    pub view: ViewCell,
    /// Figures.
    pub metrics: Arc<UnderlayMetrics>,
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// A member that is dead or has left does not come back, an operator says; never, if it is expelled ([`Swim::remove`]). False if there is no
    /// such member.
    pub async fn remove(&self, id: NodeId, is_expelled: bool) -> bool {
        let (done, outcome) = oneshot::channel();
        // If the underlay has ended there is nobody left to remove.
        self.requests.send(Request::Remove { id, is_expelled, done }).await.is_ok() && outcome.await.unwrap_or_default()
    }

    /// Has a node, this one or another, do what an operator wants. Returns what it says then; nothing if it does not answer.
    pub async fn order(&self, node: NodeId, order: Order) -> Option<Answer> {
        let (done, obeyed) = oneshot::channel();
        self.requests.send(Request::Order { node, order, done }).await.ok()?;
        obeyed.await.ok()
    }

    /// What each node bears that answers soon.
    pub async fn loads(&self) -> BTreeMap<NodeId, Load> {
        let answers = self.ask_all(Order::Tell).await;
        answers.into_iter().filter_map(|(node, answer)| Some((node, answer?.load))).collect()
    }

    /// What each node that lives answers soon, if it does.
    pub async fn ask_all(&self, order: Order) -> BTreeMap<NodeId, Option<Answer>> {
        let view = self.view.get();
        let present = view.members.iter().filter(|member| member.status.is_present());
        let nodes = present.map(|member| member.announcement.id).chain([view.me.id]);
        let asked = nodes.map(|node| {
            let handle = self.clone();
            (node, tokio::spawn(async move { timeout(TELLING, handle.order(node, order)).await.ok().flatten() }))
        });
        let mut answers = BTreeMap::new();
        for (node, answer) in asked.collect::<Vec<_>>() {
            answers.insert(node, answer.await.ok().flatten());
        }
        answers
    }
}

/// What the rest of the process wants of the underlay.
#[derive(Debug)]
enum Request {
    /// See [`Handle::remove`].
    Remove { id: NodeId, is_expelled: bool, done: oneshot::Sender<bool> },
    /// See [`Handle::order`].
    Order { node: NodeId, order: Order, done: Done },
}

/// The running underlay. Dropping it ends it without a word; see [`Self::leave`].
pub struct Underlay {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) leave: Option<oneshot::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Underlay {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is known of the cluster, and what can be asked of it.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells the others that this node goes, and ends.
    pub fn leave(mut self) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Underlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Underlay").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What comes to the thread.
pub(crate) struct Inputs {
    messages: mpsc::Receiver<Message>,
    asked: mpsc::Receiver<Request>,
    kept: mpsc::Receiver<(bool, Asker)>,
    answered: mpsc::Receiver<(RangeAnswer, Asker)>,
    told_to_leave: oneshot::Receiver<()>,
}

/// What the thread owns.
pub(crate) struct Agent {
    swim: Swim,
    clock: Clock,
    links: Links,
    view: ViewCell,
    metrics: Arc<UnderlayMetrics>,
    keeper: Keeper,
    orders: Orders,
    load: Box<dyn Fn() -> Load + Send>,
    ranges: Box<dyn Fn(RangeOrder, RangesDone) + Send>,
    range_answers: mpsc::Sender<(RangeAnswer, Asker)>,
    end: Box<dyn Fn() + Send>,
    is_ending: bool,
    health: Box<dyn Fn() -> Health + Send>,
    watcher: Box<dyn FnMut(&View) + Send>,
    fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Agent {
    /// A node that joins from here over these links, the word with which it leaves, and what is to be known of it.
    pub(crate) fn new(
        place: &Standpoint,
        links: Links,
        messages: mpsc::Receiver<Message>,
        settings: Settings,
    ) -> (Self, Inputs, Handle, oneshot::Sender<()>) {
        let me = Announcement {
            id: place.id,
            incarnation: Incarnation { start: settings.identity.starts(), word: 0 },
            nonce: place.nonce,
            address: place.advertised,
            shards: settings.shards,
            health: Health::Well,
            duties: Duties { roles: settings.roles, is_draining: settings.identity.is_draining() },
        };
        links.enter(settings.cluster.map_or(Standing::Any, Standing::Of));
        let (requests, asked) = mpsc::channel(REQUESTS);
        let (keeps, kept) = mpsc::channel(REQUESTS);
        let (range_answers, answered) = mpsc::channel(RANGE_ANSWERS);
        let view = ViewCell::new(View { cluster: settings.cluster, me: me.clone(), members: Vec::new() });
        let handle = Handle { view: view.clone(), metrics: place.metrics.clone(), requests };
        let (leave, told_to_leave) = oneshot::channel();
        let clock = Clock::start();
        let peers = settings.identity.peers().to_vec();
        let mut swim = Swim::new(settings.swim, me, peers, Prng::new(place.nonce), clock.now());
        swim.recall_expelled(settings.identity.expelled(), clock.now());
        let agent = Self {
            swim,
            clock,
            links,
            view,
            metrics: place.metrics.clone(),
            keeper: Keeper::new(settings.identity, keeps),
            orders: Orders::new(place.nonce),
            load: settings.load,
            ranges: settings.ranges,
            range_answers,
            end: settings.end,
            is_ending: false,
            health: settings.health,
            watcher: settings.watcher,
            fatal: settings.fatal,
        };
        (agent, Inputs { messages, asked, kept, answered, told_to_leave }, handle, leave)
    }

    pub(crate) async fn run(&mut self, seeds: Vec<String>, inputs: Inputs) {
        let Inputs { mut messages, mut asked, mut kept, mut answered, mut told_to_leave } = inputs;
        let (resolved, mut addresses) = mpsc::channel(1);
        tokio::spawn(look_up(seeds, resolved));
        let mut look = interval(HEALTH_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving: Option<Instant> = None;
        loop {
            let due = earlier(self.swim.next_timeout(), self.orders.next_timeout());
            let due = due.map(|due| due.since(self.clock.now()));
            let mut looked = false;
            tokio::select! {
                biased;
                told = &mut told_to_leave, if leaving.is_none() => {
                    if told.is_err() {
                        return;
                    }
                    self.swim.leave();
                    leaving = Some(self.clock.now() + FAREWELL);
                }
                Some(request) = asked.recv() => self.handle_request(request),
                Some((is_draining, asker)) = kept.recv() => {
                    self.swim.set_draining(is_draining);
                    self.answer(asker, RangeAnswer::default());
                }
                Some((ranges, asker)) = answered.recv() => self.answer(asker, ranges),
                Some(message) = messages.recv() => self.swim.handle_message(message, self.clock.now()),
                Some(seeds) = addresses.recv() => {
                    self.swim.set_seeds(seeds.into_iter().flatten().collect(), self.clock.now());
                }
                _ = look.tick() => {
                    looked = true;
                    self.swim.set_health((self.health)());
                }
                () = sleep(due.unwrap_or(HEALTH_INTERVAL)), if due.is_some() => {}
            }
            // What has come is heard before anybody is judged by not having been heard.
            for _ in 0..BATCH {
                let Ok(message) = messages.try_recv() else { break };
                self.swim.handle_message(message, self.clock.now());
            }
            let now = self.clock.now();
            if self.swim.next_timeout().is_some_and(|due| due <= now) {
                self.swim.handle_timeout(now);
            }
            for (seq, node, order) in self.orders.due(now) {
                if !self.swim.order(node, seq, order) {
                    self.orders.drop_order(seq);
                }
            }
            self.carry_out(looked);
            if leaving.is_some_and(|deadline| self.swim.has_told() || now >= deadline) {
                sleep(LINGER).await;
                self.links.close().await;
                return;
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Remove { id, is_expelled, done } => {
                // Whoever asked may have gone.
                let _ = done.send(self.swim.remove(id, is_expelled, self.clock.now()));
            }
            Request::Order { node, order, done } if node == self.swim.me().id => self.obey(order, Asker::Here(done)),
            Request::Order { node, order, done } => self.orders.add(node, order, done, self.clock.now()),
        }
    }

    /// Does what an operator wants of this node.
    fn obey(&mut self, order: Order, asker: Asker) {
        let is_draining = self.swim.me().duties.is_draining;
        match order {
            Order::Drain(wanted) if wanted != is_draining => return self.keeper.keep_draining(wanted, asker),
            Order::Leave if is_draining && !std::mem::replace(&mut self.is_ending, true) => (self.end)(),
            Order::Ranges(order) => {
                let answers = self.range_answers.clone();
                // Too many at a time are asked for again.
                return (self.ranges)(order, Box::new(move |answer| drop(answers.try_send((answer, asker)))));
            }
            Order::Drain(_) | Order::Leave | Order::Tell => {}
        }
        self.answer(asker, RangeAnswer::default());
    }

    fn answer(&mut self, asker: Asker, ranges: RangeAnswer) {
        let load = Load { is_draining: self.swim.me().duties.is_draining, ..(self.load)() };
        match asker {
            // It may have gone.
            Asker::Here(done) => drop(done.send(Answer { load, ranges })),
            Asker::There { node, address, seq } => self.swim.obeyed(node, address, seq, Answer { load, ranges }),
        }
    }

    /// `looked`: a second is over, so that what changes without an event is seen as well.
    fn carry_out(&mut self, looked: bool) {
        let mut happened = false;
        while let Some(effect) = self.swim.poll_effect() {
            match effect {
                Effect::Send { address, message } => self.links.send(address, &message),
                Effect::Obey { from, address, seq, order } => {
                    self.obey(order, Asker::There { node: from, address, seq });
                }
                Effect::Obeyed { from, seq, answer } => self.orders.obeyed(from, seq, answer),
                Effect::Event(event) => {
                    happened = true;
                    self.report(event);
                }
            }
        }
        self.metrics.addresses_lost.set(self.swim.lost() as u64);
        self.metrics.local_health.set(self.swim.local_health().into());
        let is_new = happened || self.view.get().me != *self.swim.me();
        self.keeper.changed |= is_new;
        if is_new || looked {
            self.show();
        }
        self.keeper.keep(self.swim.me().incarnation.start, || (self.swim.peers(), self.swim.expelled()));
    }

    /// Lets the rest of the process see the members.
    fn show(&mut self) {
        let members: Vec<Member> = self.swim.members().cloned().collect();
        let count = |status| members.iter().filter(|member| member.status == status).count() as u64;
        self.metrics.members_present.set(self.swim.present() as u64);
        self.metrics.members_suspect.set(count(Status::Suspect));
        self.metrics.members_dead.set(count(Status::Dead));
        let view = View { cluster: self.links.cluster(), me: self.swim.me().clone(), members };
        (self.watcher)(&view);
        self.view.set(view);
    }

    /// Says what happened, and does what has to be done about it.
    fn report(&self, event: Event) {
        let address = |id: NodeId| self.swim.member(id).map(|member| member.announcement.address);
        let place = |id: NodeId| address(id).map_or_else(String::new, |address| address.to_string());
        match event {
            Event::Joined(id) => tracing::info!(node = %id, address = place(id), "a node has joined"),
            Event::Changed(id) => {
                tracing::info!(node = %id, address = place(id), "a node has something new to say of itself")
            }
            Event::Suspected(id) => {
                self.metrics.suspicions.add(1);
                tracing::info!(node = %id, address = place(id), "a node does not answer");
                // A process that was replaced does not answer on its predecessor's connection.
                if let Some(address) = address(id) {
                    self.links.renew(address);
                }
            }
            Event::Refuted(id) => tracing::info!(node = %id, "the node lives"),
            Event::Died(id) => {
                self.metrics.deaths.add(1);
                tracing::warn!(node = %id, address = place(id), "a node is dead; it will be asked whether it is back");
            }
            Event::Evicted(id) => tracing::warn!(node = %id, "a node is dead for so long that others take its place"),
            Event::Left(id) => tracing::info!(node = %id, "a node has left"),
            Event::Removed(id) => tracing::warn!(node = %id, "an operator has removed a node; others take its place"),
            Event::AddressTaken(old, new) => {
                tracing::warn!(%old, %new, address = place(new), "two nodes say that they are at one address: the later one is believed");
            }
            Event::Expelled => (self.fatal)(
                "an operator has declared this node lost for good, and others have gone on without what it has: it cannot come back with its old \
                 data. Start it as a new node, with an empty data directory",
            ),
            Event::Superseded => (self.fatal)(
                "another process with this node's identity was started after this one: is its data directory a copy of this one's? \
                 Each node needs its own",
            ),
        }
    }
}

/// Writes peers down, off the thread: a disk that stalls must not make the node seem dead.
struct Keeper {
    identity: Arc<Mutex<Identity>>,
    writing: Arc<AtomicBool>,
    changed: bool,
    keeps: mpsc::Sender<(bool, Asker)>,
}

impl Keeper {
    fn new(identity: Identity, keeps: mpsc::Sender<(bool, Asker)>) -> Self {
        Self { identity: Arc::new(Mutex::new(identity)), writing: Arc::default(), changed: false, keeps }
    }

    /// Writes down whether the node is to go. Only then it says so; but it does even if its disk fails, which may be why it is to go.
    fn keep_draining(&self, is_draining: bool, asker: Asker) {
        let (identity, keeps) = (self.identity.clone(), self.keeps.clone());
        tokio::task::spawn_blocking(move || {
            let saved = identity.lock().unwrap_or_else(PoisonError::into_inner).set_draining(is_draining);
            if let Err(error) = saved {
                tracing::error!(%error, is_draining, "a restart of this node will forget whether it is to go");
            }
            // Without the underlay there is nobody to tell.
            let _ = keeps.blocking_send((is_draining, asker));
        });
    }

    fn keep(&mut self, starts: u32, known: impl FnOnce() -> (Vec<Peer>, Vec<Peer>)) {
        if !self.changed || self.writing.swap(true, Ordering::Acquire) {
            return;
        }
        self.changed = false;
        let ((peers, expelled), identity, writing) = (known(), self.identity.clone(), self.writing.clone());
        tokio::task::spawn_blocking(move || {
            let saved = identity.lock().unwrap_or_else(PoisonError::into_inner).save(starts, peers, expelled);
            if let Err(error) = saved {
                tracing::error!(%error, "the peers of this node are not remembered");
            }
            writing.store(false, Ordering::Release);
        });
    }
}
