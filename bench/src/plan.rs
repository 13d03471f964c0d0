//! Who connects, who subscribes to what, who publishes where: one [`Plan`] per scenario.

use crate::options::{FaninOptions, FanoutOptions, LoadOptions, PairOptions, TreeOptions};
use serde::Deserialize;
use std::ops::Range;

/// Branches of the tree on its first and second level.
const SITES: u32 = 8;
const LINES: u32 = 4;

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Client identifier.
    pub client_id: String,
    /// Its core, modulo the number of cores.
    pub core: usize,
    /// Filters it subscribes to.
    pub filters: Vec<String>,
    /// Publishers whose messages it may get.
    pub expects: Range<u32>,
    /// It sees only a part of each publisher's messages.
    pub is_shared: bool,
    /// Index and topic, if it publishes.
    pub publisher: Option<(u32, String)>,
}

/// A scenario's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Subscribers first.
    pub clients: Vec<ClientPlan>,
    /// For each publisher, how often one message is received.
    pub copies: Vec<u64>,
}

fn subscriber(load: (&str, u64), index: u32, filter: String, expects: Range<u32>, is_shared: bool) -> ClientPlan {
    let client_id = format!("bench-{}-{}-sub-{index}", load.1, load.0);
    ClientPlan { client_id, core: index as usize, filters: vec![filter], expects, is_shared, publisher: None }
}

fn publisher(load: (&str, u64), index: u32, topic: String) -> ClientPlan {
    let client_id = format!("bench-{}-{}-pub-{index}", load.1, load.0);
    let publisher = Some((index, topic));
    ClientPlan { client_id, core: index as usize, filters: Vec::new(), expects: 0..0, is_shared: false, publisher }
}

/// Each publisher has a subscriber of its own, on the same core.
pub fn pair(options: &PairOptions) -> Plan {
    let seed = options.load.seed;
    let topic = |index| format!("bench/{seed}/pair/{index}");
    let subscribers = (0..options.pairs).map(|i| subscriber(("pair", seed), i, topic(i), i..i + 1, false));
    let publishers = (0..options.pairs).map(|i| publisher(("pair", seed), i, topic(i)));
    Plan { clients: subscribers.chain(publishers).collect(), copies: vec![1; options.pairs as usize] }
}

/// All publish to one topic, all subscribers have it.
pub fn fanout(options: &FanoutOptions) -> Plan {
    let seed = options.load.seed;
    let topic = format!("bench/{seed}/fanout");
    let subscribers =
        (0..options.subscribers).map(|i| subscriber(("fanout", seed), i, topic.clone(), 0..options.publishers, false));
    let publishers = (0..options.publishers).map(|i| publisher(("fanout", seed), i, topic.clone()));
    let copies = vec![u64::from(options.subscribers); options.publishers as usize];
    Plan { clients: subscribers.chain(publishers).collect(), copies }
}

/// Each message goes to one member of a shared group.
pub fn fanin(options: &FaninOptions) -> Plan {
    let seed = options.load.seed;
    let filter = format!("$share/bench/bench/{seed}/fanin/+");
    let subscribers =
        (0..options.members).map(|i| subscriber(("fanin", seed), i, filter.clone(), 0..options.publishers, true));
    let publishers = (0..options.publishers).map(|i| publisher(("fanin", seed), i, format!("bench/{seed}/fanin/{i}")));
    Plan { clients: subscribers.chain(publishers).collect(), copies: vec![1; options.publishers as usize] }
}

/// The filter of subscriber `index` below the tree's root, and whether it matches the leaf of a publisher.
fn tree_filter(index: u32, publishers: u32) -> (String, Box<dyn Fn(u32) -> bool>) {
    let turn = index / 3;
    match index % 3 {
        0 => {
            let site = turn % SITES;
            (format!("s{site}/#"), Box::new(move |leaf| leaf % SITES == site))
        }
        1 => {
            let line = turn % LINES;
            (format!("+/l{line}/+"), Box::new(move |leaf| leaf / SITES % LINES == line))
        }
        _ => {
            let device = turn % publishers;
            (format!("+/+/d{device}"), Box::new(move |leaf| leaf == device))
        }
    }
}

/// Publishers on leaves three levels deep, subscribers with wildcards of three kinds.
pub fn tree(options: &TreeOptions) -> Plan {
    let seed = options.load.seed;
    let mut plan = Plan { clients: Vec::new(), copies: vec![0; options.publishers as usize] };
    for index in 0..options.subscribers {
        let (filter, matches) = tree_filter(index, options.publishers);
        let filter = format!("bench/{seed}/tree/{filter}");
        plan.clients.push(subscriber(("tree", seed), index, filter, 0..options.publishers, false));
        for leaf in 0..options.publishers {
            plan.copies[leaf as usize] += u64::from(matches(leaf));
        }
    }
    for leaf in 0..options.publishers {
        let topic = format!("bench/{seed}/tree/s{}/l{}/d{leaf}", leaf % SITES, leaf / SITES % LINES);
        plan.clients.push(publisher(("tree", seed), leaf, topic));
    }
    plan
}

/// How the publishers of a mix are divided.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Of `pair`.
    pub pair: f64,
    /// Of `fanout`, with ten subscribers.
    pub fanout: f64,
    /// Of `fanin`, with a member for every ten publishers.
    pub fanin: f64,
    /// Of `tree`, with as many subscribers.
    pub tree: f64,
}

impl Plan {
    /// Takes over the clients of another scenario.
    fn absorb(&mut self, other: Self) {
        let first = self.copies.len() as u32;
        let shifted = other.clients.into_iter().map(|mut client| {
            client.expects = client.expects.start + first..client.expects.end + first;
            client.publisher = client.publisher.map(|(index, topic)| (index + first, topic));
            client
        });
        self.clients.extend(shifted);
        self.copies.extend(other.copies);
    }
}

/// Several scenarios at once, `publishers` in all.
pub fn mix(weights: &Weights, publishers: u32, load: &LoadOptions) -> Plan {
    let whole = weights.pair + weights.fanout + weights.fanin + weights.tree;
    let share = |weight: f64| (f64::from(publishers) * weight / whole.max(f64::MIN_POSITIVE)).round() as u32;
    let mut plan = Plan::default();
    if share(weights.pair) > 0 {
        plan.absorb(pair(&PairOptions { pairs: share(weights.pair), load: load.clone() }));
    }
    if share(weights.fanout) > 0 {
        plan.absorb(fanout(&FanoutOptions { publishers: share(weights.fanout), subscribers: 10, load: load.clone() }));
    }
    if share(weights.fanin) > 0 {
        let members = share(weights.fanin).div_ceil(10);
        plan.absorb(fanin(&FaninOptions { publishers: share(weights.fanin), members, load: load.clone() }));
    }
    if share(weights.tree) > 0 {
        let count = share(weights.tree);
        plan.absorb(tree(&TreeOptions { publishers: count, subscribers: count, load: load.clone() }));
    }
    plan.clients.sort_by_key(|client| client.publisher.is_some());
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Cli, Command};
    use clap::Parser;

    fn command(line: &str) -> Command {
        Cli::parse_from(line.split_whitespace()).command
    }

    #[test]
    fn a_pair_shares_its_core_and_its_topic() {
        let Command::Pair(options) = command("bifro-bench pair --pairs 3") else { panic!("a pair") };
        let plan = pair(&options);
        for index in 0..3 {
            let (subscriber, publisher) = (&plan.clients[index], &plan.clients[index + 3]);
            assert_eq!(subscriber.core, publisher.core);
            assert_eq!(publisher.publisher, Some((index as u32, subscriber.filters[0].clone())));
        }
    }

    #[test]
    fn every_leaf_of_the_tree_counts_the_filters_that_match_it() {
        let Command::Tree(options) = command("bifro-bench tree --publishers 32 --subscribers 12") else {
            panic!("a tree")
        };
        let plan = tree(&options);
        // Sites 0 to 3, lines 0 to 3 and devices 0 to 3 have one subscriber each.
        assert_eq!(plan.copies[0], 3);
        assert_eq!(plan.copies[3], 3);
        assert_eq!(plan.copies[4], 1);
        assert_eq!(plan.copies[9], 2);
    }

    #[test]
    fn a_mix_divides_the_publishers_by_weight_and_numbers_them_anew() {
        let Command::Pair(options) = command("bifro-bench pair") else { panic!("a pair") };
        let weights = Weights { pair: 5.0, fanout: 1.0, fanin: 3.0, tree: 1.0 };
        let plan = mix(&weights, 20, &options.load);
        let mut indexes: Vec<u32> =
            plan.clients.iter().filter_map(|client| Some(client.publisher.as_ref()?.0)).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..20).collect::<Vec<_>>());
        let mut names: Vec<&String> = plan.clients.iter().map(|client| &client.client_id).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), plan.clients.len());
    }
}
