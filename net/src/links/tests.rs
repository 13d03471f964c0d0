//! Two endpoints in one thread, over loopback, driven as a shard's turn drives them.

mod certificates;
mod endings;
mod messages;
mod parked;
mod raw;
mod strangers;

use super::*;
use bifro_core::ids::{NodeId, ShardId};
use std::time::{Duration, Instant};

/// After this a test has failed; never waited out by one that succeeds.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(node: u64, secret: &str) -> LinksConfig {
    let me = Hello { cluster: None, node: NodeId(node), starts: 1, nonce: node * 1000, shard: ShardId(1), shards: 2 };
    let bind = ([127, 0, 0, 1], 0).into();
    let (secret, clock, limits) = (Secret::new(secret), Clock::start(), LinkLimits::default());
    LinksConfig { bind, me, secret, certificates: None, clock, limits }
}

/// One endpoint and everything that has happened to it.
struct End {
    links: Links,
    clock: Clock,
    /// Virtual time and how far each turn advances it, where a test is about time.
    paced: Option<(bifro_core::time::Instant, Duration)>,
    me: Hello,
    events: Vec<LinkEvent>,
}

impl End {
    fn new(config: LinksConfig) -> Self {
        let (clock, me) = (config.clock, config.me);
        Self { links: Links::bind(config).expect("bind"), clock, paced: None, me, events: Vec::new() }
    }

    /// From now on each turn takes so long, however long it takes.
    fn pace(&mut self, turn: Duration) {
        self.paced = Some((self.now(), turn));
    }

    fn now(&self) -> bifro_core::time::Instant {
        self.paced.map_or_else(|| self.clock.now(), |(now, _)| now)
    }

    fn turn(&mut self) {
        self.paced = self.paced.map(|(now, turn)| (now + turn, turn));
        self.links.read(self.now(), &mut self.events);
        self.links.transmit(self.now());
    }

    fn dial(&mut self, address: SocketAddr) -> LinkId {
        self.links.dial(self.now(), address)
    }

    fn close(&mut self, link: LinkId, reason: &str) {
        self.links.close(self.now(), link, reason);
    }

    fn ups(&self) -> Vec<(LinkId, Hello, bool)> {
        let up = |event: &LinkEvent| match event {
            LinkEvent::Up { link, peer, dialled } => Some((*link, *peer, *dialled)),
            _ => None,
        };
        self.events.iter().filter_map(up).collect()
    }

    fn downs(&self) -> Vec<(LinkId, bool, String)> {
        let down = |event: &LinkEvent| match event {
            LinkEvent::Down { link, was_up, reason } => Some((*link, *was_up, reason.clone())),
            _ => None,
        };
        self.events.iter().filter_map(down).collect()
    }

    fn received(&self, wanted: Lane) -> Vec<Bytes> {
        let run = |event: &LinkEvent| match event {
            LinkEvent::Messages { lane, run, .. } if *lane == wanted => Some(run.clone()),
            _ => None,
        };
        self.events.iter().filter_map(run).flat_map(messages_of).collect()
    }
}

fn messages_of(mut run: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || next_message(&mut run))
}

/// Two endpoints.
struct Pair {
    one: End,
    two: End,
}

impl Pair {
    fn new(one: LinksConfig, two: LinksConfig) -> Self {
        Self { one: End::new(one), two: End::new(two) }
    }

    /// Endpoints with a link between them that is up, and its name at either end.
    fn linked(one: LinksConfig, two: LinksConfig) -> (Self, LinkId, LinkId) {
        let mut pair = Self::new(one, two);
        let at_one = pair.one.dial(pair.two.links.local_addr());
        pair.until("up", |pair| pair.one.ups().len() == 1 && pair.two.ups().len() == 1);
        let at_two = pair.two.ups()[0].0;
        assert_eq!(pair.one.ups(), [(at_one, pair.two.me, true)]);
        assert_eq!(pair.two.ups(), [(at_two, pair.one.me, false)]);
        (pair, at_one, at_two)
    }

    /// Takes turns until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let (one, two) = (&self.one, &self.two);
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}; {:?} {:?}", one.links, two.links);
            self.one.turn();
            self.two.turn();
        }
    }
}

#[test]
fn both_ends_come_up_and_know_each_other() {
    let (pair, ..) = Pair::linked(config(1, "secret"), config(2, "secret"));
    assert!(pair.one.downs().is_empty() && pair.two.downs().is_empty());
    assert_eq!(pair.one.links.counters().handshakes_failed, 0);
}

#[test]
fn an_empty_secret_is_a_secret_too() {
    Pair::linked(config(1, ""), config(2, ""));
}

#[test]
fn an_endpoint_on_all_addresses_calls_and_is_called_over_both_families() {
    let mut everywhere = config(1, "secret");
    everywhere.bind = "[::]:0".parse().expect("an address");
    let (mut pair, ..) = Pair::linked(everywhere, config(2, "secret"));
    pair.two.dial(([127, 0, 0, 1], pair.one.links.local_addr().port()).into());
    pair.until("up", |pair| pair.one.ups().len() == 2 && pair.two.ups().len() == 2);
}

#[test]
fn two_links_to_one_endpoint_are_two() {
    let (mut pair, first, _) = Pair::linked(config(1, "secret"), config(2, "secret"));
    let second = pair.one.dial(pair.two.links.local_addr());
    pair.until("up", |pair| pair.one.ups().len() == 2 && pair.two.ups().len() == 2);
    assert_ne!(first, second);
    pair.one.links.send(second, Lane::Control, b"on the second").expect("up");
    pair.until("heard", |pair| !pair.two.received(Lane::Control).is_empty());
    let on = pair.two.ups()[1].0;
    let run = Bytes::from_static(b"\x0d\0\0\0on the second");
    let expected = LinkEvent::Messages { link: on, lane: Lane::Control, run };
    assert!(pair.two.events.contains(&expected));
}

#[test]
fn a_quiet_link_waits_for_its_timer_alone() {
    let (mut pair, ..) = Pair::linked(config(1, "secret"), config(2, "secret"));
    pair.until("settled", |pair| {
        let waits = |end: &End| {
            let due = end.links.next_timeout().expect("a keep-alive is due some time");
            !end.links.has_more() && due.since(end.clock.now()) > Duration::from_millis(100)
        };
        waits(&pair.one) && waits(&pair.two)
    });
}
