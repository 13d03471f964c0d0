//! One tenant's routes in one partition.

use super::RouteFilter;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::{NodeIdx, RangeIdx, ShardId};
use bifro_core::ports::{GroupMatch, GroupName, InboxPlaces, LivePlaces, Matches, PortError, Receiver};
use bifro_mqtt::topic::FilterIndex;

/// Who listens to one filter. Never empty.
#[derive(Debug, Default)]
struct FilterRoutes {
    direct: BTreeSet<Receiver>,
    /// By name; no group is empty, members are sorted.
    groups: Vec<Arc<GroupMatch>>,
}

impl FilterRoutes {
    fn group(&self, name: &GroupName) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| order(&group.group).cmp(&order(name)))
    }
}

fn order(group: &GroupName) -> (&str, bool) {
    (&group.name, group.ordered)
}

/// Routes as a set: adding what is there and removing what is not change nothing.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    index: FilterIndex<FilterRoutes>,
    len: u64,
}

impl RouteTable {
    /// Number of routes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// # Errors
    /// `QuotaExceeded` if the group has `members_max` members already.
    pub(super) fn add(&mut self, route: &RouteFilter, receiver: Receiver, members_max: u32) -> Result<(), PortError> {
        let Some(routes) = self.index.get_mut(&route.filter).first_mut() else {
            let mut routes = FilterRoutes::default();
            let added = add_to(&mut routes, route, receiver, members_max)?;
            self.index.insert(&route.filter, routes);
            self.len += u64::from(added);
            return Ok(());
        };
        let added = add_to(routes, route, receiver, members_max)?;
        self.len += u64::from(added);
        Ok(())
    }

    /// Whether there was such a route.
    pub(super) fn remove(&mut self, route: &RouteFilter, receiver: Receiver) -> bool {
        let Some(routes) = self.index.get_mut(&route.filter).first_mut() else { return false };
        let removed = match &route.group {
            None => routes.direct.remove(&receiver),
            Some(name) => remove_member(routes, name, receiver),
        };
        if routes.direct.is_empty() && routes.groups.is_empty() {
            self.index.remove(&route.filter, |_| true);
        }
        self.len -= u64::from(removed);
        removed
    }

    /// Everybody who listens to `topic`.
    pub(super) fn matches(&self, topic: &str) -> Matches {
        let (mut direct, mut groups) = (Vec::new(), Vec::new());
        self.index.for_each_match(topic, |routes| {
            direct.extend(routes.direct.iter().copied());
            groups.extend(routes.groups.iter().cloned());
        });
        // Runs that are sorted already, one per filter: the stable sort merges them.
        direct.sort();
        direct.dedup();
        let (live, inboxes, nodes) = grouped(&direct);
        Matches { live, inboxes, nodes, groups }
    }

    /// The members of one group.
    pub(super) fn group(&self, route: &RouteFilter) -> Option<Arc<GroupMatch>> {
        let routes = self.index.get(&route.filter).first()?;
        let place = routes.group(route.group.as_ref()?).ok()?;
        Some(routes.groups[place].clone())
    }
}

fn add_to(
    routes: &mut FilterRoutes,
    route: &RouteFilter,
    receiver: Receiver,
    members_max: u32,
) -> Result<bool, PortError> {
    let Some(name) = &route.group else { return Ok(routes.direct.insert(receiver)) };
    let place = routes.group(name);
    let mut members = place.map_or_else(|_| Vec::new(), |place| routes.groups[place].members.clone());
    let Err(vacancy) = members.binary_search(&receiver) else { return Ok(false) };
    if members.len() >= members_max as usize {
        return Err(PortError::QuotaExceeded);
    }
    members.insert(vacancy, receiver);
    let group = Arc::new(GroupMatch { group: name.clone(), filter: route.filter.clone(), members });
    match place {
        Ok(place) => routes.groups[place] = group,
        Err(place) => routes.groups.insert(place, group),
    }
    Ok(true)
}

fn remove_member(routes: &mut FilterRoutes, name: &GroupName, receiver: Receiver) -> bool {
    let Ok(place) = routes.group(name) else { return false };
    let old = &routes.groups[place];
    let Ok(member) = old.members.binary_search(&receiver) else { return false };
    let mut members = old.members.clone();
    members.remove(member);
    if members.is_empty() {
        routes.groups.remove(place);
    } else {
        let filter = old.filter.clone();
        routes.groups[place] = Arc::new(GroupMatch { group: name.clone(), filter, members });
    }
    true
}

type Grouped = (Vec<(ShardId, LivePlaces)>, Vec<(RangeIdx, InboxPlaces)>, Vec<NodeIdx>);

/// Groups sorted receivers: live ones, which come first, by shard, inboxes by range, the others by node.
fn grouped(sorted: &[Receiver]) -> Grouped {
    let home = |receiver: &Receiver| match receiver {
        Receiver::Live { shard, .. } => shard.0,
        Receiver::Inbox { range, .. } => range.0,
        Receiver::Remote { node, .. } => node.0,
    };
    let first_inbox = sorted.partition_point(|receiver| matches!(receiver, Receiver::Live { .. }));
    let first_remote = sorted.partition_point(|receiver| !matches!(receiver, Receiver::Remote { .. }));
    let (live, inboxes) = (&sorted[..first_inbox], &sorted[first_inbox..first_remote]);
    let same_home = |one: &Receiver, other: &Receiver| home(one) == home(other);
    let live = live.chunk_by(same_home).map(|run| {
        let slots = run.iter().filter_map(|receiver| match receiver {
            Receiver::Live { slot, .. } => Some(*slot),
            Receiver::Inbox { .. } | Receiver::Remote { .. } => None,
        });
        (ShardId(home(&run[0])), slots.collect())
    });
    let inboxes = inboxes.chunk_by(same_home).map(|run| {
        let places = run.iter().filter_map(|receiver| match receiver {
            Receiver::Inbox { inbox, subscription, .. } => Some((*inbox, *subscription)),
            Receiver::Live { .. } | Receiver::Remote { .. } => None,
        });
        (RangeIdx(home(&run[0])), places.collect())
    });
    let nodes = sorted[first_remote..].chunk_by(same_home).map(|run| NodeIdx(home(&run[0])));
    (live.collect(), inboxes.collect(), nodes.collect())
}
