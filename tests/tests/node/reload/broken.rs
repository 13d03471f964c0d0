//! HOSTILE 10 and 26: a broken file of each kind at reload.

use super::load::Load;
use super::site::{ACL, Site};
use crate::auth::{admitted, login};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;

/// A way to break a file: its name, what is written into it, and what the log must say (besides the name).
struct Breakage {
    file: &'static str,
    content: Option<String>,
    says: &'static [&'static str],
}

fn breakages(site: &Site) -> Vec<Breakage> {
    let read = |name: &str| std::fs::read_to_string(site.broker.dir.join(name)).expect("a file");
    let other = site.authority.issue("other", &["localhost"], false);
    let config = read("node.toml");
    let broken = |file, content: String, says| Breakage { file, content: Some(content), says };
    vec![
        broken("acl", format!("{ACL}\npermit all #\n"), &["acl:5", "permit"]),
        broken("acl", format!("{ACL}allow all a/#/b\n"), &["acl:4", "a/#/b"]),
        broken("passwords", format!("{}dave:plaintext\n", read("passwords")), &["passwords:4", "hash"]),
        broken("passwords", format!("{0}{0}", read("passwords")), &["passwords:4", "second time"]),
        broken("server.pem", "no certificate".to_owned(), &["server.pem", "certificate"]),
        broken("server.key", "no key".to_owned(), &["server.key", "key"]),
        broken("server.key", other.key, &["server.", "key"]),
        broken("node.toml", format!("{config}\n[tenant_defaults\n"), &["node.toml:"]),
        broken("node.toml", format!("{config}\nno_such_key = 1\n"), &["node.toml:", "no_such_key"]),
        broken("node.toml", format!("{config}\nmaximum_qos = 3\n"), &["node.toml:", "maximum_qos", "3"]),
        Breakage { file: "acl", content: None, says: &["acl", "cannot be read"] },
        Breakage { file: "passwords", content: None, says: &["passwords", "cannot be read"] },
        Breakage { file: "server.pem", content: None, says: &["server.pem"] },
        Breakage { file: "node.toml", content: None, says: &["node.toml", "cannot be read"] },
    ]
}

#[test]
fn a_broken_file_of_each_kind_changes_nothing_and_is_named() {
    let site = Site::start();
    let load = Load::start(&site, 20);
    let certificate = site.server_certificate();
    let mut alice = admitted(site.broker.tcp(), "alice", "alice", "alice-password");
    assert_eq!(alice.subscribe("area/#", QoS::AtMostOnce), 0);
    // What must not come into force with the broken file.
    let renewed = site.authority.issue("renewed", &["localhost"], false);
    let tempting: [(&str, String); 3] = [
        ("acl", "allow all #\n".to_owned()),
        ("server.pem", renewed.certificate.clone()),
        ("server.key", renewed.key.clone()),
    ];
    for Breakage { file, content, says } in breakages(&site) {
        let good: Vec<_> = ["acl", "passwords", "server.pem", "server.key", "node.toml"]
            .map(|name| (name, std::fs::read_to_string(site.broker.dir.join(name)).expect("a file")))
            .into_iter()
            .collect();
        let tls_is_broken = file.starts_with("server.");
        for (name, content) in &tempting {
            let is_half_of_the_pair = name.starts_with("server.") && tls_is_broken;
            if *name != file && !is_half_of_the_pair {
                site.write(name, content);
            }
        }
        match &content {
            Some(content) => site.write(file, content),
            None => std::fs::remove_file(site.broker.dir.join(file)).expect("a file"),
        }
        let line = site.broker.reload();
        assert!(line.contains("reload refused, nothing has changed"), "{file}: {line}");
        for word in says {
            assert!(line.contains(word), "{file}: no {word:?} in {line}");
        }
        assert_eq!(site.server_certificate(), certificate, "{file}");
        assert_eq!(alice.publish_acked("elsewhere", b"x"), Reason::NOT_AUTHORIZED, "{file}");
        let entered = login(site.broker.tcp(), Version::V5, "still", Some(("alice", "alice-password")));
        entered.unwrap_or_else(|reason| panic!("{file}: {reason}")).disconnect();
        for (name, content) in good {
            site.write(name, &content);
        }
    }
    alice.publish("area/x", b"still here", QoS::AtMostOnce, false);
    alice.recv_publish();
    site.reload_succeeds();
    load.advance();
    load.finish();
}
