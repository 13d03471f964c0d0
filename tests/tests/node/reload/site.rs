//! The node that is reloaded, and the files it reads.

use crate::auth::password_file;
use bifro_tests::Broker;
use bifro_tests::tls::{Authority, client_config, dial};
use rustls::ClientConfig;
use std::sync::Arc;

/// Rules of the users: `load` has its own topics, `alice` an area, `admin` everything.
pub(super) const ACL: &str = "allow all user=load load/#\nallow all user=alice area/#\nallow all user=admin #\n";

pub(super) struct Site {
    pub(super) broker: Broker,
    pub(super) authority: Authority,
    pub(super) trust: Arc<ClientConfig>,
}

/// The configuration with this line among the tenants' settings and this log level.
fn config(setting: &str, level: &str) -> String {
    format!(
        r#"
[admin]
bind = "127.0.0.1:0"
[log]
format = "json"
level = "{level}"
[acl]
file = "acl"
[auth.password_file]
path = "passwords"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["password_file"]
[[listener]]
protocol = "tls"
bind = "127.0.0.1:0"
auth = ["password_file"]
tls = {{ certificate = "server.pem", key = "server.key" }}
[tenant_defaults]
{setting}
"#
    )
}

impl Site {
    pub(super) fn start() -> Self {
        let authority = Authority::new("the authority");
        let trust = client_config(&authority, None);
        let server = authority.issue("server", &["localhost"], false);
        let dir = bifro_tests::process::fresh_dir("reload");
        let passwords = password_file(&["load", "alice", "admin"]);
        let files: [(&str, &[u8]); 5] = [
            ("node.toml", &config("", "info").into_bytes()),
            ("acl", ACL.as_bytes()),
            ("passwords", &passwords),
            ("server.pem", server.certificate.as_bytes()),
            ("server.key", server.key.as_bytes()),
        ];
        for (name, content) in files {
            std::fs::write(dir.join(name), content).expect("a file for the broker");
        }
        Self { broker: Broker::start_in(2, dir), authority, trust }
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.broker.dir.join(name), content).expect("a file for the broker");
    }

    pub(super) fn configure(&self, setting: &str, level: &str) {
        self.write("node.toml", &config(setting, level));
    }

    pub(super) fn reload_succeeds(&self) {
        let line = self.broker.reload();
        assert!(line.contains("reload done\""), "{line}");
    }

    /// What a new TLS connection is shown.
    pub(super) fn server_certificate(&self) -> Vec<u8> {
        let stream = dial(self.broker.address("tls"), &self.trust).expect("the certificate is trusted");
        stream.conn.peer_certificates().expect("the handshake is complete")[0].to_vec()
    }
}
