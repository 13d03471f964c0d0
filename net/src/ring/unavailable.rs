//! Turning a refused io_uring into advice an operator can act on.

use std::io;

/// Names the kernel setting behind an error of `io_uring_setup` or a registration. Also fits the errors of glommio's
/// executors, which use io_uring the same way.
pub fn explain(error: &io::Error) -> String {
    let release = read("/proc/sys/kernel/osrelease");
    let disabled = read("/proc/sys/kernel/io_uring_disabled");
    match error.raw_os_error() {
        Some(libc::EINVAL) => format!("kernel 6.1 or newer is needed, this is {release}"),
        Some(libc::ENOSYS) => {
            format!(
                "this kernel ({release}) has no io_uring, or a seccomp filter hides it: allow io_uring_setup, io_uring_enter and io_uring_register"
            )
        }
        Some(libc::EPERM | libc::EACCES) => {
            format!(
                "io_uring is forbidden: set kernel.io_uring_disabled=0 (now {disabled}) and allow io_uring_* in the seccomp profile of the container"
            )
        }
        Some(libc::ENOMEM) => {
            "not enough lockable memory: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=) to at least 8 MiB".into()
        }
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)".into(),
        _ => format!("kernel {release}, kernel.io_uring_disabled={disabled}"),
    }
}

/// The error with its advice.
pub(super) fn with_advice(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("io_uring is unavailable: {error}: {}", explain(&error)))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_what_to_change() {
        for (errno, word) in [
            (libc::EINVAL, "6.1"),
            (libc::ENOSYS, "seccomp"),
            (libc::EPERM, "kernel.io_uring_disabled"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
            (libc::EMFILE, "RLIMIT_NOFILE"),
        ] {
            let message = with_advice(io::Error::from_raw_os_error(errno)).to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
