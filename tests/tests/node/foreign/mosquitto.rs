//! mosquitto's command line clients.

use super::stand::{PAYLOAD_BYTES, Stand};
use super::tool::{Program, run_short};
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_tests::Client;
use bifro_tests::foreign::{is_here, on_path};
use std::process::Command;
use std::time::Duration;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// A way to reach the node, in one version of the protocol.
struct Route<'s> {
    stand: &'s Stand,
    arguments: Vec<String>,
    version: &'static str,
    /// Where its topics begin.
    prefix: String,
}

impl<'s> Route<'s> {
    fn new(stand: &'s Stand, transport: &str, version: &'static str) -> Self {
        let path = |name: &str| stand.file(name).display().to_string();
        let place = |protocol: &str, nth: usize| {
            let address = stand.broker.nth_address(protocol, nth);
            vec!["-h".to_owned(), address.ip().to_string(), "-p".to_owned(), address.port().to_string()]
        };
        let mut prefix = format!("{transport}/{version}");
        let trust = ["--cafile".to_owned(), path("ca.pem")];
        let arguments = match transport {
            "tcp" => place("tcp", 0),
            "unix" => vec!["--unix".to_owned(), path("bifro.sock")],
            "tls" => [&place("tls", 0)[..], &trust].concat(),
            _ => {
                prefix.insert_str(0, "by-user/alice/");
                let identity = ["--cert".to_owned(), path("alice.pem"), "--key".to_owned(), path("alice.key")];
                [&place("tls", 1)[..], &trust, &identity].concat()
            }
        };
        Self { stand, arguments, version, prefix }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// A client id that no other route uses and that MQTT 3.1 can carry.
    fn client_id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix.trim_start_matches("by-user/alice/").replace('/', "-"))
    }

    fn command(&self, program: &str) -> Command {
        // Its output is buffered by the line, so that tests see it when it happens.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-V", self.version]).args(&self.arguments);
        command
    }

    fn publish(&self, name: &str, message: &str, more: &[&str]) {
        run_short(self.command("mosquitto_pub").args(["-t", &self.topic(name), "-m", message]).args(more), b"");
    }

    /// A subscriber that the node has acknowledged.
    fn subscriber(&self, filter: &str, more: &[&str]) -> Subscriber {
        let mut command = self.command("mosquitto_sub");
        command.args(["-d", "-F", "MSG %q %r %t|%p", "-t", filter]).args(more);
        let mut program = Program::start(&mut command);
        program.wait_for("SUBACK", |line| line.starts_with("Subscribed (mid").then_some(()));
        Subscriber(program)
    }
}

struct Subscriber(Program);

impl Subscriber {
    /// QoS, retain, topic and payload of the next message.
    fn message(&mut self) -> String {
        self.0.wait_for("message", |line| line.strip_prefix("MSG ").map(str::to_owned))
    }
}

fn through_each_qos(route: &Route<'_>) {
    for qos in ["0", "1", "2"] {
        let mut subscriber = route.subscriber(&route.topic("qos/+"), &["-q", qos]);
        for sent in ["0", "1", "2"] {
            route.publish(&format!("qos/{sent}"), "hello", &["-q", sent]);
            let lower = sent.min(qos);
            assert_eq!(subscriber.message(), format!("{lower} 0 {}|hello", route.topic(&format!("qos/{sent}"))));
        }
    }
}

fn retained(route: &Route<'_>) {
    let topic = route.topic("retained");
    route.publish("retained", "kept", &["-q", "1", "-r"]);
    let mut subscriber = route.subscriber(&topic, &["-q", "1"]);
    assert_eq!(subscriber.message(), format!("1 1 {topic}|kept"));
    route.publish("retained", "live", &["-q", "1"]);
    assert_eq!(subscriber.message(), format!("1 0 {topic}|live"));
    run_short(route.command("mosquitto_pub").args(["-t", &topic, "-n", "-r", "-q", "1"]), b"");
    let mut late = route.subscriber(&topic, &["-q", "1"]);
    route.publish("retained", "after", &["-q", "1"]);
    assert_eq!(late.message(), format!("1 0 {topic}|after"), "the retained message has been cleared");
}

fn will(route: &Route<'_>) {
    let topic = route.topic("will");
    let mut watcher = route.subscriber(&topic, &["-q", "1"]);
    let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1"];
    route.subscriber(&route.topic("nothing"), &will).0.kill();
    assert_eq!(watcher.message(), format!("1 0 {topic}|gone"));
}

fn offline_queue(route: &Route<'_>) {
    let (topic, id) = (route.topic("offline"), route.client_id("offline"));
    let session = ["-c", "-i", &id, "-q", "2", "-t", &topic];
    run_short(route.command("mosquitto_sub").args(session).arg("-E"), b"");
    let numbers: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let sent = format!("{}\n", numbers.join("\n"));
    run_short(route.command("mosquitto_pub").args(["-t", &topic, "-q", "2", "-l"]), sent.as_bytes());
    let received = run_short(route.command("mosquitto_sub").args(session).args(["-C", "10"]), b"");
    assert_eq!(String::from_utf8_lossy(&received), sent);
}

fn shared(route: &Route<'_>) {
    const MESSAGES: usize = 20;
    let filter = format!("$share/group/{}", route.topic("shared"));
    let mut members = [route.subscriber(&filter, &["-q", "1"]), route.subscriber(&filter, &["-q", "1"])];
    let lines: String = (0..MESSAGES).map(|number| format!("{number}\n")).collect();
    let topic = route.topic("shared");
    run_short(route.command("mosquitto_pub").args(["-t", &topic, "-q", "1", "-l"]), lines.as_bytes());
    let mut numbers = Vec::new();
    let deadline = std::time::Instant::now() + bifro_tests::PATIENCE;
    while numbers.len() < MESSAGES {
        assert!(std::time::Instant::now() < deadline, "only {numbers:?} came");
        for member in &mut members {
            while let Some(line) = member.0.line_within(Duration::from_millis(20)) {
                let payload = line.strip_prefix("MSG ").and_then(|message| message.rsplit_once('|'));
                numbers.extend(payload.and_then(|(_, number)| number.parse::<usize>().ok()));
            }
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "each message once");
}

fn large(route: &Route<'_>) {
    let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|index| (index % 251) as u8).collect();
    let file = route.stand.file("large");
    std::fs::write(&file, &payload).expect("a file to send");
    let topic = route.topic("large");
    let send = ["-t", &topic, "-q", "2", "-r", "-f"];
    run_short(route.command("mosquitto_pub").args(send).arg(&file), b"");
    let received = run_short(route.command("mosquitto_sub").args(["-t", &topic, "-q", "2", "-C", "1", "-N"]), b"");
    assert!(received == payload, "{} bytes arrived, or others", received.len());
}

fn all_scenarios(transport: &str) {
    if !is_here("mosquitto_pub", on_path("mosquitto_pub") && on_path("mosquitto_sub")) {
        return;
    }
    let mut stand = Stand::start();
    for version in VERSIONS {
        let route = Route::new(&stand, transport, version);
        through_each_qos(&route);
        retained(&route);
        will(&route);
        offline_queue(&route);
        shared(&route);
        large(&route);
    }
    stand.broker.assert_alive();
}

#[test]
fn mosquitto_over_tcp() {
    all_scenarios("tcp");
}

#[test]
fn mosquitto_over_tls() {
    all_scenarios("tls");
}

#[test]
fn mosquitto_over_mutual_tls_is_the_user_its_certificate_names() {
    all_scenarios("mtls");
}

#[test]
fn mosquitto_over_a_unix_socket() {
    all_scenarios("unix");
}

/// [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn properties_reach_mosquitto_unaltered_and_in_order() {
    if !is_here("mosquitto_sub", on_path("mosquitto_sub")) {
        return;
    }
    let stand = Stand::start();
    let route = Route::new(&stand, "tcp", "mqttv5");
    let format = "MSG %C|%R|%D|%F|%P|%p";
    let mut command = route.command("mosquitto_sub");
    command.args(["-d", "-t", "properties", "-F", format]);
    let mut subscriber = Program::start(&mut command);
    subscriber.wait_for("SUBACK", |line| line.starts_with("Subscribed (mid").then_some(()));
    let mut send = route.command("mosquitto_pub");
    send.args(["-t", "properties", "-m", "text", "-q", "1"]);
    for (name, value) in [
        ("content-type", "text/plain"),
        ("response-topic", "answers/here"),
        ("correlation-data", "c0rrelation"),
        ("payload-format-indicator", "1"),
    ] {
        send.args(["-D", "publish", name, value]);
    }
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "3")] {
        send.args(["-D", "publish", "user-property", name, value]);
    }
    run_short(&mut send, b"");
    let line = subscriber.wait_for("message", |line| line.strip_prefix("MSG ").map(str::to_owned));
    let fields: Vec<&str> = line.split('|').collect();
    assert_eq!(fields[..4], ["text/plain", "answers/here", "c0rrelation", "1"]);
    let pairs: String = fields[4].chars().filter(char::is_ascii_alphanumeric).collect();
    assert_eq!(pairs, "b1a2b3", "{line}");
    assert_eq!(fields[5], "text");
}

/// Section 4.10 of MQTT 5.
#[test]
fn a_request_of_mosquitto_rr_is_answered() {
    if !is_here("mosquitto_rr", on_path("mosquitto_rr")) {
        return;
    }
    let stand = Stand::start();
    let mut responder = Client::connect(stand.broker.tcp(), Version::V5, "responder");
    assert_eq!(responder.subscribe("requests/#", QoS::AtLeastOnce), 1);
    let route = Route::new(&stand, "tcp", "mqttv5");
    let mut command = route.command("mosquitto_rr");
    command.args(["-q", "1", "-t", "requests/sum", "-e", "answers/rr", "-m", "1+1"]);
    let mut requester = Program::start(&mut command);
    let received = responder.recv_publish();
    let Packet::Publish(request) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    assert_eq!(request.payload, b"1+1");
    let mut properties = Vec::new();
    if let Some(correlation) = request.properties.all.correlation_data() {
        PropertyWriter::new(&mut properties).binary(PropertyId::CorrelationData, correlation);
    }
    let to = request.properties.all.response_topic().expect("mosquitto_rr names one");
    responder.publish_with(to, b"2", QoS::AtMostOnce, false, &properties);
    requester.wait_for("answer", |line| (line == "2").then_some(()));
}
