//! How much memory the node may use: what the operator says, or 60 % of what the control group or the machine has.

use bifro_core::config::ProcessConfig;
use std::fs;
use std::path::Path;

/// Share of the available memory a node takes if it is told nothing, in percent.
const SHARE_PERCENT: u64 = 60;

/// What to assume when the machine does not tell, in bytes.
const UNKNOWN_MACHINE_BYTES: u64 = 1 << 30;

/// Memory budget of the whole process, in bytes.
pub fn budget_bytes(process: &ProcessConfig) -> u64 {
    match process.memory_budget_mib {
        0 => available_bytes(Path::new("/")) / 100 * SHARE_PERCENT,
        mib => mib << 20,
    }
}

/// The smallest of the machine's memory and the limits of the control groups the process is in. `root` is `/` except in
/// tests.
fn available_bytes(root: &Path) -> u64 {
    let physical = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
    });
    let limits = physical.into_iter().chain(cgroup_limits(root));
    limits.min().unwrap_or(UNKNOWN_MACHINE_BYTES)
}

/// Limits of the process's control group and of those above it, versions 1 and 2.
fn cgroup_limits(root: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (base, file) = if controllers.is_empty() {
            (root.join("sys/fs/cgroup"), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // Inside a container the path may name a group that is not mounted; the mount's root then carries the limit.
        let group = base.join(group.trim_start_matches('/'));
        for dir in group.ancestors().take_while(|dir| dir.starts_with(&base)) {
            let limit = fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            limits.extend(limit);
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Machine(PathBuf);

    impl Machine {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("bifro-memory-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("files of the test have directories"))
                    .expect("temporary directory");
                fs::write(path, text).expect("temporary file");
            }
            Self(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemFree: 5 kB\nMemTotal:       8192 kB\n");

    #[test]
    fn without_control_groups_the_machine_counts() {
        let machine = Machine::with("plain", &[MEMINFO]);
        assert_eq!(available_bytes(&machine.0), 8192 * 1024);
    }

    #[test]
    fn the_tightest_group_above_the_process_counts() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/system.slice/bifro.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "4096\n"),
            ("sys/fs/cgroup/system.slice/bifro.service/memory.max", "max\n"),
        ];
        let machine = Machine::with("v2", &files);
        assert_eq!(available_bytes(&machine.0), 4096);
    }

    #[test]
    fn version_1_groups_count_too() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,memory:/docker/abc\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n"),
        ];
        let machine = Machine::with("v1", &files);
        assert_eq!(available_bytes(&machine.0), 2048, "the container sees its group as the root of the mount");
    }

    #[test]
    fn what_the_operator_says_wins() {
        let process = ProcessConfig { memory_budget_mib: 256, ..ProcessConfig::default() };
        assert_eq!(budget_bytes(&process), 256 << 20);
    }
}
