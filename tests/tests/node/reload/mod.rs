//! SIGHUP while clients are busy: what can change changes, what is broken changes nothing, and nobody is disconnected.

mod broken;
mod load;
mod revoked;
mod site;

use self::load::Load;
use self::site::Site;
use super::auth::{login, password_file};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::{Client, ConnectOptions};

/// Clients that publish and subscribe without a break.
const CLIENTS: usize = 200;

#[test]
fn everything_that_can_change_is_replaced_without_a_dropped_connection() {
    let site = Site::start();
    let load = Load::start(&site, CLIENTS);
    new_connections_see_the_new_certificate(&site);
    load.advance();
    the_new_password_file_counts(&site);
    load.advance();
    new_sessions_have_the_new_settings(&site);
    load.advance();
    the_log_says_more(&site);
    load.advance();
    let rounds = load.finish();
    assert!(rounds >= 4 * CLIENTS as u64, "{rounds} rounds");
}

fn new_connections_see_the_new_certificate(site: &Site) {
    let before = site.server_certificate();
    let renewed = site.authority.issue("renewed", &["localhost"], false);
    site.write("server.pem", &renewed.certificate);
    site.write("server.key", &renewed.key);
    assert_eq!(site.server_certificate(), before, "files alone change nothing");
    site.reload_succeeds();
    let after = site.server_certificate();
    assert_ne!(after, before);
    site.reload_succeeds();
    assert_eq!(site.server_certificate(), after);
}

fn the_new_password_file_counts(site: &Site) {
    let tcp = site.broker.tcp();
    let enter = |user: &str| login(tcp, Version::V5, "passwords", Some((user, &format!("{user}-password"))));
    enter("alice").expect("she is in the file").disconnect();
    enter("carol").expect_err("she is not");
    let old = std::fs::read_to_string(site.broker.dir.join("passwords")).expect("a file");
    let kept: String = old.lines().filter(|line| !line.starts_with("alice:")).map(|line| format!("{line}\n")).collect();
    let added = String::from_utf8(password_file(&["carol"])).expect("text");
    site.write("passwords", &format!("{kept}{added}"));
    site.reload_succeeds();
    enter("carol").expect("she is now").disconnect();
    enter("alice").expect_err("remembered or not, she is no longer in the file");
    site.write("passwords", &old);
    site.reload_succeeds();
    enter("alice").expect("she is back").disconnect();
}

fn new_sessions_have_the_new_settings(site: &Site) {
    let receive_maximum = || {
        let credentials = Some(("admin".to_owned(), "admin-password".to_owned()));
        let options = ConnectOptions { credentials, ..ConnectOptions::new(Version::V5, "settings") };
        let (client, received) = Client::connect_with(site.broker.tcp(), &options);
        let Packet::ConnAck(ack) = received.packet() else { panic!("not a CONNACK: {received:?}") };
        client.disconnect();
        ack.properties.receive_maximum()
    };
    assert_eq!(receive_maximum(), Some(64));
    site.configure("receive_maximum = 7", "info");
    site.reload_succeeds();
    assert_eq!(receive_maximum(), Some(7));
    site.configure("", "info");
    site.reload_succeeds();
    assert_eq!(receive_maximum(), Some(64));
}

fn the_log_says_more(site: &Site) {
    let publish = |client_id: &str| {
        let credentials = Some(("admin", "admin-password"));
        let mut client = login(site.broker.tcp(), Version::V5, client_id, credentials).expect("admitted");
        assert_eq!(client.subscribe("quiet/topic", QoS::AtMostOnce), 0);
        client.disconnect();
    };
    let tells_of = |line: &str, client_id: &str| line.contains("\"sub_acked\"") && line.contains(client_id);
    publish("said-at-info");
    site.configure("", "debug");
    site.reload_succeeds();
    publish("said-at-debug");
    site.broker.wait_for_log("a debug event", |line| tells_of(line, "said-at-debug"));
    assert!(!site.broker.log_lines().iter().any(|line| tells_of(line, "said-at-info")));
    site.configure("", "info");
    site.reload_succeeds();
}
