//! What is measured: the broker, or mosquitto for comparison, and its CPU time.

use bifro_tests::Broker;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A broker under measurement.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pid: u32,
    /// Kept so that it ends with the measurement.
    _process: Process,
}

enum Process {
    Bifro { _broker: Broker },
    Mosquitto(Child),
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Self::Mosquitto(child) = self {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Target {
    /// This broker on one shard, pinned.
    pub(crate) fn bifro() -> Self {
        let broker = pinned(|| Broker::start(1, ""));
        let (address, pid) = (broker.tcp(), broker.pid());
        Self { name: "bifro-uring", address, pid, _process: Process::Bifro { _broker: broker } }
    }

    /// Mosquitto as installed, pinned; none if it is not.
    pub(crate) fn mosquitto() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let dir = bifro_tests::process::fresh_dir("mosquitto");
        let config = dir.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 64\n\
             max_queued_messages 100000\nlog_type none\nuser root\n"
        );
        std::fs::write(&config, text).expect("a configuration for mosquitto");
        let start = || Command::new("mosquitto").arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok();
        let child = pinned(start)?;
        let pid = child.id();
        let process = Process::Mosquitto(child);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = Instant::now() + bifro_tests::PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { name: "mosquitto", address, pid, _process: process })
    }

    /// CPU time it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.pid)
    }
}

/// User and system time of a process.
pub(crate) fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    // The fields after the name, which is in parentheses: 14 and 15 of all are user and system time in ticks.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a last part").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Starts something on CPU 0 and puts this thread on CPU 1, if there are two.
pub(crate) fn pinned<T>(start: impl FnOnce() -> T) -> T {
    pin(0);
    let started = start();
    pin(1);
    started
}

/// Lets this thread run everywhere again.
pub(crate) fn unpin() {
    set_affinity(0..64);
}

/// Puts this thread, and the processes it starts, on one CPU, if there are two.
pub(crate) fn pin(cpu: usize) {
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) || cpu == 1 {
        set_affinity(cpu..cpu + 1);
    }
}

fn set_affinity(cpus: std::ops::Range<usize>) {
    // SAFETY: a CPU set is plain bits, for which all zeroes are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        // SAFETY: the index is below the 1024 bits of a set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set outlives the call. Failure leaves the thread where it was, which costs accuracy only.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}
