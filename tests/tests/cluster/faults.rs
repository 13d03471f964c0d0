//! What goes wrong with one node besides its network: its disk is full, its clock is wrong, it is replaced. Clients publish and receive on all
//! nodes meanwhile, and nothing acknowledged may be lost.

use super::partitions::is_root;
use super::replication::until_replicated;
use super::storm::{Clients, addresses_of, moved, under};
use bifro_tests::Broker;
use bifro_tests::cluster::{SECRET, begin, free_address, node, page, table, wait_for};
use bifro_tests::process::fresh_dir;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

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

#[test]
fn sessions_live_through_a_full_disk_of_one_node() {
    if !is_root("file systems of a test's own") {
        return;
    }
    let disk = SmallDisk::new(192);
    let bind: Vec<SocketAddr> = (0..3).map(|_| free_address()).collect();
    let small = format!("[node]\ndata_dir = \"{}\"\n[store]\ndisk_reserve_mib = 16\n", disk.0.join("data").display());
    let nodes: Vec<Broker> =
        (0..3).map(|at| node(bind[at], &bind[..1], if at == 0 { &small } else { "" }, SECRET)).collect();
    all_alive(&nodes);
    let addresses = addresses_of(&nodes);
    let sent = under(&addresses, 1, Clients::Anywhere, |_| {
        // New messages are refused; then everything but what makes room; then there is no room at all.
        for free in [12 << 20, 4 << 20, 64 << 10] {
            disk.fill_but(free);
            std::thread::sleep(Duration::from_secs(3));
            let members = page(&nodes[1])["nodes"].as_array().expect("a list").clone();
            assert_eq!(members.iter().filter(|node| node["health"] == "impaired").count(), 1, "{members:?}");
            disk.clear();
            std::thread::sleep(Duration::from_secs(2));
        }
        until_replicated(&nodes);
    });
    assert!(sent.iter().any(|sent| sent.messages > 0));
}

/// The clock of the second is three minutes fast, that of the third five minutes slow.
#[test]
fn sessions_live_on_nodes_whose_clocks_are_minutes_apart() {
    let shim = fresh_dir("clock");
    let (source, library) = (shim.join("clock.c"), shim.join("clock.so"));
    std::fs::write(&source, CLOCK).expect("a file");
    run("cc", &["-shared", "-fPIC", "-O1", "-o", &library.to_string_lossy(), &source.to_string_lossy()]);
    let secret = shim.join("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let bind: Vec<SocketAddr> = (0..3).map(|_| free_address()).collect();
    let mut nodes: Vec<Broker> = [0, 180, -300]
        .iter()
        .zip(&bind)
        .map(|(offset, &bind_here)| {
            let config = format!("{LISTENER}{}", table(bind_here, &bind[..1], ""));
            let config = config.replace("cluster.secret", &secret.to_string_lossy());
            let (preload, offset) = (format!("LD_PRELOAD={}", library.display()), format!("CLOCK_OFFSET_S={offset}"));
            Broker::start_under(&["env", &preload, &offset], 1, &config)
        })
        .collect();
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
    let grace = "eviction_grace_s = 3\n";
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
    let grace = "eviction_grace_s = 2\n";
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
