//! Rows 26 and 30: files that say something else than they mean, at start and at reload.

use crate::arena::{Arena, MIB};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_tests::process::{binaries, fresh_dir};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the broker with a file, to check it or to start it. Returns whether it was content, and what it said.
fn run(dir: &Path, config: &[u8], check: bool) -> (bool, String) {
    fs::write(dir.join("node.toml"), config).expect("the test's directory");
    let mut command = Command::new(binaries().join("bifro-uring"));
    command.arg("--config").arg(dir.join("node.toml"));
    if check {
        command.arg("--check-config");
    }
    let output = command.stdin(Stdio::null()).output().expect("the broker's binary starts");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const LISTENER: &str = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";

/// No admin endpoint, so that nothing but the mistake is in the way of a start.
const NO_ADMIN: &str = "[admin]\nbind = \"\"\n";

/// Files with one mistake each, with the line and the key that the message has to name.
fn mistakes() -> Vec<(String, usize, &'static str)> {
    let after_listener = |text: &str, line: usize, key: &'static str| (format!("{LISTENER}{text}\n"), line, key);
    let plain = |text: &str, line: usize, key: &'static str| (format!("{text}\n"), line, key);
    vec![
        // Unknown.
        plain("[node]\ncores = 1\ncoers = 2", 3, "coers"),
        plain("[nod]\ncores = 1", 1, "nod"),
        after_listener("bakclog = 5", 4, "listener[0].bakclog"),
        after_listener("[tenant.acme]\nmaximum_qso = 1", 5, "tenant.acme.maximum_qso"),
        after_listener("[tenant.acme.quota]\ntotal = 1", 5, "total"),
        after_listener("[auth]\npassword = \"x\"", 5, "auth.password"),
        after_listener("[auth.password_file]\nfile = \"x\"", 5, "auth.password_file.file"),
        after_listener("[acl]\npath = \"x\"", 5, "acl.path"),
        after_listener("[log.events]\nno_such = \"off\"", 5, "no_such"),
        // Mistyped.
        plain("\n[node]\ncores = \"two\"", 3, "node.cores"),
        plain("[node]\ncores = 1.5", 2, "node.cores"),
        plain("node = 3", 1, "node"),
        after_listener("auth = \"anonymous\"", 4, "listener[0].auth"),
        after_listener("auth = [\"nobody\"]", 4, "listener[0].auth"),
        after_listener("[admin]\nbind = 9091", 5, "admin.bind"),
        plain("[[listener]]\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"", 2, "listener[0].protocol"),
        plain("[[listener]]\nprotocol = \"tcp\"\nbind = \"localhost\"", 3, "listener[0].bind"),
        // Missing.
        plain("[[listener]]\nbind = \"127.0.0.1:0\"", 1, "protocol"),
        plain("[[listener]]\nprotocol = \"tcp\"", 1, "listener[0].bind"),
        plain("[[listener]]\nprotocol = \"tcp\"\nbind = \"0.0.0.0:0\"", 1, "listener[0].auth"),
        plain("[[listener]]\nprotocol = \"tls\"\nbind = \"127.0.0.1:0\"", 1, "listener[0].tls"),
        after_listener("[auth.password_file]", 4, "path"),
        // Twice, and no TOML at all.
        plain("[node]\ncores = 1\ncores = 2", 3, ""),
        plain("[node\ncores = 1", 1, ""),
        plain("[node]\ncores =", 2, ""),
    ]
}

#[test]
fn row_26_a_configuration_with_a_mistake_is_refused_with_file_line_and_key() {
    let dir = fresh_dir("config");
    assert_eq!(run(&dir, LISTENER.as_bytes(), true), (true, String::new()));
    for (config, line, key) in mistakes() {
        let (content, told) = run(&dir, config.as_bytes(), true);
        assert!(!content, "accepted:\n{config}");
        assert!(
            told.contains(&format!("node.toml:{line}")) && told.contains(key),
            "{config}\nexpected line {line}, {key}: {told}"
        );
    }
    for (config, word) in
        [(&b"\xFF\xFE[node]"[..], "node.toml"), (b"[node]\0", "node.toml"), (b"\xEF\xBB\xBF[nod]", "nod")]
    {
        let (content, told) = run(&dir, config, true);
        assert!(!content && told.contains(word), "{config:?}: {told}");
    }
    fs::remove_dir_all(&dir).expect("the test's directory");
}

#[test]
fn row_26_a_broker_does_not_start_with_what_its_check_refuses() {
    let dir = fresh_dir("config");
    for (config, line, key) in mistakes().into_iter().step_by(5) {
        let (content, told) = run(&dir, config.as_bytes(), false);
        assert!(!content && told.contains(&format!("node.toml:{line}")) && told.contains(key), "{config}: {told}");
    }
    // Files that the configuration names.
    let missing = format!("{NO_ADMIN}{LISTENER}[acl]\nfile = \"nowhere\"\n");
    let users = format!("{NO_ADMIN}{LISTENER}auth = [\"password_file\"]\n[auth.password_file]\npath = \"users\"\n");
    let acl = format!("{NO_ADMIN}{LISTENER}[acl]\nfile = \"acl\"\n");
    fs::write(dir.join("users"), "# users\nalice\n").expect("the test's directory");
    fs::write(dir.join("acl"), "allow all #\n\nallow all a/#/b\n").expect("the test's directory");
    let unconfigured = format!("{NO_ADMIN}{LISTENER}auth = [\"password_file\"]\n");
    for (config, words) in
        [(missing, "nowhere"), (users, "users:2: "), (acl, "acl:3: "), (unconfigured, "password_file")]
    {
        for check in [true, false] {
            let (content, told) = run(&dir, config.as_bytes(), check);
            assert!(!content && told.contains(words), "{config}: {told}");
        }
    }
    let (content, told) = run(Path::new(&dir), b"", true);
    assert!(content, "an empty file is all defaults: {told}");
    fs::remove_dir_all(&dir).expect("the test's directory");
}

#[test]
fn row_30_zero_where_it_would_divide_or_mean_nothing_is_refused() {
    let dir = fresh_dir("config");
    let keys = [
        ("[admin]", "stall_s"),
        ("[limits]", "ring_buffers"),
        ("[limits]", "ring_buffer_bytes"),
        ("[limits]", "mesh_capacity"),
        ("[limits]", "write_high_water_bytes"),
        ("[limits]", "slow_subscriber_s"),
        ("[limits]", "publish_deadline_ms"),
        ("[limits]", "takeover_deadline_ms"),
        ("[limits]", "match_cache_topics"),
        ("[limits]", "turn_bytes"),
        ("[[listener]]\nprotocol = \"tcp\"", "connections_max"),
        ("[[listener]]\nprotocol = \"tcp\"", "connect_deadline_s"),
        ("[[listener]]\nprotocol = \"tcp\"", "pre_auth_packet_bytes_max"),
        ("[[listener]]\nprotocol = \"tcp\"", "backlog"),
        ("[tenant_defaults]", "topic_level_bytes_max"),
        ("[tenant_defaults]", "topic_levels_max"),
        ("[tenant_defaults]", "topic_bytes_max"),
        ("[tenant_defaults]", "shared_group_members_max"),
        ("[tenant_defaults]", "subscriptions_per_session_max"),
        ("[tenant_defaults]", "receive_maximum"),
        ("[tenant_defaults]", "send_maximum"),
        ("[tenant_defaults]", "payload_bytes_max"),
        ("[tenant_defaults]", "filters_per_packet_max"),
        ("[tenant_defaults]", "inbox_messages_max"),
        ("[tenant_defaults]", "inbox_bytes_max"),
        ("[tenant.acme]", "receive_maximum"),
        ("[auth]", "hash_threads"),
        ("[auth]", "hash_queue_max"),
    ];
    for (table, key) in keys {
        for value in ["0", "-1"] {
            let config = format!("{table}\n{key} = {value}\n");
            let line = config.lines().count();
            let (content, told) = run(&dir, config.as_bytes(), true);
            assert!(!content, "accepted: {config}");
            assert!(told.contains(key), "{config}: {told}");
            assert!(told.contains(&format!("node.toml:{line}")), "{config}: no line: {told}");
        }
    }
    fs::remove_dir_all(&dir).expect("the test's directory");
}

/// Zero is documented as "unlimited" or "off" for these: a node with all of them works.
#[test]
fn row_30_zero_where_it_means_unlimited_works() {
    let zeros = "connections_per_ip_max = 0\nconnects_per_s_max = 0\n[node]\nmemory_budget_mib = 0\nspin_us = 0\n\
                 [limits]\n[tenant_defaults]\npublish_rate_max = 0\ninbound_bytes_per_s_max = 0\n\
                 outbound_bytes_per_s_max = 0\nresend_timeout_s = 0\nresend_times_max = 0\ngroup_fanout_max = 0\n\
                 persistent_fanout_max = 0\npersistent_fanout_bytes_max = 0\nsession_expiry_max_s = 0\n\
                 keep_alive_min_s = 0\nretained_matches_max = 0\nretained_match_bytes_max = 0\ntopic_alias_max = 0\n\
                 will_bytes_max = 0\n[tenant_defaults.quota]\ntotal_connections = 0\ntotal_inbound_bytes_per_second = 0\n";
    let mut arena = Arena::with(zeros);
    let mut client = arena.client(Version::V5, "client");
    assert_eq!(client.subscribe("row30", QoS::ExactlyOnce), 2);
    client.publish("row30", b"x", QoS::AtMostOnce, true);
    client.recv_publish();
    arena.check();
    arena.finish(16 * MIB);
}

#[test]
fn row_26_a_reload_of_a_broken_file_keeps_everything_and_names_the_line() {
    let mut arena = Arena::with("[tenant_defaults]\nmaximum_qos = 1\n");
    let path = arena.broker.dir.join("node.toml");
    let good = fs::read_to_string(&path).expect("the broker has read it");
    let lines = good.lines().count();
    let mut client = arena.client(Version::V5, "client");
    assert_eq!(client.subscribe("row26", QoS::ExactlyOnce), 1, "Maximum QoS is 1");
    // What would be better is in the same file as what is wrong, so nothing of it may be taken.
    let better = good.replace("maximum_qos = 1", "maximum_qos = 2");
    let broken = [
        ("no_such_key = 1", "no_such_key"),
        ("receive_maximum = 0", "receive_maximum"),
        ("receive_maximum = \"many\"", "receive_maximum"),
        ("[tenant_defaults.quota]\n[no_such_table]", "no_such_table"),
        ("= 5", ""),
    ];
    for (text, key) in broken {
        fs::write(&path, format!("{}\n{text}\n", better.trim_end())).expect("the broker's directory");
        let told = arena.broker.reload();
        let line = good.trim_end().lines().count() + text.lines().count();
        assert!(
            told.contains("reload refused") && told.contains(&format!("node.toml:{line}")),
            "{lines} {text}: {told}"
        );
        assert!(told.contains(key), "{told}");
        let mut fresh = arena.client(Version::V5, "fresh");
        assert_eq!(fresh.subscribe("row26/fresh", QoS::ExactlyOnce), 1, "{text}");
        client.expect_silence();
        arena.check();
    }
    fs::remove_file(&path).expect("written before");
    let told = arena.broker.reload();
    assert!(told.contains("reload refused") && told.contains("cannot be read"), "{told}");
    fs::write(&path, &better).expect("the broker's directory");
    let told = arena.broker.reload();
    assert!(told.contains("reload done"), "{told}");
    let mut fresh = arena.client(Version::V5, "fresh");
    assert_eq!(fresh.subscribe("row26/fresh", QoS::ExactlyOnce), 2);
    arena.finish(16 * MIB);
}
