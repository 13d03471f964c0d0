//! `bifroctl pub` and `bifroctl sub` against a node.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_tests::{Broker, Client, process};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ctl(broker: &Broker, verb: &str) -> Command {
    let address = broker.tcp();
    let mut command = Command::new(process::binaries().join("bifroctl"));
    command.args([verb, "--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command
}

#[test]
fn bifroctl_publishes_and_subscribes() {
    let broker = Broker::start(2, "");
    let mut command = ctl(&broker, "sub");
    command.args(["-t", "greetings/#", "-v", "-q", "1"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut subscriber = Killed(command.spawn().expect("bifroctl starts"));
    let lines = BufReader::new(subscriber.0.stdout.take().expect("it is piped")).lines();
    broker.wait_for_metric("bifro_subscriptions", |subscriptions| subscriptions == 1.0);
    let mut watcher = Client::connect(broker.tcp(), Version::V5, "watcher");
    assert_eq!(watcher.subscribe("greetings/world", QoS::AtLeastOnce), 1);
    let mut command = ctl(&broker, "pub");
    let output = command.args(["-t", "greetings/world", "-m", "hello", "-q", "1"]).output().expect("bifroctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let received = watcher.recv_publish();
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    assert_eq!((publish.topic, publish.payload, publish.qos), ("greetings/world", &b"hello"[..], QoS::AtLeastOnce));
    let line = lines.map_while(Result::ok).next().expect("a line");
    assert_eq!(line, "greetings/world hello");
}

#[test]
fn bifroctl_says_when_it_cannot_connect() {
    let broker = Broker::start(1, "");
    let mut command = ctl(&broker, "pub");
    assert!(broker.terminate().success());
    let output = command.args(["-t", "t", "-m", "m"]).output().expect("bifroctl runs");
    assert!(!output.status.success());
    assert!(!output.stderr.is_empty());
}
