//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), written from the documents and not from the broker, as
//! enhanced authentication of MQTT 5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bifro_core::client::Version;
use bifro_mqtt::packet::{Auth, Packet};
use bifro_mqtt::property::{Properties, PropertyId, PropertyWriter};
use bifro_mqtt::reason::Reason;
use bifro_tests::{Broker, Client, ConnectOptions, Received, process};
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

pub(super) const METHOD: &str = "SCRAM-SHA-256";

const CONFIG: &str = r#"
[auth.scram]
path = "scram"
[[listener]]
protocol = "tcp"
bind = "127.0.0.1:0"
auth = ["scram"]
"#;

/// A broker that knows `alice` and `bob`, each with the password `<user>-password`.
pub(super) fn broker() -> Broker {
    let dir = process::fresh_dir("scram");
    let file = dir.join("scram");
    super::add_user(&file, "alice", "alice-password", &["--scram"]);
    super::add_user(&file, "bob", "bob-password", &["--scram"]);
    let content = std::fs::read(&file).expect("bifroctl has written it");
    std::fs::remove_dir_all(dir).expect("it is the test's own");
    Broker::start_with(2, CONFIG, &[("scram", &content)])
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// One exchange, from the client's side.
pub(super) struct Exchange {
    password: String,
    first_bare: String,
    nonce: String,
    expected_signature: Option<String>,
}

impl Exchange {
    pub(super) fn new(user: &str, password: &str, nonce: &str) -> Self {
        let first_bare = format!("n={user},r={nonce}");
        Self { password: password.into(), first_bare, nonce: nonce.into(), expected_signature: None }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    /// The proof, given what the broker challenges with.
    pub(super) fn last(&mut self, challenge: &[u8]) -> Vec<u8> {
        let challenge = std::str::from_utf8(challenge).expect("SCRAM is text");
        let field = |name: &str| {
            let found = challenge.split(',').find_map(|field| field.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {challenge}"))
        };
        let (nonce, salt) = (field("r="), STANDARD.decode(field("s=")).expect("Base64"));
        assert!(nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(), "{nonce}");
        let iterations: u32 = field("i=").parse().expect("a number");
        assert!(iterations >= 4096, "RFC 7677 section 4 demands 4096, not {iterations}");
        let iterations = NonZeroU32::new(iterations).expect("it is at least 4096");
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, self.password.as_bytes(), &mut salted);
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{challenge},{without_proof}", self.first_bare);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = sign(stored_key.as_ref(), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, mask)| key ^ mask).collect();
        let server_key = sign(&salted, b"Server Key");
        self.expected_signature = Some(format!("v={}", STANDARD.encode(sign(&server_key, auth_message.as_bytes()))));
        format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes()
    }

    /// Asserts that the broker knows the credential too.
    pub(super) fn assert_server(&self, data: Option<&[u8]>) {
        let data = data.map(String::from_utf8_lossy);
        assert_eq!(data.as_deref(), self.expected_signature.as_deref(), "the broker's signature");
    }
}

fn properties(method: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PropertyWriter::new(&mut out)
        .str(PropertyId::AuthenticationMethod, method)
        .binary(PropertyId::AuthenticationData, data);
    out
}

pub(super) fn send_auth(client: &mut Client, reason: Reason, method: &str, data: &[u8]) {
    let properties = properties(method, data);
    client.send(&Packet::Auth(Auth { reason, properties: Properties::new(&properties) }));
}

/// The data of the AUTH that must come next.
pub(super) fn recv_auth(client: &mut Client, reason: Reason) -> Vec<u8> {
    let received = client.recv();
    let Packet::Auth(auth) = received.packet() else { panic!("not an AUTH: {received:?}") };
    assert_eq!(auth.reason, reason);
    assert_eq!(auth.properties.authentication_method(), Some(METHOD), "[MQTT5-4.12.0-5]");
    auth.properties.authentication_data().unwrap_or_default().to_vec()
}

/// Connects; returns the client and the CONNACK, whatever it says.
pub(super) fn connect(broker: &Broker, exchange: &mut Exchange) -> (Client, Received) {
    let mut client = Client::open(broker.tcp(), Version::V5);
    let options =
        ConnectOptions { properties: properties(METHOD, &exchange.first()), ..ConnectOptions::new(Version::V5, "c") };
    client.send_bytes(&options.encode());
    let challenge = recv_auth(&mut client, Reason::CONTINUE_AUTHENTICATION);
    send_auth(&mut client, Reason::CONTINUE_AUTHENTICATION, METHOD, &exchange.last(&challenge));
    let received = client.recv();
    (client, received)
}

fn reason(received: &Received) -> Reason {
    let Packet::ConnAck(ack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
    ack.reason
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn both_sides_prove_that_they_know_the_password() {
    let broker = broker();
    let mut exchange = Exchange::new("alice", "alice-password", "fyko+d2lbbFgONRv9qkxdawL");
    let (client, received) = connect(&broker, &mut exchange);
    assert_eq!(reason(&received), Reason::SUCCESS);
    let Packet::ConnAck(ack) = received.packet() else { unreachable!("it was one before") };
    assert_eq!(ack.properties.authentication_method(), Some(METHOD));
    exchange.assert_server(ack.properties.authentication_data());
    client.disconnect();
}

/// [MQTT5-4.12.0-4] The unknown user gets as far as the known one with a wrong password, so that nobody learns who exists.
#[test]
fn wrong_passwords_and_unknown_users_fail_alike() {
    let broker = broker();
    for (user, password) in [("alice", "bob-password"), ("nobody", "alice-password")] {
        let (mut client, received) = connect(&broker, &mut Exchange::new(user, password, "nonce"));
        assert_eq!(reason(&received), Reason::BAD_USER_NAME_OR_PASSWORD, "{user}");
        client.expect_closed();
    }
}

/// [MQTT5-4.12.0-1]
#[test]
fn a_method_that_the_listener_does_not_offer_is_named_as_the_reason() {
    let broker = broker();
    let mut client = Client::open(broker.tcp(), Version::V5);
    let options = ConnectOptions {
        properties: properties("SCRAM-SHA-1", b"n,,n=alice,r=abc"),
        ..ConnectOptions::new(Version::V5, "c")
    };
    assert_eq!(client.login(&options).err(), Some(Reason::BAD_AUTHENTICATION_METHOD));
    let result = super::login(broker.tcp(), Version::V5, "c", Some(("alice", "alice-password")));
    assert_eq!(result.err(), Some(Reason::BAD_USER_NAME_OR_PASSWORD), "a password in CONNECT proves nothing here");
}
