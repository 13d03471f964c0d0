//! Rows 8, 10 and 11: names that would change what a rule means, files that say nothing or nonsense, and wills as a back door.

use crate::arena::{Arena, MIB, VERSIONS, expect_refused};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions};
use std::fs;

/// Hash of the password `secret`, cheap on purpose.
pub(crate) const PASSWORD_SECRET: &str =
    "$argon2id$v=19$m=8,t=1,p=1$eaD3zC23nzsiNaBLUva+5Q$2MbNdjj9PtjRchz7aK7LJpveiPUSG5kIHk1TvQI2OSU";

/// What the bystander needs.
const BYSTANDER: &str =
    "allow all client=bystander-subscriber bystander/#\nallow all client=bystander-publisher bystander/#\n";

/// Anonymous clients on the first listener, those with a password on the second; rules in `acl`.
const CONFIG: &str = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"anonymous\"]\n\
                      [[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\nauth = [\"password_file\"]\n\
                      [auth.password_file]\npath = \"users\"\n[acl]\nfile = \"acl\"\n";

/// Starts a broker with these rules, the bystander's apart, and these users, all with the password `secret`.
pub(crate) fn guarded(rules: &str, users: &[&str]) -> Arena {
    let acl = format!("{BYSTANDER}{rules}");
    let users: String = users.iter().map(|user| format!("{user}:{PASSWORD_SECRET}\n")).collect();
    Arena::around(Broker::start_with(2, CONFIG, &[("acl", acl.as_bytes()), ("users", users.as_bytes())]))
}

/// Replaces the rules, the bystander's apart, and has the broker read them.
pub(crate) fn replace_rules(arena: &Arena, rules: &str) -> String {
    fs::write(arena.broker.dir.join("acl"), format!("{BYSTANDER}{rules}")).expect("the broker's directory");
    arena.broker.reload()
}

fn as_user(arena: &Arena, version: Version, user: &str, password: &str) -> (Client, ConnectOptions) {
    let mut options = ConnectOptions::new(version, "some device");
    options.credentials = Some((user.into(), password.into()));
    (Client::open(arena.broker.nth_address("tcp", 1), version), options)
}

fn login(arena: &Arena, version: Version, user: &str) -> Client {
    let (mut client, options) = as_user(arena, version, user, "secret");
    client.send_bytes(&options.encode());
    let received = client.recv();
    assert!(
        matches!(received.packet(), bifro_mqtt::packet::Packet::ConnAck(ack) if ack.reason == Reason::SUCCESS),
        "{user}: {received:?}"
    );
    client
}

/// What SUBACK says to someone without permission.
fn denied(version: Version) -> u8 {
    if version == Version::V5 { Reason::NOT_AUTHORIZED.0 } else { 0x80 }
}

/// What PUBACK says to someone without permission.
fn refused(version: Version) -> Reason {
    if version == Version::V5 { Reason::NOT_AUTHORIZED } else { Reason::SUCCESS }
}

#[test]
fn row_08_a_wildcard_or_slash_in_a_client_id_or_user_name_widens_no_rule() {
    let mut arena = guarded("allow all clients/%c/#\nallow all users/%u/#\n", &["+", "#a", "alice", "a+b"]);
    for version in VERSIONS {
        for client_id in ["+", "#", "+/+", "alice/secret", "a/#", "/"] {
            let mut client = Client::connect(arena.tcp(), version, client_id);
            for filter in ["clients/#", "clients/+/x", "clients/alice/secret", "clients/+/#"] {
                assert_eq!(client.subscribe(filter, QoS::AtMostOnce), denied(version), "{client_id} to {filter}");
            }
            if !client_id.contains('#') {
                assert_eq!(client.subscribe(&format!("clients/{client_id}/x"), QoS::AtMostOnce), denied(version));
            }
            assert_eq!(client.publish_acked("clients/alice/x", b""), refused(version), "{client_id}");
            client.disconnect();
        }
        for user in ["+", "a+b"] {
            let mut client = login(&arena, version, user);
            for filter in ["users/#", "users/+/x", "users/alice/x", "users/+/#"] {
                assert_eq!(client.subscribe(filter, QoS::AtMostOnce), denied(version), "{user} to {filter}");
            }
            client.disconnect();
        }
        // The same rules give everybody else what is theirs.
        let mut alice = login(&arena, version, "alice");
        assert_eq!(alice.subscribe("users/alice/#", QoS::AtMostOnce), 0);
        assert_eq!(alice.subscribe("clients/some device/#", QoS::AtMostOnce), 0);
        assert_eq!(alice.subscribe("users/bob/#", QoS::AtMostOnce), denied(version));
        alice.disconnect();
    }
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_08_a_wildcard_in_a_client_id_makes_no_hole_in_a_deny() {
    let mut arena = guarded("deny all private/%c/#\nallow all #\n", &["alice"]);
    for version in VERSIONS {
        for client_id in ["+", "#", "a/b", "bob"] {
            let mut client = Client::connect(arena.tcp(), version, client_id);
            assert_eq!(client.subscribe("private/bob/x", QoS::AtMostOnce), denied(version), "{client_id}");
            assert_eq!(client.publish_acked("private/bob/x", b""), refused(version), "{client_id}");
            assert_eq!(client.subscribe("open/x", QoS::AtMostOnce), 0);
            client.disconnect();
        }
    }
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_10_an_empty_acl_file_allows_nothing() {
    let mut arena = guarded("# nothing but the bystander's rules\n\n   \n", &["alice"]);
    for version in VERSIONS {
        let mut client = login(&arena, version, "alice");
        for filter in ["#", "a", "$SYS/#", "$share/g/a"] {
            assert_eq!(client.subscribe(filter, QoS::AtMostOnce), denied(version), "{filter}");
        }
        assert_eq!(client.publish_acked("a", b""), refused(version));
        client.disconnect();
    }
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_10_a_reload_of_an_empty_acl_file_takes_every_permission_away() {
    let mut arena = guarded("allow all #\n", &["alice"]);
    let mut alice = login(&arena, Version::V5, "alice");
    assert_eq!(alice.subscribe("row10", QoS::AtMostOnce), 0);
    assert!(replace_rules(&arena, "").contains("reload done"));
    assert_eq!(alice.subscribe("row10/more", QoS::AtMostOnce), denied(Version::V5));
    assert_eq!(alice.publish_acked("row10", b""), Reason::NOT_AUTHORIZED);
    alice.expect_silence();
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_10_a_reload_of_a_malformed_file_keeps_what_was_in_force_and_names_the_line() {
    let mut arena = guarded("allow all user=alice #\n", &["alice"]);
    let users = arena.broker.dir.join("users");
    let good = fs::read_to_string(&users).expect("written before");
    let mallory = format!("mallory:{PASSWORD_SECRET}\n");
    let malformed = ["bob\n", "bob:plain\n", "bob:$argon2id$v=19$m=8\n", ":x\n", "alice:x:y\n", "\u{0}\n", "alice:\n"];
    for line in malformed {
        fs::write(&users, format!("{mallory}{line}{good}")).expect("the broker's directory");
        let told = arena.broker.reload();
        assert!(told.contains("reload refused") && told.contains("users:2: "), "{line:?}: {told}");
        assert_eq!(login(&arena, Version::V5, "alice").subscribe("row10", QoS::AtMostOnce), 0);
        let (mut client, options) = as_user(&arena, Version::V5, "mallory", "secret");
        client.send_bytes(&options.encode());
        expect_refused(&mut client, Some(Reason::BAD_USER_NAME_OR_PASSWORD));
    }
    fs::write(&users, &good).expect("the broker's directory");
    for line in
        ["permit all #", "allow all", "allow all a/#/b", "allow everything #", "allow all \"open", "deny all peer=x #"]
    {
        let told = replace_rules(&arena, &format!("allow all #\n{line}\n"));
        assert!(told.contains("reload refused") && told.contains("acl:4: "), "{line:?}: {told}");
        let mut stranger = Client::connect(arena.tcp(), Version::V5, "stranger");
        assert_eq!(stranger.subscribe("row10", QoS::AtMostOnce), denied(Version::V5), "{line:?}");
    }
    fs::remove_file(arena.broker.dir.join("acl")).expect("written before");
    let told = arena.broker.reload();
    assert!(told.contains("reload refused") && told.contains("acl: cannot be read"), "{told}");
    assert_eq!(login(&arena, Version::V311, "alice").subscribe("row10", QoS::AtMostOnce), 0);
    arena.check();
    arena.finish(32 * MIB);
}

/// Lets the process open files up to number `soft`; returns what it was before.
fn limit_descriptors(pid: u32, soft: u64) -> u64 {
    let pid = i32::try_from(pid).expect("a pid");
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit, and a null new limit only asks.
    let asked = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut before) };
    assert_eq!(asked, 0);
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: before.rlim_max };
    // SAFETY: both pointers are valid or null; the process is the broker we started.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    before.rlim_cur
}

#[test]
fn row_10_a_reload_without_free_descriptors_keeps_what_was_in_force() {
    let mut arena = guarded("deny all #\n", &["alice"]);
    let before = limit_descriptors(arena.broker.pid(), 0);
    let told = replace_rules(&arena, "allow all #\n");
    assert!(told.contains("reload refused") && told.contains("cannot be read"), "{told}");
    limit_descriptors(arena.broker.pid(), before);
    arena.check();
    let mut alice = login(&arena, Version::V5, "alice");
    assert_eq!(alice.subscribe("row10", QoS::AtMostOnce), denied(Version::V5));
    // With descriptors it works.
    assert!(arena.broker.reload().contains("reload done"));
    assert_eq!(alice.subscribe("row10", QoS::AtMostOnce), 0);
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_11_a_will_that_its_client_may_not_publish_is_refused_at_connect() {
    let mut arena = guarded("deny publish control/#\nallow all #\n", &["alice"]);
    let mut witness = Client::connect(arena.tcp(), Version::V5, "witness");
    assert_eq!(witness.subscribe("control/#", QoS::AtMostOnce), 0);
    for version in VERSIONS {
        // A leading wildcard does not reach what starts with a dollar.
        for topic in ["control/stop", "$SYS/broker/uptime", "$share/g/t"] {
            for (retain, qos) in [(false, QoS::AtMostOnce), (true, QoS::ExactlyOnce)] {
                let mut options = ConnectOptions::new(version, "offender");
                options.will = Some((topic.into(), b"will".to_vec(), qos, retain, Vec::new()));
                let mut client = Client::open(arena.tcp(), version);
                client.send_bytes(&options.encode());
                expect_refused(&mut client, Some(Reason::NOT_AUTHORIZED));
            }
        }
        let mut options = ConnectOptions::new(version, "fine");
        options.will = Some(("last/words".into(), b"will".to_vec(), QoS::AtMostOnce, false, Vec::new()));
        Client::connect_with(arena.tcp(), &options).0.disconnect();
    }
    witness.expect_silence();
    arena.check();
    arena.finish(32 * MIB);
}

#[test]
fn row_11_a_will_whose_permission_is_revoked_before_it_is_due_is_not_published() {
    let mut arena = guarded("allow all #\n", &["alice"]);
    let mut witness = Client::connect(arena.tcp(), Version::V5, "witness");
    assert_eq!(witness.subscribe("row11/#", QoS::AtMostOnce), 0);
    let mut options = ConnectOptions::new(Version::V311, "mortal");
    options.will = Some(("row11/will".into(), b"will".to_vec(), QoS::AtMostOnce, false, Vec::new()));
    let (mortal, _) = Client::connect_with(arena.tcp(), &options);
    let told = replace_rules(&arena, "deny publish row11/will\nallow all #\n");
    assert!(told.contains("reload done"), "{told}");
    arena.check();
    drop(mortal);
    arena.broker.wait_for_metric("bifro_sessions", |sessions| sessions <= 3.0);
    let mut publisher = Client::connect(arena.tcp(), Version::V311, "publisher");
    publisher.publish_acked("row11/after", b"");
    let received = witness.recv_publish();
    assert!(
        matches!(received.packet(), bifro_mqtt::packet::Packet::Publish(publish) if publish.topic == "row11/after"),
        "{received:?}"
    );
    arena.finish(32 * MIB);
}
