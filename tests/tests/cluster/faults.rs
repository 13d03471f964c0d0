//! What goes wrong with one node besides its network: its disk is full, its clock is wrong, it is replaced. Clients publish and receive on all
//! nodes meanwhile, and nothing acknowledged may be lost.

use super::partitions::is_root;
use super::ranges::range;
use super::replication::{leave_sessions, publish, until_replicated};
use super::storm::{Clients, addresses_of, moved, under};
use bifro_core::client::Version;
use bifro_tests::client::Client;
use bifro_tests::cluster::{LONG_QUEUES, SECRET, begin, free_address, id, node, page, table, wait_for};
use bifro_tests::process::fresh_dir;
use bifro_tests::{Broker, PATIENCE};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LISTENER: &str = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";

/// Waits until all know each other, and every range has a leader and all its replicas.
fn all_alive(nodes: &[Broker]) {
    for node in nodes {
        wait_for(node, &vec!["alive"; nodes.len()]);
    }
    until_replicated(nodes);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small file system of its own. Gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(mib: u32) -> Self {
        let dir = fresh_dir("disk");
        let (size, path) = (format!("size={mib}m"), dir.to_string_lossy().into_owned());
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path]);
        Self(dir)
    }

    /// Leaves so many bytes free.
    fn fill_but(&self, free: usize) {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&self.0).output().expect("df runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let now: usize = text.lines().last().and_then(|line| line.trim().parse().ok()).expect("a number of bytes");
        std::fs::write(self.0.join("filler"), vec![1; now.saturating_sub(free)]).expect("there is room");
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Has a node lead a range, as soon as all know that it is well.
fn lead(node: &Broker, name: &str) {
    let start = Instant::now();
    loop {
        let (done, told) = range(node, &["lead", name, "--node", &id(node)]);
        if done {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{told}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until the first node says that something is wrong with it and leads nothing, and 16 sessions take messages published on it and on the
/// second.
fn until_others_lead(nodes: &[Broker], publishers: &mut [Client; 2]) {
    let start = Instant::now();
    nodes[0].wait_for_metric("bifro_ranges_led", |led| led == 0.0);
    for (at, publisher) in publishers.iter_mut().enumerate() {
        for turn in 0..16 {
            publish(&nodes[at], publisher, &format!("of-{at}"), &format!("q/{turn}"), "taken");
        }
    }
    eprintln!("others lead in its place, and all sessions take messages, after {:?}", start.elapsed());
    until_impaired(&nodes[1], 1);
}

/// Waits until so many nodes are not well, as one sees it.
fn until_impaired(node: &Broker, count: usize) {
    let start = Instant::now();
    let impaired = |page: &Value| {
        page["nodes"].as_array().expect("a list").iter().filter(|node| node["health"] == "impaired").count()
    };
    while impaired(&page(node)) != count {
        assert!(start.elapsed() < PATIENCE, "{}", page(node));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A library that is loaded before all others into a broker.
fn shim(name: &str, text: &str) -> PathBuf {
    let dir = fresh_dir(name);
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, text).expect("a file");
    run("cc", &["-shared", "-fPIC", "-O1", "-o", &library.to_string_lossy(), &source.to_string_lossy()]);
    library
}

/// Nodes that run with such a library, each with settings of its own for it.
fn shimmed(library: &Path, settings: &[String]) -> Vec<Broker> {
    let secret = library.with_file_name("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let bind: Vec<SocketAddr> = settings.iter().map(|_| free_address()).collect();
    let preload = format!("LD_PRELOAD={}", library.display());
    let start = |(setting, &here): (&String, &SocketAddr)| {
        let config = format!("{LISTENER}{}", table(here, &bind[..1], LONG_QUEUES));
        let config = config.replace("cluster.secret", &secret.to_string_lossy());
        Broker::start_under(&["env", &preload, setting], 1, &config)
    };
    settings.iter().zip(&bind).map(start).collect()
}

/// The disk of the leader of all ranges does not answer for a while: it writes, and never hears that anything is durable.
#[test]
fn a_node_whose_disk_stalls_gives_its_ranges_away_and_nothing_acknowledged_is_lost() {
    let library = shim("stall", STALL);
    let stalls = library.with_file_name("stalls");
    let settings = [&stalls, &stalls.with_extension("1"), &stalls.with_extension("2")];
    let nodes = shimmed(&library, &settings.map(|file| format!("STALL_WHILE={}", file.display())));
    all_alive(&nodes);
    leave_sessions(&nodes[1], 16);
    ["inbox:0", "inbox:3", "inbox:7"].iter().for_each(|range| lead(&nodes[0], range));
    let mut publishers = [0, 1].map(|at: usize| Client::connect(nodes[at].tcp(), Version::V5, &format!("of-{at}")));
    let addresses = addresses_of(&nodes);
    under(&addresses, 1, Clients::Anywhere, |_| {
        std::fs::write(&stalls, "").expect("a file");
        until_others_lead(&nodes, &mut publishers);
        assert_eq!(nodes[0].metric("bifro_store_stalled"), 1.0);
        std::fs::remove_file(&stalls).expect("it is there");
        until_impaired(&nodes[1], 0);
        until_replicated(&nodes);
    });
}

/// Makes a disk that answers no request while a file is there.
const STALL: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void stall(void) {
    const char *path = getenv("STALL_WHILE");
    while (path && access(path, F_OK) == 0) usleep(10000);
}
int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    stall();
    return real(fd);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fsync");
    stall();
    return real(fd);
}
"#;

#[test]
fn sessions_live_through_a_full_disk_of_one_node() {
    if !is_root("file systems of a test's own") {
        return;
    }
    let disk = SmallDisk::new(192);
    let bind: Vec<SocketAddr> = (0..3).map(|_| free_address()).collect();
    let small = format!("[node]\ndata_dir = \"{}\"\n[store]\ndisk_reserve_mib = 16\n", disk.0.join("data").display());
    let small = [&small, LONG_QUEUES].concat();
    let nodes: Vec<Broker> =
        (0..3).map(|at| node(bind[at], &bind[..1], if at == 0 { &small } else { LONG_QUEUES }, SECRET)).collect();
    all_alive(&nodes);
    leave_sessions(&nodes[1], 16);
    let mut publishers = [0, 1].map(|at: usize| Client::connect(nodes[at].tcp(), Version::V5, &format!("of-{at}")));
    let addresses = addresses_of(&nodes);
    let sent = under(&addresses, 1, Clients::Anywhere, |_| {
        // New messages are refused; then everything but what makes room; then there is no room at all.
        for free in [12 << 20, 4 << 20, 64 << 10] {
            for range in ["inbox:0", "inbox:1", "inbox:2"] {
                lead(&nodes[0], range);
            }
            disk.fill_but(free);
            // It gives its ranges to others, whose sessions take messages, also of its own clients.
            until_others_lead(&nodes, &mut publishers);
            std::thread::sleep(Duration::from_secs(2));
            assert_eq!(nodes[0].metric("bifro_ranges_led"), 0.0, "nobody gives it a range back");
            disk.clear();
            until_impaired(&nodes[1], 0);
        }
        until_replicated(&nodes);
    });
    assert!(sent.iter().any(|sent| sent.messages > 0));
}

/// The clock of the second is three minutes fast, that of the third five minutes slow.
#[test]
fn sessions_live_on_nodes_whose_clocks_are_minutes_apart() {
    let offsets = [0, 180, -300].map(|offset| format!("CLOCK_OFFSET_S={offset}"));
    let mut nodes = shimmed(&shim("clock", CLOCK), &offsets);
    all_alive(&nodes);
    let fast = nodes[1].wait_for_log("ready", |line| line.contains("\"ready\""));
    assert_ne!(minute_of(&fast), minute_of(&nodes[0].wait_for_log("ready", |line| line.contains("\"ready\""))));
    let addresses = addresses_of(&nodes);
    under(&addresses, 1, Clients::Anywhere, |_| {
        std::thread::sleep(Duration::from_secs(2));
        // The leaders go to nodes with other clocks, and this one, come back, has the right one as before.
        let killed = nodes.remove(0).crash();
        std::thread::sleep(Duration::from_secs(4));
        nodes.insert(0, killed.restart());
        moved(&addresses, &nodes, 0);
        until_replicated(&nodes);
    });
}

/// Hour and minute of a log line's time.
fn minute_of(line: &str) -> String {
    let at = line.find('T').expect("a time");
    line[at..].chars().take(6).collect()
}

/// Moves the wall clock of a process; the monotonic one stays.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    const char *offset = getenv("CLOCK_OFFSET_S");
    if (result == 0 && id == CLOCK_REALTIME && offset) time->tv_sec += atol(offset);
    return result;
}
"#;

/// A node that died for good is replaced on its address by one with an empty directory: when it is evicted its replicas are made anew, and then
/// another may die.
#[test]
fn a_node_replaced_with_an_empty_disk_takes_the_place_of_the_one_that_died() {
    let bind: Vec<SocketAddr> = (0..3).map(|_| free_address()).collect();
    let grace = &["eviction_grace_s = 3\n", LONG_QUEUES].concat();
    let nodes: Vec<Broker> = bind.iter().map(|&here| begin(here, &bind, grace, SECRET)).collect();
    let mut nodes: Vec<Broker> = nodes.into_iter().map(Broker::until_ready).collect();
    all_alive(&nodes);
    let addresses = addresses_of(&nodes);
    under(&addresses, 1, Clients::Anywhere, |_| {
        std::thread::sleep(Duration::from_secs(1));
        drop(nodes.remove(2).crash());
        nodes.push(node(bind[2], &bind, grace, SECRET));
        moved(&addresses, &nodes, 2);
        std::thread::sleep(Duration::from_secs(6));
        until_replicated(&nodes);
        let killed = nodes.remove(0).crash();
        std::thread::sleep(Duration::from_secs(3));
        nodes.insert(0, killed.restart());
        moved(&addresses, &nodes, 0);
        until_replicated(&nodes);
    });
}

/// A node that was away for so long that it was evicted comes back with its old disk: its replicas are no members any more, and nobody counts
/// their votes.
#[test]
fn a_node_that_comes_back_with_an_old_disk_after_its_eviction_harms_nobody() {
    let bind: Vec<SocketAddr> = (0..4).map(|_| free_address()).collect();
    let grace = &["eviction_grace_s = 2\n", LONG_QUEUES].concat();
    let mut nodes: Vec<Broker> = bind.iter().map(|&here| begin(here, &bind[..3], grace, SECRET)).collect();
    nodes = nodes.into_iter().map(Broker::until_ready).collect();
    all_alive(&nodes);
    let addresses = addresses_of(&nodes);
    under(&addresses, 1, Clients::Anywhere, |_| {
        std::thread::sleep(Duration::from_secs(1));
        let away = nodes.remove(1).crash();
        std::thread::sleep(Duration::from_secs(6));
        until_replicated(&nodes);
        nodes.insert(1, away.restart());
        moved(&addresses, &nodes, 1);
        std::thread::sleep(Duration::from_secs(2));
        until_replicated(&nodes);
    });
}
