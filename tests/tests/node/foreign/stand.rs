//! The node that foreign clients meet.

use bifro_tests::Broker;
use bifro_tests::tls::{Authority, Identity};
use serde_json::json;
use std::path::PathBuf;

/// Largest payload the node takes by default.
pub(super) const PAYLOAD_BYTES: usize = 262_144;

const CONFIG: &str = r#"
[acl]
file = "acl"
[auth.certificate]
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["anonymous"]
[[listener]]
protocol = "tls"
bind = "127.0.0.1:0"
auth = ["anonymous"]
tls = { certificate = "server.pem", key = "server.key" }
[[listener]]
protocol = "tls"
bind = "127.0.0.1:0"
auth = ["certificate"]
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem", client_auth = "required" }
[[listener]]
protocol = "ws"
bind = "127.0.0.1:0"
auth = ["anonymous"]
[[listener]]
protocol = "wss"
bind = "127.0.0.1:0"
auth = ["anonymous"]
tls = { certificate = "server.pem", key = "server.key" }
[[listener]]
protocol = "unix"
path = "bifro.sock"
"#;

const ACL: &str = "allow all by-user/%u/#\ndeny all by-user/#\nallow all #\n";

/// A node with every kind of listener, and the files its clients need.
pub(super) struct Stand {
    pub(super) broker: Broker,
    pub(super) authority: Authority,
    pub(super) alice: Identity,
}

impl Stand {
    pub(super) fn start() -> Self {
        let authority = Authority::new("the authority");
        let server = authority.issue("server", &["localhost", "127.0.0.1"], false);
        let alice = authority.issue("alice", &[], false);
        let authority_pem = authority.pem();
        let files: [(&str, &[u8]); 6] = [
            ("acl", ACL.as_bytes()),
            ("ca.pem", authority_pem.as_bytes()),
            ("server.pem", server.certificate.as_bytes()),
            ("server.key", server.key.as_bytes()),
            ("alice.pem", alice.certificate.as_bytes()),
            ("alice.key", alice.key.as_bytes()),
        ];
        Self { broker: Broker::start_with(2, CONFIG, &files), authority, alice }
    }

    /// A file beside the node's configuration.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.broker.dir.join(name)
    }

    /// Ports, by the name that the scripts in Python and JavaScript know a transport by, and the files, as JSON.
    pub(super) fn describe(&self) -> String {
        let port = |protocol: &str, nth: usize| self.broker.nth_address(protocol, nth).port();
        json!({
            "tcp": port("tcp", 0),
            "tls": port("tls", 0),
            "mtls": port("tls", 1),
            "ws": port("ws", 0),
            "wss": port("wss", 0),
            "unix": self.file("bifro.sock"),
            "ca": self.file("ca.pem"),
            "certificate": self.file("alice.pem"),
            "key": self.file("alice.key"),
            "payload_bytes": PAYLOAD_BYTES,
        })
        .to_string()
    }
}
