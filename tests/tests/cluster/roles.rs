//! Six processes of different roles that are one cluster: a seed, three that store, two front ends; and mosquitto's clients.

use super::departures::bifroctl;
use super::replication::until_replicated;
use bifro_core::client::Version;
use bifro_mqtt::reason::Reason;
use bifro_tests::client::{Client, ConnectOptions};
use bifro_tests::cluster::{SECRET, free_address, page, table, wait_for};
use bifro_tests::{Broker, PATIENCE};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SEED: &str = "mqtt = false\ninbox = false\nretain = false\nsession_dict = false";
const STORE: &str = "mqtt = false";
const FRONT_END: &str = "inbox = false\nretain = false\nsession_dict = false";

fn begin(bind: SocketAddr, seeds: &[SocketAddr], roles: &str) -> Broker {
    let listener = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n";
    let listener = if roles.contains("mqtt = false") { "" } else { listener };
    let config = format!("{listener}{}", table(bind, seeds, &format!("[roles]\n{roles}")));
    Broker::begin_with(1, &config, &[("cluster.secret", SECRET)])
}

/// The seed, the stores, the front ends.
struct Workloads {
    seed: Broker,
    stores: Vec<Broker>,
    front_ends: Vec<Broker>,
}

impl Workloads {
    fn start() -> Self {
        let addresses: Vec<SocketAddr> = (0..6).map(|_| free_address()).collect();
        let roles = [SEED, STORE, STORE, STORE, FRONT_END, FRONT_END];
        let begun: Vec<_> = addresses.iter().zip(roles).map(|(&at, roles)| begin(at, &addresses[..3], roles)).collect();
        let mut nodes: Vec<Broker> = begun.into_iter().map(Broker::until_ready).collect();
        for node in &nodes {
            wait_for(node, &["alive"; 6]);
        }
        until_replicated(&nodes);
        let front_ends = nodes.split_off(4);
        let stores = nodes.split_off(1);
        Self { seed: nodes.remove(0), stores, front_ends }
    }

    fn all(&self) -> Vec<&Broker> {
        self.stores.iter().chain(&self.front_ends).chain([&self.seed]).collect()
    }
}

fn mosquitto(tool: &str, at: &Broker, arguments: &[&str]) -> Child {
    let (host, port) = (at.tcp().ip().to_string(), at.tcp().port().to_string());
    let mut command = Command::new(tool);
    command.args(["-h", &host, "-p", &port, "-q", "1"]).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto's clients are here")
}

/// What it has printed when it has ended.
fn output(mut child: Child) -> String {
    let deadline = Instant::now() + 3 * PATIENCE;
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it lives");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("it can be waited for");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn publish(at: &Broker, topic: &str, message: &str, more: &[&str]) {
    output(mosquitto("mosquitto_pub", at, &[&["-t", topic, "-m", message], more].concat()));
}

/// The next message of a topic on a front end, while another one publishes it.
fn hears(at: &Broker, from: &Broker, topic: &str) -> String {
    let subscriber = mosquitto("mosquitto_sub", at, &["-t", topic, "-C", "1"]);
    let before = at.metric("bifro_subscriptions");
    at.wait_for_metric("bifro_subscriptions", |subscriptions| subscriptions >= before.max(1.0));
    publish(from, topic, "over there", &[]);
    output(subscriber)
}

#[test]
fn six_processes_of_different_roles_serve_mosquittos_clients_like_one() {
    if Command::new("mosquitto_pub").arg("--help").output().is_err() {
        let _ = writeln!(std::io::stderr(), "not run: mosquitto_pub and mosquitto_sub are not here");
        return;
    }
    let mut cluster = Workloads::start();
    let [one, other] = &cluster.front_ends[..] else { panic!("two front ends") };
    assert_eq!(hears(one, other, "news/1"), "over there");
    publish(one, "state/1", "on", &["-r"]);
    publish(other, "state/2", "off", &["-r"]);
    let found = output(mosquitto("mosquitto_sub", other, &["-t", "state/#", "-v", "-C", "2"]));
    assert_eq!(found, "state/1 on\nstate/2 off");
    assert_eq!((one.metric("bifro_retained_messages"), cluster.seed.metric("bifro_retained_messages")), (0.0, 0.0));
    output(mosquitto("mosquitto_sub", one, &["-i", "alice", "-c", "-t", "mail/alice", "-E"]));
    let held = |node: &Broker| node.metric("bifro_ranges_held");
    for node in cluster.front_ends.iter().chain([&cluster.seed]) {
        node.wait_for_metric("bifro_ranges_held", |held| held == 0.0);
    }
    assert_eq!(cluster.stores.iter().map(held).sum::<f64>(), 24.0);
    publish(other, "mail/alice", "before", &[]);
    let killed = cluster.stores.remove(0).crash();
    publish(other, "mail/alice", "after", &[]);
    let mail = output(mosquitto("mosquitto_sub", other, &["-i", "alice", "-c", "-t", "mail/alice", "-C", "2"]));
    assert_eq!(mail, "before\nafter");
    let found = output(mosquitto("mosquitto_sub", one, &["-t", "state/1", "-C", "1"]));
    assert_eq!(found, "on", "another store has it");
    cluster.stores.push(killed.restart());
    until_replicated(&cluster.all());
    let (_, told) = bifroctl(&["cluster", "--admin", &cluster.seed.address("admin").to_string()]);
    for roles in [" inbox,retain,session_dict,api\n", " mqtt,api\n", " api\n"] {
        assert!(told.contains(roles), "{told}");
    }
}

#[test]
fn client_ids_are_unique_over_front_ends_that_do_not_keep_them() {
    let cluster = Workloads::start();
    let mut first = Client::connect(cluster.front_ends[0].tcp(), Version::V5, "same");
    let second = Client::connect(cluster.front_ends[1].tcp(), Version::V5, "same");
    first.expect_disconnect(Reason::SESSION_TAKEN_OVER);
    second.disconnect();
}

#[test]
fn front_ends_without_stores_refuse_persistent_sessions_and_say_why() {
    let addresses: Vec<SocketAddr> = (0..2).map(|_| free_address()).collect();
    let nodes: Vec<Broker> = addresses.iter().map(|&at| begin(at, &addresses[..1], FRONT_END).until_ready()).collect();
    for node in &nodes {
        wait_for(node, &["alive"; 2]);
        assert_eq!(page(node)["nodes"][0]["roles"], serde_json::json!(["mqtt", "api"]));
    }
    let kept = super::replication::kept("c");
    let mut client = Client::open(nodes[1].tcp(), Version::V5);
    assert_eq!(client.login(&kept).err(), Some(Reason::SERVER_UNAVAILABLE));
    nodes[1].wait_for_log("what is missing", |line| line.contains("role inbox: persistent sessions are refused"));
    nodes[1].wait_for_log("what is missing", |line| line.contains("role retain: no message is retained"));
    let (mut client, _) = Client::connect_with(nodes[0].tcp(), &ConnectOptions::new(Version::V5, "transient"));
    client.subscribe("t", bifro_core::message::QoS::AtLeastOnce);
    let mut publisher = Client::connect(nodes[1].tcp(), Version::V5, "p");
    assert_eq!(publisher.publish_acked("t", b"all the same"), Reason::SUCCESS);
    client.recv_publish();
}
