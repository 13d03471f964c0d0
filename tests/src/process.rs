//! A broker as a child process with a directory of its own, on ports the system chose.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::{Duration, Instant};

static BUILD: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Brokers that every test of the binary uses: pid and directory.
static LENT: Mutex<Vec<(u32, PathBuf)>> = Mutex::new(Vec::new());

/// Ends them.
extern "C" fn end_lent() {
    let Ok(lent) = LENT.lock() else { return };
    for (pid, dir) in lent.iter() {
        if let Ok(pid) = i32::try_from(*pid) {
            // SAFETY: kill takes no pointers; nobody waits for a lent broker, so the pid is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Directory of the binaries built by the profile these tests were built with. They are brought up to date first, unless
/// `BIFRO_BUILT` is set in the environment. `BIFRO_BINARIES` names another directory, in which they are built.
///
/// # Panics
/// If they cannot be built.
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("BIFRO_BINARIES") {
        return std::path::absolute(dir).expect("a directory");
    }
    let exe = std::env::current_exe().expect("a test knows its own path");
    let profile = exe.parent().and_then(Path::parent).expect("tests live in target/<profile>/deps").to_owned();
    BUILD.call_once(|| {
        if std::env::var_os("BIFRO_BUILT").is_some() {
            return;
        }
        let mut cargo = Command::new("cargo");
        // Tests and binaries together, as `cargo test` resolves them: with other features everything would be built twice.
        cargo.args(["build", "--quiet", "--locked", "--workspace", "--bins", "--tests"]);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "the binaries must build");
    });
    profile
}

/// A fresh directory below the target directory, removed by whoever made it.
///
/// # Panics
/// If it cannot be made.
pub fn fresh_dir(name: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("bifro-{name}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for the test");
    dir
}

/// What a broker has logged, line by line.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

/// A running broker. Killed when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Its directory, with `node.toml` in it.
    pub dir: PathBuf,
    log: Arc<Log>,
    listeners: Vec<(String, String)>,
    cores: u16,
    /// The directory outlives the process.
    keeps_dir: bool,
}

/// What a killed broker leaves: its directory.
#[derive(Debug)]
pub struct Crashed {
    /// With `node.toml` and the data in it.
    pub dir: PathBuf,
    cores: u16,
}

impl Crashed {
    /// What it has left, twice.
    ///
    /// # Panics
    /// If it cannot be copied.
    pub fn copy(&self) -> Self {
        let dir = fresh_dir("copy");
        let source = self.dir.join(".");
        let copied = Command::new("cp").arg("-a").arg(source).arg(&dir).status().expect("cp runs");
        assert!(copied.success(), "the directory cannot be copied");
        Self { dir, cores: self.cores }
    }

    /// Starts a broker in the directory again.
    pub fn restart(self) -> Broker {
        self.begin_again().until_ready()
    }

    /// The same without waiting for it; see [`Broker::until_ready`].
    pub fn begin_again(self) -> Broker {
        Broker::begin_in(self.cores, self.dir)
    }

    /// The same with another number of cores.
    pub fn restart_on(self, cores: u16) -> Broker {
        Broker::start_in(cores, self.dir)
    }
}

impl Broker {
    /// A broker on `cores` shards with one TCP listener for anonymous clients, and `extra` TOML behind that.
    pub fn start(cores: u16, extra: &str) -> Self {
        let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n";
        Self::start_with(cores, &format!("{listener}{extra}"), &[])
    }

    /// A broker with exactly this configuration (besides the admin's port and the log format), and files put beside it first.
    ///
    /// # Panics
    /// If it is not ready in time; the panic shows its log.
    pub fn start_with(cores: u16, config: &str, files: &[(&str, &[u8])]) -> Self {
        Self::begin_with(cores, config, files).until_ready()
    }

    /// The same without waiting for it; see [`Self::until_ready`].
    pub fn begin_with(cores: u16, config: &str, files: &[(&str, &[u8])]) -> Self {
        Self::begin_in(cores, Self::directory(config, files))
    }

    fn directory(config: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = fresh_dir("node");
        for (name, content) in files {
            std::fs::write(dir.join(name), content).expect("a file for the broker");
        }
        let mut text = String::from("[admin]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n");
        let _ = writeln!(text, "{config}");
        std::fs::write(dir.join("node.toml"), text).expect("a configuration for the broker");
        dir
    }

    /// As [`Self::start_with`], run by another program: `tool` and its arguments, of which `{dir}` stands for the broker's
    /// directory. The process id is the tool's.
    ///
    /// # Panics
    /// If it is not ready in time; the panic shows its log.
    pub fn start_under(tool: &[&str], cores: u16, config: &str) -> Self {
        let dir = Self::directory(config, &[]);
        let mut tool = tool.iter().map(|part| part.replace("{dir}", &dir.to_string_lossy()));
        let mut command = Command::new(tool.next().expect("a tool"));
        command.args(tool).arg(binaries().join("bifro-uring"));
        Self::launch(command, cores, dir).until_ready()
    }

    /// A broker with the `node.toml` that lies in `dir`.
    ///
    /// # Panics
    /// If it is not ready in time; the panic shows its log.
    pub fn start_in(cores: u16, dir: PathBuf) -> Self {
        Self::begin_in(cores, dir).until_ready()
    }

    fn begin_in(cores: u16, dir: PathBuf) -> Self {
        Self::launch(Command::new(binaries().join("bifro-uring")), cores, dir)
    }

    fn launch(mut command: Command, cores: u16, dir: PathBuf) -> Self {
        let mut child = command
            .args(["--cores", &cores.to_string(), "--config"])
            .arg(dir.join("node.toml"))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lines.lock().expect("no panic while it is held").0.push(line);
                sink.grown.notify_all();
            }
            sink.lines.lock().expect("no panic while it is held").1 = true;
            sink.grown.notify_all();
        });
        Self { child, dir, log, listeners: Vec::new(), cores, keeps_dir: false }
    }

    /// Waits until it is. Before, it has no addresses, and may wait for others.
    ///
    /// # Panics
    /// If it is not ready in time; the panic shows its log.
    #[must_use]
    pub fn until_ready(mut self) -> Self {
        self.wait_for_log("ready", |line| line.contains("\"ready\""));
        self.listeners = self.log_lines().iter().filter_map(|line| listener_of(line)).collect();
        self
    }

    /// Lends the broker to every test of the binary: it is killed, and its directory removed, when the test process exits.
    ///
    /// # Panics
    /// Never, unless another thread panicked here.
    pub fn leave_running(self) -> &'static Self {
        static HOOK: Once = Once::new();
        // SAFETY: the handler takes no argument, unwinds nowhere, and lives as long as the process.
        HOOK.call_once(|| unsafe {
            libc::atexit(end_lent);
        });
        let lent: &'static Self = Box::leak(Box::new(self));
        LENT.lock().expect("no panic while it is held").push((lent.pid(), lent.dir.clone()));
        lent
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Address of the first listener with this protocol, or of the admin (`"admin"`).
    ///
    /// # Panics
    /// If there is none.
    pub fn address(&self, protocol: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|(name, _)| name == protocol);
        found.unwrap_or_else(|| panic!("no {protocol} listener in {:?}", self.listeners)).1.parse().expect("an address")
    }

    /// Address of the n-th listener with this protocol.
    ///
    /// # Panics
    /// If there is none.
    pub fn nth_address(&self, protocol: &str, n: usize) -> SocketAddr {
        let mut found = self.listeners.iter().filter(|(name, _)| name == protocol);
        found.nth(n).expect("a listener").1.parse().expect("an address")
    }

    /// Address of the TCP listener.
    pub fn tcp(&self) -> SocketAddr {
        self.address("tcp")
    }

    /// Everything logged so far.
    ///
    /// # Panics
    /// Never, unless a reader thread panicked.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().expect("no panic while it is held").0.clone()
    }

    /// Waits until a line satisfies `wanted`, and returns it.
    ///
    /// # Panics
    /// If none does in time, or the broker ends.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut seen = 0;
        let mut lines = self.log.lines.lock().expect("no panic while it is held");
        loop {
            if let Some(line) = lines.0[seen..].iter().find(|line| wanted(line)) {
                return line.clone();
            }
            seen = lines.0.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.1 {
                // Without the lock, which the broker's own end needs to show its log.
                let log = lines.0.join("\n");
                drop(lines);
                panic!("no log line «{what}»; the log:\n{log}");
            }
            lines = self.log.grown.wait_timeout(lines, left).expect("no panic while it is held").0;
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        // SAFETY: kill takes no pointers; the child has not been waited for, so the pid is still its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "the broker is gone");
    }

    /// Asks it to reload, and waits until it says how that went.
    pub fn reload(&self) -> String {
        let before = self.log_lines().len();
        self.signal(libc::SIGHUP);
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            let lines = self.log_lines();
            if let Some(line) = lines[before..].iter().find(|line| line.contains("reload")) {
                return line.clone();
            }
            assert!(Instant::now() < deadline, "no word of the reload:\n{}", lines.join("\n"));
            std::thread::yield_now();
        }
    }

    /// Asks it to end and waits.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(Duration::from_secs(40))
    }

    /// Kills it as nothing can be caught (SIGKILL), and waits until it is gone.
    ///
    /// # Panics
    /// If it had ended already.
    pub fn crash(mut self) -> Crashed {
        self.assert_alive();
        self.child.kill().expect("it lives");
        self.child.wait().expect("the child can be waited for");
        self.keeps_dir = true;
        Crashed { dir: self.dir.clone(), cores: self.cores }
    }

    /// Asks it to end, waits, and keeps what it leaves.
    ///
    /// # Panics
    /// If it does not end in order.
    pub fn stop(mut self) -> Crashed {
        self.signal(libc::SIGTERM);
        let status = self.wait(Duration::from_secs(40));
        assert!(status.success(), "{status}");
        self.keeps_dir = true;
        Crashed { dir: self.dir.clone(), cores: self.cores }
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the broker does not end:\n{}", self.log_lines().join("\n"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number");
        kib << 10
    }

    /// The value of a metric, summed over its labels; zero if it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_values("/metrics", name).into_iter().sum()
    }

    /// The value of a metric on every shard; none if it is not there.
    pub fn metric_by_shard(&self, name: &str) -> Vec<f64> {
        self.metric_values("/metrics?per=shard", name)
    }

    fn metric_values(&self, page: &str, name: &str) -> Vec<f64> {
        crate::http::metric_values(self.address("admin"), page, name)
    }

    /// Waits until a metric satisfies `wanted`.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait_for_metric(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            let value = self.metric(name);
            if wanted(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{name} stays at {value}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it still answers, and has lost nobody it should not have.
    ///
    /// # Panics
    /// If it has ended.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("the child can be waited for");
        assert!(ended.is_none(), "the broker ended with {ended:?}:\n{}", self.log_lines().join("\n"));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log_lines();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the broker's log ({} lines, the last ones):\n{}", lines.len(), tail.join("\n"));
        }
        // `BIFRO_KEEP` keeps what a failed test leaves.
        let is_evidence = std::thread::panicking() && std::env::var_os("BIFRO_KEEP").is_some();
        if !self.keeps_dir && !is_evidence {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn listener_of(line: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = value.get("fields").unwrap_or(&value);
    let protocol = fields.get("protocol")?.as_str()?;
    let address = fields.get("address")?.as_str()?;
    Some((protocol.into(), address.into()))
}
