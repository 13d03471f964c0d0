//! What a publisher was told is safe reaches every session that had subscribed before it was published, and each session sees the messages of one publisher
//! to one topic for the first time in the order in which they were published, but for those that a node has given up at their deadline: its publisher may
//! publish such a message again, behind others. The rules are those of bifro-tests' history checker for QoS 1.
//!
//! A message of QoS 2 has one place in a session for ever: it may come again under that, and under no other. Order is promised among messages of one QoS
//! [MQTT5-4.6.0-6].
//!
//! A connection without a session gets a message of QoS 2 once, and what is published after its SUBACK while everything is well.

use super::super::talk::{ConnId, FILTERS, Mark, TOPICS, is_for};
use super::groups::Groups;
use crate::queue::Moment;
use bifro_core::ids::InboxSeq;
use std::collections::{BTreeMap, BTreeSet};

/// A message on its way.
#[derive(Debug)]
struct Sent {
    at: Moment,
    /// Sessions that had subscribed before it was published.
    promised: BTreeSet<usize>,
    /// Those of them that are still to have it.
    owed: BTreeSet<usize>,
    is_acknowledged: bool,
    /// A node has, whether or not its publisher was still there to hear it.
    is_given_up: bool,
}

/// What is known of one session.
#[derive(Debug, Default)]
struct Session {
    /// Filters for which it has SUBACK, and for which it has not asked to be unsubscribed, and since when.
    filters: BTreeMap<usize, Moment>,
    /// By publisher, topic, and whether they are of QoS 2.
    seen: BTreeMap<(u32, u32, bool), BTreeSet<u32>>,
    /// Of messages of QoS 2.
    places: BTreeMap<Mark, InboxSeq>,
}

impl Session {
    fn wants(&self, topic: u32, at: Moment) -> bool {
        self.filters.iter().any(|(filter, since)| *since <= at && is_for(topic, *filter))
    }
}

/// What is known of a connection without a session.
#[derive(Debug)]
struct Listening {
    /// Its filter, and since when it has SUBACK. A message may come ahead of that.
    since: Option<(usize, Moment)>,
    heard: BTreeSet<Mark>,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Delivery {
    listening: BTreeMap<ConnId, Listening>,
    sent: BTreeMap<Mark, Sent>,
    sessions: Vec<Session>,
    pub(crate) groups: Groups,
}

impl Delivery {
    pub(crate) fn new(sessions: usize) -> Self {
        let sessions = (0..sessions).map(|_| Session::default()).collect();
        Self { listening: BTreeMap::new(), sent: BTreeMap::new(), sessions, groups: Groups::default() }
    }

    /// Its SUBACK has arrived.
    pub(crate) fn subscribed(&mut self, session: usize, filter: usize, since: Moment) {
        self.sessions[session].filters.entry(filter).or_insert(since);
    }

    /// It asks to be unsubscribed: from now on nothing is promised.
    pub(crate) fn unsubscribes(&mut self, session: usize, filter: usize) {
        self.sessions[session].filters.remove(&filter);
        let session_now = &self.sessions[session];
        for (mark, sent) in &mut self.sent {
            if !session_now.wants(mark.topic, sent.at) {
                sent.owed.remove(&session);
                // It may have missed a first try, and get a later one.
                sent.promised.remove(&session);
            }
        }
    }

    /// A message is published for the first time.
    pub(crate) fn published(&mut self, mark: Mark, at: Moment) {
        self.groups.published(mark, at);
        let promised: BTreeSet<usize> =
            (0..self.sessions.len()).filter(|session| self.sessions[*session].wants(mark.topic, at)).collect();
        let owed = promised.clone();
        self.sent.insert(mark, Sent { at, promised, owed, is_acknowledged: false, is_given_up: false });
    }

    /// When it was.
    pub(crate) fn published_at(&self, mark: Mark) -> Option<Moment> {
        self.sent.get(&mark).map(|sent| sent.at)
    }

    pub(crate) fn acknowledged(&mut self, mark: Mark) {
        if let Some(sent) = self.sent.get_mut(&mark) {
            sent.is_acknowledged = true;
        }
    }

    /// A node has not had it taken over in time.
    pub(crate) fn given_up(&mut self, mark: Mark) {
        if let Some(sent) = self.sent.get_mut(&mark) {
            sent.is_given_up = true;
        }
    }

    /// Nobody needs to have it.
    pub(crate) fn refused(&mut self, mark: Mark) {
        self.groups.refused(mark);
        if let Some(sent) = self.sent.get_mut(&mark) {
            sent.owed.clear();
            sent.promised.clear();
        }
    }

    /// A session has it.
    pub(crate) fn received(&mut self, session: usize, mark: Mark, seq: Option<InboxSeq>) {
        let Some(sent) = self.sent.get_mut(&mark) else { panic!("{mark:?} was never published") };
        sent.owed.remove(&session);
        // One that was published before may come now because its publisher repeats it: late, and out of order.
        let is_promised = sent.promised.contains(&session) && !sent.is_given_up;
        if mark.once {
            let seq = seq.expect("what is of QoS 2 has a place");
            let first = *self.sessions[session].places.entry(mark).or_insert(seq);
            assert_eq!(first, seq, "subscriber {session} gets {mark:?} a second time");
        }
        let seen = self.sessions[session].seen.entry((mark.publisher, mark.topic, mark.once)).or_default();
        let last = seen.last().copied();
        let is_overtaken = seen.insert(mark.seq) && is_promised && last.is_some_and(|last| last > mark.seq);
        assert!(!is_overtaken, "subscriber {session} sees {mark:?} for the first time after {last:?}");
    }

    fn listening(&mut self, conn: ConnId) -> &mut Listening {
        self.listening.entry(conn).or_insert_with(|| Listening { since: None, heard: BTreeSet::new() })
    }

    /// A connection without a session has SUBACK.
    pub(crate) fn listens(&mut self, conn: ConnId, filter: usize, since: Moment) {
        self.listening(conn).since = Some((filter, since));
    }

    /// It is over.
    pub(crate) fn stops_listening(&mut self, conn: ConnId) {
        self.listening.remove(&conn);
    }

    /// It has a message.
    pub(crate) fn heard(&mut self, conn: ConnId, mark: Mark) {
        assert!(self.sent.contains_key(&mark), "{mark:?} was never published");
        let is_new = self.listening(conn).heard.insert(mark);
        assert!(is_new || !mark.once, "{conn:?} without a session gets {mark:?} a second time");
    }

    /// What was published after `well`, acknowledged, and not heard by somebody without a session who listened.
    pub(crate) fn unheard(&self, well: Moment) -> Option<(ConnId, Mark)> {
        self.listening.iter().find_map(|(&conn, listening)| {
            let (filter, since) = listening.since?;
            let is_missed = |(mark, sent): &(&Mark, &Sent)| {
                sent.is_acknowledged
                    && sent.at > since.max(well)
                    && is_for(mark.topic, filter)
                    && !listening.heard.contains(mark)
            };
            self.sent.iter().find(is_missed).map(|(&mark, _)| (conn, mark))
        })
    }

    /// Whether nobody misses anything.
    pub(crate) fn is_all_received(&self) -> bool {
        self.sent.values().all(|sent| !sent.is_acknowledged || sent.owed.is_empty()) && self.missed_by_group().is_none()
    }

    fn missed_by_group(&self) -> Option<Mark> {
        self.groups.missed(|mark| self.sent.get(&mark).is_some_and(|sent| sent.is_acknowledged))
    }

    /// After everything has had its time: who misses what.
    pub(crate) fn check_all_received(&self) {
        let missed = self.missed_by_group();
        assert!(missed.is_none(), "{missed:?} was acknowledged, and never came to a member of the group of sessions");
        let missed = |(_, sent): &(&Mark, &Sent)| sent.is_acknowledged && !sent.owed.is_empty();
        let Some((mark, sent)) = self.sent.iter().find(missed) else { return };
        let filters = |session: &usize| {
            let filters = self.sessions[*session].filters.keys().map(|filter| FILTERS[*filter]);
            (*session, filters.collect::<Vec<_>>())
        };
        let owed: Vec<_> = sent.owed.iter().map(filters).collect();
        let (topic, at) = (TOPICS[mark.topic as usize], sent.at);
        panic!("{mark:?} to {topic}, published at {at} and acknowledged, never came to subscribers {owed:?}");
    }
}
