//! What Prometheus expects of every process, from /proc.

use std::fs;

/// A reading of the process; what cannot be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// User and system time, in seconds.
    pub(super) cpu_s: Option<f64>,
    /// Resident memory, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Open descriptors.
    pub(super) open_fds: Option<u64>,
    /// Open descriptors at most.
    pub(super) max_fds: Option<u64>,
    /// Start of the process, in seconds since the Unix epoch.
    pub(super) start_s: Option<f64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

/// Clock ticks per second in /proc: fixed at 100 for user space on every architecture Linux runs io_uring on.
const TICKS_PER_S: f64 = 100.0;

impl Reading {
    /// Reads the process as it is now.
    pub(super) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as u64),
            max_fds: max_fds(&limits),
            ..Self::parse(&stat, &boot)
        }
    }

    fn parse(stat: &str, boot: &str) -> Self {
        // The command may contain anything, parentheses too; the fields stand behind its last one, from state (field 3) on.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        let booted_s = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        Self {
            cpu_s: field(14).zip(field(15)).map(|(user, system)| (user + system) as f64 / TICKS_PER_S),
            threads: field(20),
            start_s: booted_s.zip(field(22)).map(|(boot, ticks)| boot + ticks as f64 / TICKS_PER_S),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * PAGE_BYTES),
            ..Self::default()
        }
    }
}

/// Page size that /proc/self/stat counts in.
const PAGE_BYTES: u64 = 4_096;

fn max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 7 0 1000 8192 3 18446744073709551615";
        let reading = Reading::parse(stat, "cpu 1\nbtime 1700000000\n");
        assert_eq!(reading.cpu_s, Some(2.0));
        assert_eq!(reading.threads, Some(7));
        assert_eq!(reading.start_s, Some(1_700_000_010.0));
        assert_eq!((reading.virtual_bytes, reading.resident_bytes), (Some(8_192), Some(3 * 4_096)));
        assert_eq!(Reading::parse("", ""), Reading::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let reading = Reading::now();
        assert!(reading.resident_bytes.is_some_and(|bytes| bytes > 0));
        assert!(reading.open_fds.zip(reading.max_fds).is_some_and(|(open, max)| 0 < open && open < max));
        assert!(reading.start_s.is_some_and(|start| start > 1.0e9));
    }
}
