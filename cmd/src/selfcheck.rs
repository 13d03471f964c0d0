//! What the machine must offer, checked before anything starts, with the exact remedy for each lack.
//!
//! Everything here runs once, on the main thread, before there are shards.

use std::fs;
use std::io;

/// Lowest kernel: DEFER_TASKRUN and multishot receive.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// What one executor needs to lock, in bytes; glommio refuses less.
const MEMLOCK_MIN: u64 = 512 << 10;

/// Descriptors the process needs besides connections: per shard its rings, event descriptors and listeners, and the rest.
const fn descriptors_reserved(shards: u64) -> u64 {
    64 + shards * 32
}

/// Something without which the node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// The kernel is too old.
    #[error(
        "kernel {0} is too old: bifro-uring needs Linux 6.1 or later (io_uring with DEFER_TASKRUN); upgrade the kernel"
    )]
    Kernel(String),
    /// Switched off for everybody or for ordinary users.
    #[error(
        "io_uring is disabled by kernel.io_uring_disabled = {0}; set it to 0: `sysctl -w kernel.io_uring_disabled=0`, and for \
         good in /etc/sysctl.d/90-bifro.conf"
    )]
    Disabled(String),
    /// Refused although the kernel has it.
    #[error(
        "io_uring is forbidden ({0}), most likely by a seccomp filter. Docker: `--security-opt seccomp=unconfined`, or a \
         profile that allows io_uring_setup, io_uring_enter and io_uring_register. Kubernetes: securityContext.\
         seccompProfile.type: Unconfined, or Localhost with such a profile. systemd: SystemCallFilter=@io-event"
    )]
    Forbidden(#[source] io::Error),
    /// Set-up fails for another reason.
    #[error("io_uring cannot be set up ({0}); the kernel must be built with CONFIG_IO_URING=y")]
    SetUp(#[source] io::Error),
    /// Too little may be locked.
    #[error(
        "RLIMIT_MEMLOCK is {have} bytes, and each shard needs {MEMLOCK_MIN}: raise it to at least {need}. Shell: `ulimit -l {kib}` as \
         root, or `* - memlock unlimited` in /etc/security/limits.conf. systemd: LimitMEMLOCK=infinity. Docker: `--ulimit memlock=-1`"
    )]
    Memlock {
        /// The limit, in bytes.
        have: u64,
        /// What all shards need, in bytes.
        need: u64,
        /// The same in KiB, as ulimit counts.
        kib: u64,
    },
    /// Too few descriptors even for the shards themselves.
    #[error(
        "RLIMIT_NOFILE is {have}, and {need} descriptors are needed before the first connection. Shell: `ulimit -n 1048576`. \
         systemd: LimitNOFILE=1048576. Docker: `--ulimit nofile=1048576`"
    )]
    Descriptors {
        /// The limit.
        have: u64,
        /// What the node needs for itself.
        need: u64,
    },
    /// A limit of the process cannot be read.
    #[error("resource limits cannot be read: {0}")]
    Limits(#[source] io::Error),
}

/// What the checks found out, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Connections that fit the limit of open descriptors.
    pub connections_fit: u64,
    /// Things an operator should know, each with its remedy; none of them prevents the start.
    pub warnings: Vec<String>,
}

/// Checks the machine for a node of `shards` shards whose listeners admit `connections_max` connections together, and raises the soft
/// limits of locked memory and open descriptors to the hard ones.
///
/// # Errors
/// Everything that is missing.
pub fn run(shards: u64, connections_max: u64) -> Result<Findings, Vec<Lack>> {
    let mut lacks = Vec::new();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    lacks.extend(check_kernel(release.trim()).err());
    // On an old kernel the set-up fails too, and would only repeat the reason.
    if lacks.is_empty() {
        lacks.extend(check_io_uring().err());
    }
    match raise_to_hard(libc::RLIMIT_MEMLOCK) {
        Ok(have) => lacks.extend(check_memlock(have, shards).err()),
        Err(error) => lacks.push(Lack::Limits(error)),
    }
    match raise_to_hard(libc::RLIMIT_NOFILE)
        .map_err(Lack::Limits)
        .and_then(|have| check_descriptors(have, shards, connections_max))
    {
        Ok(findings) if lacks.is_empty() => return Ok(findings),
        Ok(_) => {}
        Err(lack) => lacks.push(lack),
    }
    Err(lacks)
}

fn check_kernel(release: &str) -> Result<(), Lack> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_MIN => Err(Lack::Kernel(release.to_owned())),
        // An unreadable release is no proof of anything; the set-up of a ring is.
        _ => Ok(()),
    }
}

/// Sets up a ring as the shards will.
fn check_io_uring() -> Result<(), Lack> {
    let mut builder = io_uring::IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder();
    let Err(error) = builder.setup_single_issuer().setup_defer_taskrun().build(4) else {
        return Ok(());
    };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(refusal(error, disabled.trim()))
}

/// Why a ring could not be set up, given the value of `kernel.io_uring_disabled`.
fn refusal(error: io::Error, disabled: &str) -> Lack {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if !matches!(disabled, "" | "0") => Lack::Disabled(disabled.to_owned()),
        Some(libc::EPERM | libc::EACCES) => Lack::Forbidden(error),
        _ => Lack::SetUp(error),
    }
}

fn check_memlock(have: u64, shards: u64) -> Result<(), Lack> {
    let need = MEMLOCK_MIN.saturating_mul(shards.max(1));
    if have >= need {
        return Ok(());
    }
    Err(Lack::Memlock { have, need, kib: need.div_ceil(1_024) })
}

fn check_descriptors(have: u64, shards: u64, connections_max: u64) -> Result<Findings, Lack> {
    let need = descriptors_reserved(shards);
    let Some(connections_fit) = have.checked_sub(need) else {
        return Err(Lack::Descriptors { have, need });
    };
    let mut warnings = Vec::new();
    if connections_fit < connections_max {
        let wanted = connections_max.saturating_add(need);
        warnings.push(format!(
            "RLIMIT_NOFILE is {have}: {connections_fit} connections fit, the listeners admit {connections_max}. Raise the \
             limit (`ulimit -n {wanted}`, systemd LimitNOFILE={wanted}, Docker `--ulimit nofile={wanted}`) or lower connections_max"
        ));
    }
    Ok(Findings { connections_fit, warnings })
}

/// Raises a soft limit to the hard one, as far as the system allows, and returns what is in force.
fn raise_to_hard(resource: libc::__rlimit_resource_t) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit that lives through the call.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is a valid rlimit that lives through the call.
    if limit.rlim_cur < limit.rlim_max && unsafe { libc::setrlimit(resource, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T: std::fmt::Debug>(result: Result<T, Lack>) -> String {
        result.expect_err("a lack").to_string()
    }

    #[test]
    fn kernels_before_6_1_are_refused_and_odd_names_are_not() {
        for release in ["5.15.0-91-generic", "6.0.19", "4.4", "2.6.32-754.el6.x86_64"] {
            assert!(told(check_kernel(release)).contains(release), "{release}");
        }
        for release in ["6.1.0", "6.18.44-fc-v669", "7.0-rc1", "10.2", "", "odd"] {
            assert!(check_kernel(release).is_ok(), "{release}");
        }
    }

    #[test]
    fn a_refused_ring_names_the_switch_or_the_filter() {
        let eperm = || io::Error::from_raw_os_error(libc::EPERM);
        assert!(refusal(eperm(), "2").to_string().contains("sysctl -w kernel.io_uring_disabled=0"));
        assert!(refusal(eperm(), "0").to_string().contains("--security-opt seccomp=unconfined"));
        assert!(
            refusal(eperm(), "").to_string().contains("SystemCallFilter=@io-event"),
            "the switch is younger than 6.1"
        );
        assert!(refusal(io::Error::from_raw_os_error(libc::ENOSYS), "0").to_string().contains("CONFIG_IO_URING"));
    }

    #[test]
    fn locked_memory_is_counted_per_shard() {
        assert!(check_memlock(8 << 20, 16).is_ok());
        let message = told(check_memlock(8 << 20, 17));
        assert!(message.contains("RLIMIT_MEMLOCK is 8388608 bytes") && message.contains("ulimit -l 8704"), "{message}");
        assert!(check_memlock(u64::MAX, u64::MAX).is_ok(), "unlimited is enough for anything");
    }

    #[test]
    fn too_few_descriptors_for_the_listeners_warn_and_too_few_for_the_node_refuse() {
        let findings = check_descriptors(1_000, 2, 5_000).expect("the node itself fits");
        assert_eq!(findings.connections_fit, 872);
        assert!(
            findings.warnings[0].contains("872 connections fit") && findings.warnings[0].contains("ulimit -n 5128")
        );
        assert_eq!(check_descriptors(10_000, 2, 5_000).expect("fits").warnings, Vec::<String>::new());
        assert!(told(check_descriptors(100, 2, 5_000)).contains("LimitNOFILE=1048576"));
    }

    #[test]
    fn this_machine_passes_and_soft_limits_are_raised() {
        let findings = run(1, 1).expect("the machine that runs the tests can run the node");
        assert!(findings.connections_fit > 0);
        let limits = fs::read_to_string("/proc/self/limits").expect("proc");
        let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        let mut values = files["Max open files".len()..].split_whitespace();
        assert_eq!(values.next(), values.next(), "soft equals hard");
    }
}
