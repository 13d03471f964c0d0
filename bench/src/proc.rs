//! What the kernel says of a process: CPU time, memory, and our own limit of descriptors.

use std::fs;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// User and system time of all threads, in seconds.
    pub cpu_s: f64,
    /// Resident set, in bytes.
    pub rss_bytes: u64,
    /// Proportional set, in bytes; 0 where the kernel does not say.
    pub pss_bytes: u64,
}

/// Of process `pid`; none once it is gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // SAFETY: sysconf takes no pointers.
    let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu_s: cpu_ticks(&stat)? as f64 / ticks_per_s,
        rss_bytes: field_kib(&status, "VmRSS:")? * 1024,
        pss_bytes: 0,
    })
}

/// The same with the proportional set, which the kernel has to walk for.
pub fn usage_with_pss(pid: u32) -> Option<Usage> {
    let mut usage = usage(pid)?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    usage.pss_bytes = field_kib(&rollup, "Pss:").unwrap_or(0) * 1024;
    Some(usage)
}

/// Of several processes together, but for those that are gone.
pub fn of_all(pids: &[u32], usage: impl Fn(u32) -> Option<Usage>) -> Usage {
    pids.iter().filter_map(|&pid| usage(pid)).fold(Usage::default(), |sum, one| Usage {
        cpu_s: sum.cpu_s + one.cpu_s,
        rss_bytes: sum.rss_bytes + one.rss_bytes,
        pss_bytes: sum.pss_bytes + one.pss_bytes,
    })
}

/// utime + stime of a line of `/proc/PID/stat`. The name in parentheses may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return 0;
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
    }
    limit.rlim_cur
}

/// Pins the calling thread to `cpu`. Says whether that worked.
pub fn pin_thread(cpu: usize) -> bool {
    // SAFETY: a cpu_set_t of zeros is an empty set; it outlives the call, and CPU_SET checks its bounds.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn this_process_has_memory() {
        let usage = usage_with_pss(std::process::id()).expect("we live");
        assert!(usage.rss_bytes > 0 && usage.cpu_s >= 0.0);
    }
}
