//! Telling another node everything that this shard has for it, when its link has come up: a few at a time, so that turns stay short.

use super::cluster::{Announced, order};
use super::wire::{Offer, Remote, Route};
use super::{RangeServices, repeat_order};
use bifro_core::ids::{NodeIdx, Slot, TenantIdx};
use bifro_core::ports::Via;
use bifro_range::retain::Version;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Routes, client ids and topics told at a time. Few in tests, so that whatever may happen in between does.
const STEP: usize = if cfg!(test) { 2 } else { 1_000 };

/// What a node has not been told yet, as it was when its link came up; what has changed since is told at once, and here left out.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) node: NodeIdx,
    routes: std::vec::IntoIter<Announced>,
    is_told: bool,
    /// Connections whose client ids belong there.
    names: std::vec::IntoIter<Slot>,
    /// Topics with retained messages.
    topics: std::vec::IntoIter<(TenantIdx, Arc<str>, Version)>,
}

impl RangeServices {
    /// The link to a node is up: it knows nothing of this shard, or what it knows may be wrong.
    pub(super) fn begin_telling(&mut self, node: NodeIdx) {
        self.stop_telling(node);
        self.ask_again(node);
        let has_copies = self.keeps_retained() && self.is_keeper(node);
        let Some(cluster) = &mut self.cluster else { return };
        let kept = self.retained.iter().filter(|_| has_copies);
        let versions = kept.flat_map(|range| range.machine.versions());
        let mut topics: Vec<_> = versions.map(|(tenant, topic, version)| (tenant, Arc::from(topic), version)).collect();
        let mut routes: Vec<_> = cluster.announced.keys().cloned().collect();
        let mut names: Vec<_> = cluster.named_at(node).collect();
        repeat_order(&mut topics, |(tenant, topic, _): &(TenantIdx, Arc<str>, Version)| (tenant.0, topic.clone()));
        repeat_order(&mut routes, order);
        repeat_order(&mut names, |slot| *slot);
        let (routes, names, topics) = (routes.into_iter(), names.into_iter(), topics.into_iter());
        cluster.tellings.push_back(Telling { node, routes, is_told: false, names, topics });
        self.go_on_telling();
    }

    pub(super) fn stop_telling(&mut self, node: NodeIdx) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tellings.retain(|telling| telling.node != node);
        }
    }

    /// Tells the next few things.
    pub(super) fn go_on_telling(&mut self) {
        let Some(mut telling) = self.cluster.as_mut().and_then(|cluster| cluster.tellings.pop_front()) else { return };
        let via = Via::To(telling.node);
        for (tenant, route) in telling.routes.by_ref().take(STEP).collect::<Vec<_>>() {
            for nth in 0..self.members_of(&(tenant, route.clone())) {
                let message = Remote::Add { token: None, route: Route::from(&*route), nth };
                self.send_remote(via, Some(tenant), &message);
            }
        }
        if telling.routes.len() > 0 {
            return self.tell_more(telling);
        }
        if !std::mem::replace(&mut telling.is_told, true) {
            self.send_remote(via, None, &Remote::Told);
        }
        for slot in telling.names.by_ref().take(STEP).collect::<Vec<_>>() {
            self.name_at(slot, telling.node);
        }
        let mut offers: BTreeMap<TenantIdx, Vec<Offer>> = BTreeMap::new();
        for (tenant, topic, version) in telling.topics.by_ref().take(STEP) {
            offers.entry(tenant).or_default().push(Offer::new(&topic, version));
        }
        for (tenant, offers) in offers {
            self.send_remote(via, Some(tenant), &Remote::Offer { offers });
        }
        if telling.names.len() + telling.topics.len() > 0 {
            self.tell_more(telling);
        }
    }

    /// The rest is for later; other nodes have their turn first.
    fn tell_more(&mut self, telling: Telling) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tellings.push_back(telling);
        }
    }
}
