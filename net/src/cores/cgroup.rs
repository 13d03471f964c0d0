//! The CPU quota of the control groups this process is in, version 2 or 1. The tightest group on the way up counts.

use std::path::{Path, PathBuf};

/// Thousandths of a CPU this process may use per period, if anything limits it. `root` is `/` outside of tests.
pub(super) fn quota_millicpus(root: &Path) -> Option<u64> {
    let membership = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mount = root.join("sys/fs/cgroup");
    let quotas = membership.lines().filter_map(|line| {
        // `hierarchy:controllers:path`; version 2 is hierarchy 0 without controllers.
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if hierarchy == "0" && controllers.is_empty() {
            tightest(&mount, path, quota_v2)
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            [PathBuf::from(controllers), PathBuf::from("cpu")]
                .iter()
                .find_map(|controller| tightest(&mount.join(controller), path, quota_v1))
        } else {
            None
        }
    });
    quotas.min()
}

/// The least quota from the group at `path` up to the mount point. Inside a container the path is often the host's and
/// does not exist; then the mount point is the container's own group.
fn tightest(mount: &Path, path: &str, quota: fn(&Path) -> Option<u64>) -> Option<u64> {
    let group = mount.join(path);
    group.ancestors().take_while(|group| group.starts_with(mount)).filter_map(quota).min()
}

fn quota_v2(group: &Path) -> Option<u64> {
    let limit = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = limit.trim().split_once(' ')?;
    millicpus(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(group: &Path) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<i64>().ok();
    // A quota of -1 is none.
    let quota = u64::try_from(read("cpu.cfs_quota_us")?).ok()?;
    millicpus(quota, u64::try_from(read("cpu.cfs_period_us")?).ok()?)
}

fn millicpus(quota: u64, period: u64) -> Option<u64> {
    quota.saturating_mul(1000).checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A made-up root directory with the given files, removed again at the end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("bifro-cgroup-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("files are below the root")).expect("directory");
                fs::write(path, text).expect("file");
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_takes_the_tightest_group_on_the_way_up() {
        let root = Root::new(
            "v2",
            &[
                ("proc/self/cgroup", "0::/system.slice/broker.service\n"),
                ("sys/fs/cgroup/system.slice/broker.service/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n"),
            ],
        );
        assert_eq!(quota_millicpus(&root.0), Some(2500));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount_point() {
        let root = Root::new(
            "container",
            &[("proc/self/cgroup", "0::/docker/0123\n"), ("sys/fs/cgroup/cpu.max", "50000 100000\n")],
        );
        assert_eq!(quota_millicpus(&root.0), Some(500));
    }

    #[test]
    fn version_1_reads_the_cpu_controller_and_minus_one_is_no_limit() {
        let membership = "5:memory:/a\n4:cpu,cpuacct:/a/b\n";
        let root = Root::new(
            "v1",
            &[
                ("proc/self/cgroup", membership),
                ("sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "300000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(quota_millicpus(&root.0), Some(3000));
    }

    #[test]
    fn no_group_and_a_period_of_zero_are_no_limit() {
        let none = Root::new("none", &[("proc/self/cgroup", "0::/\n")]);
        assert_eq!(quota_millicpus(&none.0), None);
        let zero = Root::new("zero", &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "100 0\n")]);
        assert_eq!(quota_millicpus(&zero.0), None);
    }
}
