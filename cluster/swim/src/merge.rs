//! How news about a node change what is known of it (SWIM, 4.2).
//!
//! At equal incarnations the worse word wins: alive, suspect, dead, gone, removed. A newer incarnation wins over everything, and only the node
//! itself makes one. A node that was expelled is removed at the last of all incarnations, so that none of its words is newer. News about an incarnation whose announcement has not come are ignored: it is on its way.

use crate::effect::Event;
use crate::limits;
use crate::member::{Announcement, Incarnation, Member, Status};
use crate::message::{Body, Report, Rumour};
use crate::suspicion::Suspicion;
use crate::swim::{Phase, Swim};
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

impl Swim {
    /// Takes news in, and passes them on if they are news.
    pub(crate) fn hear(&mut self, rumour: Rumour, now: Instant) {
        if rumour.subject() == self.me.id {
            self.hear_of_me(&rumour);
            return;
        }
        match rumour {
            Rumour::Alive(announcement) => self.hear_alive(announcement, now),
            Rumour::Suspect { id, incarnation, from } => self.hear_suspect(id, incarnation, from, now),
            Rumour::Dead { id, incarnation } => self.hear_end(id, incarnation, Status::Dead, now),
            Rumour::Left { id, incarnation } => self.hear_end(id, incarnation, Status::Left, now),
            Rumour::Removed { id, incarnation } => self.hear_end(id, incarnation, Status::Removed, now),
        }
    }

    /// Takes in a row of another's table.
    pub(crate) fn merge(&mut self, report: Report, from: NodeId, now: Instant) {
        let Report { announcement, status } = report;
        let (id, incarnation) = (announcement.id, announcement.incarnation);
        let known = self.members.get(&id).map(|member| (member.status, member.announcement.incarnation));
        match (status, known) {
            (Status::Alive | Status::Suspect, Some((Status::Dead, at))) if at == incarnation => self.challenge(id),
            (Status::Alive, _) => self.hear(Rumour::Alive(announcement), now),
            (Status::Suspect, _) => {
                self.hear(Rumour::Alive(announcement), now);
                self.hear(Rumour::Suspect { id, incarnation, from }, now);
            }
            (Status::Dead, Some((known, at))) if known.is_present() && at == incarnation => self.challenge(id),
            (Status::Dead, _) if id == self.me.id => self.hear(Rumour::Dead { id, incarnation }, now),
            (Status::Left, _) => self.hear(Rumour::Left { id, incarnation }, now),
            (Status::Removed, None) if id != self.me.id => self.note_removed(announcement, now),
            (Status::Removed, _) => self.hear(Rumour::Removed { id, incarnation }, now),
            (Status::Dead, _) => {}
        }
    }

    /// Somebody was removed before this node had heard of it: whoever still takes it for a member does not bring it back.
    fn note_removed(&mut self, announcement: Announcement, now: Instant) {
        if self.members.len() < limits::MEMBERS {
            let id = announcement.id;
            self.members.insert(id, Member { announcement, status: Status::Removed, since: now, evicted: false });
            self.healing_is_stale = true;
        }
    }

    /// Two tables differ about who lives. That one is asked itself, by telling it that it is dead: if it lives, it has a newer word.
    fn challenge(&mut self, id: NodeId) {
        let Some(member) = self.members.get(&id) else { return };
        let Announcement { incarnation, address, .. } = member.announcement;
        self.send_with(Some(id), address, Body::Gossip, Some(Rumour::Dead { id, incarnation }));
    }

    fn hear_of_me(&mut self, rumour: &Rumour) {
        match rumour {
            Rumour::Alive(other) if other.nonce == self.me.nonce => {}
            Rumour::Alive(other) => {
                if (other.incarnation.start, other.nonce) > (self.me.incarnation.start, self.me.nonce) {
                    self.phase = Phase::Superseded;
                    self.tell(Event::Superseded);
                } else {
                    self.refute(other.incarnation);
                }
            }
            Rumour::Removed { incarnation: Incarnation::LAST, .. } => {
                // There is no newer word to say.
                if self.phase == Phase::Taking {
                    self.phase = Phase::Superseded;
                    self.tell(Event::Expelled);
                }
            }
            Rumour::Suspect { incarnation, .. }
            | Rumour::Dead { incarnation, .. }
            | Rumour::Left { incarnation, .. }
            | Rumour::Removed { incarnation, .. } => {
                if *incarnation >= self.me.incarnation && self.phase == Phase::Taking {
                    self.refute(*incarnation);
                    self.spoke_up = true;
                    self.feel_worse(1);
                }
            }
        }
    }

    /// Speaks up with a word newer than `heard`. It may be of a later start than this one's: then the data directory was restored from a copy.
    fn refute(&mut self, heard: Incarnation) {
        if self.phase == Phase::Taking {
            self.me.incarnation = self.me.incarnation.max(heard);
            self.speak_up();
        }
    }

    pub(crate) fn speak_up(&mut self) {
        self.me.incarnation = self.me.incarnation.next();
        self.gossip.add(Rumour::Alive(self.me.clone()));
    }

    fn hear_alive(&mut self, heard: Announcement, now: Instant) {
        let (id, address) = (heard.id, heard.address);
        let event = match self.members.get(&id) {
            None if self.members.len() >= limits::MEMBERS => return,
            None => Some(Event::Joined(id)),
            Some(known) if heard.incarnation <= known.announcement.incarnation => return,
            Some(known) if !known.status.is_present() => Some(Event::Joined(id)),
            Some(known) => {
                let before = known.announcement.address;
                if self.addresses.get(&before) == Some(&id) {
                    self.addresses.remove(&before);
                }
                let same = Announcement { incarnation: heard.incarnation, ..known.announcement.clone() };
                let refuted = known.status == Status::Suspect;
                (same != heard).then_some(Event::Changed(id)).or(refuted.then_some(Event::Refuted(id)))
            }
        };
        self.suspicions.remove(&id);
        self.gossip.add(Rumour::Alive(heard.clone()));
        let member = Member { announcement: heard, status: Status::Alive, since: now, evicted: false };
        self.members.insert(id, member);
        self.healing_is_stale = true;
        if let Some(event) = event {
            if matches!(event, Event::Joined(_)) {
                self.prober.add(id, &mut self.rng);
            }
            self.tell(event);
        }
        let taken_from = self.addresses.insert(address, id).filter(|&other| other != id);
        if let Some(other) = taken_from {
            self.tell(Event::AddressTaken(other, id));
            self.suspect(other, self.me.id, now);
        }
    }

    fn hear_suspect(&mut self, id: NodeId, incarnation: Incarnation, from: NodeId, now: Instant) {
        let Some(known) = self.members.get(&id).filter(|known| known.announcement.incarnation == incarnation) else {
            return;
        };
        match known.status {
            Status::Alive => self.suspect(id, from, now),
            Status::Suspect => {
                let suspicion = self.suspicions.get_mut(&id);
                if suspicion.is_some_and(|suspicion| suspicion.add_witness(from)) {
                    self.gossip.add(Rumour::Suspect { id, incarnation, from });
                }
            }
            Status::Dead | Status::Left | Status::Removed => {}
        }
    }

    /// `from` has not heard from a member.
    pub(crate) fn suspect(&mut self, id: NodeId, from: NodeId, now: Instant) {
        let (others, span) = (self.present().saturating_sub(2), self.config.suspicion(self.present()));
        let Some(member) = self.members.get_mut(&id) else { return };
        let incarnation = member.announcement.incarnation;
        match member.status {
            Status::Alive => {
                member.status = Status::Suspect;
                member.since = now;
                let suspicion = Suspicion::new(from, others, self.config.suspicion_factor, span, now);
                self.suspicions.insert(id, suspicion);
                self.gossip.add(Rumour::Suspect { id, incarnation, from });
                self.tell(Event::Suspected(id));
            }
            Status::Suspect => self.hear_suspect(id, incarnation, from, now),
            Status::Dead | Status::Left | Status::Removed => {}
        }
    }

    fn hear_end(&mut self, id: NodeId, incarnation: Incarnation, end: Status, now: Instant) {
        if end == Status::Removed && incarnation == Incarnation::LAST && !self.members.contains_key(&id) {
            return self.note_expelled(id, now);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        if incarnation != member.announcement.incarnation && end == Status::Dead
            || incarnation < member.announcement.incarnation
            || member.status >= end && (incarnation != Incarnation::LAST || member.is_expelled())
        {
            return;
        }
        let was_present = member.status.is_present();
        let address = member.announcement.address;
        // A last word is the newest whatever was missed before it.
        member.announcement.incarnation = incarnation;
        member.status = end;
        member.since = now;
        self.suspicions.remove(&id);
        if was_present && self.addresses.get(&address) == Some(&id) {
            self.addresses.remove(&address);
        }
        self.healing_is_stale = true;
        let (rumour, event) = match end {
            Status::Left => (Rumour::Left { id, incarnation }, Event::Left(id)),
            Status::Removed => (Rumour::Removed { id, incarnation }, Event::Removed(id)),
            _ => (Rumour::Dead { id, incarnation }, Event::Died(id)),
        };
        self.gossip.add(rumour);
        self.tell(event);
    }
}
