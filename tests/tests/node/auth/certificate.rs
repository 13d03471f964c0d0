//! The client certificate names the user.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::reason::Reason;
use bifro_tests::tls::{Authority, Identity, client_config, dial};
use bifro_tests::{Broker, Client, ConnectOptions};
use std::net::SocketAddr;

const CONFIG: &str = r#"
[acl]
file = "acl"
[auth.certificate]
tenant = "devices"
[[listener]]
protocol = "tls"
bind = "127.0.0.1:0"
auth = ["certificate"]
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem", client_auth = "required" }
[[listener]]
protocol = "tls"
bind = "127.0.0.1:0"
auth = ["certificate", "anonymous"]
tls = { certificate = "server.pem", key = "server.key", client_ca = "ca.pem", client_auth = "optional" }
"#;

const ACL: &str = "allow all tenant=devices %t/%u/#\nallow all user=\"\" anonymous/#\n";

struct Site {
    broker: Broker,
    authority: Authority,
}

impl Site {
    fn start() -> Self {
        let authority = Authority::new("the authority");
        let server = authority.issue("server", &["localhost"], false);
        let pem = authority.pem();
        let files: [(&str, &[u8]); 4] = [
            ("acl", ACL.as_bytes()),
            ("ca.pem", pem.as_bytes()),
            ("server.pem", server.certificate.as_bytes()),
            ("server.key", server.key.as_bytes()),
        ];
        Self { broker: Broker::start_with(1, CONFIG, &files), authority }
    }

    fn required(&self) -> SocketAddr {
        self.broker.nth_address("tls", 0)
    }

    fn optional(&self) -> SocketAddr {
        self.broker.nth_address("tls", 1)
    }

    /// None if the connection ends before an answer to CONNECT: the broker refuses the certificate.
    fn connect(&self, address: SocketAddr, identity: Option<&Identity>) -> Option<Result<Client, Reason>> {
        let stream = dial(address, &client_config(&self.authority, identity)).ok()?;
        let mut client = Client::over(Box::new(stream), Version::V5);
        client.send_bytes(&ConnectOptions::new(Version::V5, "c").encode());
        let received = client.try_recv()?;
        let bifro_mqtt::packet::Packet::ConnAck(ack) = received.packet() else { panic!("{received:?}") };
        Some(if ack.reason.is_error() { Err(ack.reason) } else { Ok(client) })
    }
}

#[test]
fn the_common_name_is_the_user() {
    let site = Site::start();
    let alice = site.authority.issue("alice", &[], false);
    let mut client = site.connect(site.required(), Some(&alice)).expect("an answer").expect("admitted");
    assert_eq!(client.subscribe("devices/alice/#", QoS::AtLeastOnce), 1);
    assert_eq!(client.subscribe("devices/bob/#", QoS::AtLeastOnce), 0x87);
    assert_eq!(client.publish_acked("devices/bob/x", b""), Reason::NOT_AUTHORIZED);
    client.disconnect();
}

/// HOSTILE 8: names that would change a pattern's meaning substitute nothing.
#[test]
fn a_common_name_with_wildcards_opens_nothing() {
    let site = Site::start();
    for name in ["+", "#", "alice/bob", "$SYS"] {
        let identity = site.authority.issue(name, &[], false);
        let mut client = site.connect(site.required(), Some(&identity)).expect("an answer").expect("admitted");
        for filter in ["devices/+/#", "devices/#", "#", "devices/alice/#", "devices/alice/bob/#"] {
            assert_eq!(client.subscribe(filter, QoS::AtLeastOnce), 0x87, "{name:?} {filter}");
        }
        client.disconnect();
    }
}

/// HOSTILE 31: expired, self-signed and absent client certificates.
#[test]
fn certificates_that_prove_nothing_are_refused_in_the_handshake() {
    let site = Site::start();
    let expired = site.authority.issue("alice", &[], true);
    let foreign = Authority::new("somebody else").issue("alice", &[], false);
    for (what, identity) in [("expired", Some(&expired)), ("of another authority", Some(&foreign)), ("absent", None)] {
        assert!(site.connect(site.required(), identity).is_none(), "a certificate that is {what}");
    }
    for (what, identity) in [("expired", &expired), ("of another authority", &foreign)] {
        assert!(site.connect(site.optional(), Some(identity)).is_none(), "an optional certificate that is {what}");
    }
    let alice = site.authority.issue("alice", &[], false);
    site.connect(site.required(), Some(&alice)).expect("an answer").expect("the others did no harm").disconnect();
}

#[test]
fn where_certificates_are_optional_the_next_provider_is_asked_without_one() {
    let site = Site::start();
    let mut client = site.connect(site.optional(), None).expect("an answer").expect("anonymous");
    assert_eq!(client.subscribe("anonymous/#", QoS::AtLeastOnce), 1);
    assert_eq!(client.subscribe("devices/alice/#", QoS::AtLeastOnce), 0x87);
    let alice = site.authority.issue("alice", &[], false);
    let mut client = site.connect(site.optional(), Some(&alice)).expect("an answer").expect("admitted");
    assert_eq!(client.subscribe("devices/alice/#", QoS::AtLeastOnce), 1);
    assert_eq!(client.subscribe("anonymous/#", QoS::AtLeastOnce), 0x87);
}
