//! Who may do what, under rules as operators write them.

use super::*;
use crate::auth::testing::TempFile;
use bifro_core::client::{Peer, Transport, Version};

fn peer(ip: &str) -> Option<Peer> {
    Some(Peer { ip: ip.parse().expect("an address"), port: 5000 })
}

fn client(user: &str, client_id: &str) -> ClientInfo {
    ClientInfo {
        tenant: "acme".into(),
        user: user.into(),
        client_id: client_id.into(),
        version: Version::V5,
        transport: Transport::Tcp,
        peer: peer("10.1.2.3"),
        rules: [].into(),
        expires_at: None,
    }
}

fn acl(text: &str) -> AclAuthorizer {
    let file = TempFile::new(text);
    AclAuthorizer::load(&AclConfig { file: Some(file.path().to_owned()) }).expect("loads")
}

fn rule(effect: Effect, action: Option<Action>, pattern: &str) -> Rule {
    Rule { effect, action, pattern: pattern.into() }
}

use Action::{Publish, Subscribe};
use Verdict::{Allowed, Denied, Partly};

#[test]
fn without_any_rules_everything_is_allowed() {
    let open = AclAuthorizer::load(&AclConfig::default()).expect("nothing to load");
    for topic in ["a", "#", "$SYS/#"] {
        assert_eq!(open.check(&client("", "c"), Subscribe, topic), Allowed);
    }
}

/// HOSTILE 10.
#[test]
fn a_file_without_rules_denies_everything() {
    for text in ["", "\n\n", "# nothing\n   # here\n"] {
        let closed = acl(text);
        assert_eq!(closed.check(&client("alice", "c"), Publish, "a"), Denied);
        assert_eq!(closed.check(&client("alice", "c"), Subscribe, "#"), Denied);
    }
}

/// HOSTILE 10.
#[test]
fn a_malformed_line_or_an_unreadable_file_loads_nothing() {
    let file = TempFile::new("allow all #\n\nallow sometimes #\n");
    let error = AclAuthorizer::check_file(file.path()).expect_err("line 3 is malformed").to_string();
    assert!(error.contains(":3: ") && error.contains("`publish`, `subscribe` or `all`"), "{error}");
    let config = AclConfig { file: Some("/nonexistent/acl".into()) };
    assert!(AclAuthorizer::load(&config).expect_err("no such file").to_string().contains("cannot be read"));
    assert!(AclAuthorizer::check_file(TempFile::bytes(b"allow all \xff\n").path()).is_err());
}

#[test]
fn the_first_rule_that_applies_decides() {
    let acl = acl("deny publish a/private/#\nallow publish a/#\ndeny all a/b\nallow subscribe a/#\n");
    let alice = client("alice", "c");
    for (action, topic, verdict) in [
        (Publish, "a/private/x", Denied),
        (Publish, "a/b", Allowed),
        (Subscribe, "a/b", Denied),
        (Subscribe, "a/c", Allowed),
        (Subscribe, "a/private/x", Allowed),
        (Publish, "b", Denied),
    ] {
        assert_eq!(acl.check(&alice, action, topic), verdict, "{action:?} {topic}");
    }
}

#[test]
fn conditions_choose_whom_a_rule_is_for_and_keep_the_files_order() {
    let acl = acl("deny all user=bob a/bob\n\
                   allow all client=gateway a/#\n\
                   allow all user=alice tenant=acme a/alice/#\n\
                   allow all user=alice tenant=other b/#\n\
                   allow publish peer=10.0.0.0/8 c\n\
                   allow all user=\"\" public\n\
                   deny all client=gateway x\n\
                   allow all user=bob client=gateway x\n\
                   allow all user=bob a/#\n");
    for (user, id, topic, verdict) in [
        ("bob", "c", "a/bob", Denied),
        ("bob", "gateway", "a/bob", Denied),
        ("bob", "c", "a/x", Allowed),
        ("carol", "gateway", "a/bob", Allowed),
        ("alice", "c", "a/alice/x", Allowed),
        ("alice", "c", "b/x", Denied),
        ("carol", "c", "c", Allowed),
        ("", "c", "public", Allowed),
        ("alice", "c", "public", Denied),
        ("bob", "gateway", "x", Denied),
    ] {
        assert_eq!(acl.check(&client(user, id), Publish, topic), verdict, "{user} {id} {topic}");
    }
    let mut elsewhere = client("carol", "c");
    elsewhere.peer = peer("192.0.2.1");
    assert_eq!(acl.check(&elsewhere, Publish, "c"), Denied);
    elsewhere.peer = None;
    assert_eq!(acl.check(&elsewhere, Publish, "c"), Denied);
}

#[test]
fn names_stand_in_for_placeholders() {
    let acl = acl("allow publish %t/%u/%c/up\nallow subscribe \"100%/%x/#\"\nallow all dev-%c-x\n");
    let meter = client("alice", "m7");
    assert_eq!(acl.check(&meter, Publish, "acme/alice/m7/up"), Allowed);
    assert_eq!(acl.check(&meter, Publish, "acme/alice/m8/up"), Denied);
    assert_eq!(acl.check(&meter, Subscribe, "100%/%x/a"), Allowed);
    assert_eq!(acl.check(&meter, Publish, "dev-m7-x"), Allowed);
    let long = client("alice", &"m".repeat(1_000));
    assert_eq!(acl.check(&long, Publish, &format!("acme/alice/{}/up", long.client_id)), Allowed);
}

/// HOSTILE 8: CVE-2017-7650.
#[test]
fn names_with_wildcards_or_slashes_open_nothing() {
    let acl = acl("allow all user/%u/#\nallow all id/%c\nallow all %c/own\n");
    for name in ["#", "+", "a/b", "a+", "+/+", "/", "", "x/#"] {
        let hostile = client(name, name);
        for topic in ["user/alice/x", "id/alice", "user//x", "id/", "id/a/b", "user/a/b", "alice/own", "/own", "id/a+"]
        {
            assert_eq!(acl.check(&hostile, Publish, topic), Denied, "{name:?} publishes to {topic}");
            assert_eq!(acl.check(&hostile, Subscribe, topic), Denied, "{name:?} subscribes to {topic}");
        }
        for filter in ["user/#", "user/+/#", "id/+", "#", "+/own"] {
            assert_eq!(acl.check(&hostile, Subscribe, filter), Denied, "{name:?} subscribes to {filter}");
        }
    }
    assert_eq!(acl.check(&client("alice", "$SYS"), Publish, "$SYS/own"), Denied);
    assert_eq!(acl.check(&client("alice", "$SYS"), Publish, "id/$SYS"), Allowed);
}

/// HOSTILE 8: and a deny with such a name denies more, not less.
#[test]
fn names_with_wildcards_or_slashes_do_not_escape_a_deny() {
    let acl = acl("deny publish lock/%c/cmd\nallow all #\n");
    assert_eq!(acl.check(&client("a", "c1"), Publish, "lock/c1/cmd"), Denied);
    assert_eq!(acl.check(&client("a", "c1"), Publish, "lock/c2/cmd"), Allowed);
    for name in ["+", "#", "x/y", ""] {
        assert_eq!(acl.check(&client("a", name), Publish, "lock/c1/cmd"), Denied, "{name:?}");
        assert_eq!(acl.check(&client("a", name), Publish, "other"), Allowed, "{name:?}");
    }
}

#[test]
fn a_subscription_is_allowed_only_as_a_whole() {
    let acl = acl("allow subscribe a/+\nallow subscribe b/#\n");
    let alice = client("alice", "c");
    for (filter, verdict) in [
        ("a/x", Allowed),
        ("a/+", Allowed),
        ("a/#", Denied),
        ("b/#", Allowed),
        ("b", Allowed),
        ("+/x", Denied),
        ("#", Denied),
    ] {
        assert_eq!(acl.check(&alice, Subscribe, filter), verdict, "{filter}");
    }
}

#[test]
fn a_deny_that_overlaps_makes_each_delivery_a_question() {
    let acl = acl("deny subscribe a/secret/#\nallow subscribe a/#\n");
    let alice = client("alice", "c");
    assert_eq!(acl.check(&alice, Subscribe, "a/#"), Partly);
    assert_eq!(acl.check(&alice, Subscribe, "a/+/x"), Partly);
    assert_eq!(acl.check(&alice, Subscribe, "a/open/#"), Allowed);
    assert_eq!(acl.check(&alice, Subscribe, "a/secret/#"), Denied);
    assert_eq!(acl.check(&alice, Subscribe, "a/secret/x"), Denied, "a delivery");
    assert_eq!(acl.check(&alice, Subscribe, "a/open/x"), Allowed, "a delivery");
}

#[test]
fn denials_reach_dollar_topics_and_permissions_do_not() {
    let open = acl("allow all #\n");
    let alice = client("alice", "c");
    assert_eq!(open.check(&alice, Subscribe, "$SYS/#"), Denied);
    assert_eq!(open.check(&alice, Publish, "$SYS/x"), Denied);
    let closed = acl("deny all #\nallow all $SYS/#\n");
    for topic in ["$SYS/#", "$SYS/x", "$SYS", "$", "a", "#"] {
        assert_eq!(closed.check(&alice, Subscribe, topic), Denied, "{topic}");
    }
    let except = acl("deny all +/x\nallow all $SYS/#\n");
    assert_eq!(except.check(&alice, Subscribe, "$SYS/#"), Partly);
    assert_eq!(except.check(&alice, Subscribe, "$SYS/y"), Allowed);
}

#[test]
fn a_clients_own_rules_come_before_the_file() {
    let acl = acl("deny all a\nallow all b\n");
    let mut alice = client("alice", "c");
    alice.rules = [rule(Effect::Allow, Some(Publish), "a"), rule(Effect::Deny, None, "b")].into();
    assert_eq!(acl.check(&alice, Publish, "a"), Allowed);
    assert_eq!(acl.check(&alice, Subscribe, "a"), Denied);
    assert_eq!(acl.check(&alice, Publish, "b"), Denied);
}

/// HOSTILE 9: what a token lists is all there is, whatever the file or its absence would allow.
#[test]
fn a_closed_list_leaves_nothing_to_others() {
    let mut alice = client("alice", "c1");
    alice.rules = [rule(Effect::Allow, Some(Subscribe), "a/%c/#"), rule(Effect::Deny, None, "#")].into();
    for acl in [acl("allow all #\nallow all $SYS/#\n"), AclAuthorizer::default()] {
        assert_eq!(acl.check(&alice, Subscribe, "a/c1/x"), Allowed);
        assert_eq!(acl.check(&alice, Subscribe, "a/c1/#"), Allowed);
        for topic in ["a/c2/x", "a/#", "$SYS/x", "b"] {
            assert_eq!(acl.check(&alice, Subscribe, topic), Denied, "{topic}");
        }
        assert_eq!(acl.check(&alice, Publish, "a/c1/x"), Denied);
    }
    let mut listed = client("alice", "c1");
    listed.rules = [rule(Effect::Allow, None, "a")].into();
    assert_eq!(AclAuthorizer::default().check(&listed, Publish, "b"), Denied, "rules, but none applies");
}

/// HOSTILE 9: a new file is a new authorizer, and what it takes away is gone for existing clients.
#[test]
fn a_permission_that_a_new_file_lacks_is_revoked() {
    let file = TempFile::new("allow all a/#\n");
    let config = AclConfig { file: Some(file.path().to_owned()) };
    let before = AclAuthorizer::load(&config).expect("loads");
    file.rewrite("allow all b/#\n");
    let after = AclAuthorizer::load(&config).expect("loads");
    let alice = client("alice", "c");
    assert_eq!((before.check(&alice, Subscribe, "a/x"), after.check(&alice, Subscribe, "a/x")), (Allowed, Denied));
}

#[test]
fn a_large_file_is_found_by_name() {
    let mut text = String::from("deny all secret\n");
    for n in 0..50_000 {
        text.push_str(&format!("allow all user=u{n} home/u{n}/#\n"));
    }
    let acl = acl(&text);
    assert_eq!(acl.check(&client("u49999", "c"), Publish, "home/u49999/x"), Allowed);
    assert_eq!(acl.check(&client("u49999", "c"), Publish, "home/u1/x"), Denied);
    assert_eq!(acl.file.as_ref().map(|file| file.rules_for(&client("u7", "c")).count()), Some(2));
}
