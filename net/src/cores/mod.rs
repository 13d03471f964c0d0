//! Which CPUs this process may use, how many shards that suggests, and the executors that run them.

mod cgroup;
mod executors;

pub use executors::{Executors, ExecutorsConfig, SHARD_PANIC_EXIT_CODE, SpawnError, spawn_executors};

use std::collections::BTreeSet;
use std::path::Path;

/// CPUs that are online and that the affinity mask (and with it the cpuset cgroup) admits, ascending. Never empty.
pub fn usable_cpus() -> Vec<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| parse_list(&list));
    let admitted = affinity();
    match online {
        Some(online) => {
            let both: Vec<usize> = admitted.iter().copied().filter(|cpu| online.contains(cpu)).collect();
            if both.is_empty() { admitted } else { both }
        }
        None => admitted,
    }
}

/// How many shards to run: one per usable CPU, but not more than the cgroup's CPU quota pays for (rounded up).
pub fn recommended_shards() -> u16 {
    shards_for(usable_cpus().len(), cgroup::quota_millicpus(Path::new("/")))
}

/// The CPUs to pin `shards` executors to, or None if they should float: when there are fewer CPUs than shards, or when
/// a quota says that the CPUs are shared with others.
pub fn pinning(shards: u16) -> Option<Vec<usize>> {
    let cpus = usable_cpus();
    let affordable = shards_for(cpus.len(), cgroup::quota_millicpus(Path::new("/")));
    let own_cpus = usize::from(affordable) == cpus.len() && usize::from(shards) <= cpus.len();
    own_cpus.then(|| cpus[..usize::from(shards)].to_vec())
}

fn shards_for(cpus: usize, quota_millicpus: Option<u64>) -> u16 {
    let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
    let affordable = quota_millicpus.map_or(cpus, |quota| quota.div_ceil(1000));
    u16::try_from(cpus.min(affordable).max(1)).unwrap_or(u16::MAX)
}

/// The CPUs in this thread's affinity mask.
fn affinity() -> Vec<usize> {
    // SAFETY: a mask of zeroes is an empty set.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the mask is as large as said.
    let known = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut mask) } == 0;
    if !known {
        // More CPUs than the mask holds: their number is still known.
        return (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    }
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: the index stays below the number of bits of the mask.
    (0..bits).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &mask) }).collect()
}

/// A kernel CPU list such as `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists_are_understood() {
        let list = |text| parse_list(text).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(list("0"), Some(vec![0]));
        assert_eq!(list(""), Some(vec![]));
        assert_eq!(list("a-b"), None);
    }

    #[test]
    fn a_quota_caps_the_shards_and_a_fraction_counts_as_one() {
        assert_eq!(shards_for(8, None), 8);
        assert_eq!(shards_for(8, Some(2500)), 3);
        assert_eq!(shards_for(8, Some(100)), 1);
        assert_eq!(shards_for(2, Some(64_000)), 2);
        assert_eq!(shards_for(0, Some(0)), 1);
    }

    #[test]
    fn this_process_has_a_cpu_and_more_shards_than_cpus_float() {
        let cpus = usable_cpus();
        assert!(!cpus.is_empty());
        assert!(usize::from(recommended_shards()) <= cpus.len());
        assert_eq!(pinning(u16::MAX), None);
    }
}
