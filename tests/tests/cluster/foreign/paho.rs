//! paho-mqtt, by way of `tests/py/cluster.py`: one process for all its clients.

use super::record::{Heard, Record};
use super::{AUDIENCES, PACE, Stream, UNANSWERED};
use bifro_tests::foreign::checkout;
use bifro_tests::history::Mark;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// The process. Killed when dropped.
pub(super) struct Paho {
    child: Child,
    told: Arc<Mutex<Told>>,
    reader: Option<JoinHandle<()>>,
}

/// What it is told.
struct Told {
    /// None when it is to end.
    stdin: Option<ChildStdin>,
    publishers: HashMap<String, Publisher>,
}

struct Publisher {
    stream: Stream,
    next: u32,
    in_flight: Option<Mark>,
    progress: Instant,
    is_new: bool,
}

impl Told {
    fn tell(&mut self, command: &Value) {
        if let Some(stdin) = &mut self.stdin {
            writeln!(stdin, "{command}").expect("it listens");
        }
    }

    /// The next message of a publisher that has an answer to its last.
    fn publish(&mut self, name: &str, record: &Record) {
        let Some(publisher) = self.publishers.get_mut(name) else { return };
        if publisher.in_flight.is_some() || record.is_publishing_over() {
            return;
        }
        let mark = Mark { stream: publisher.stream.number, seq: publisher.next };
        publisher.next += 1;
        (publisher.in_flight, publisher.progress) = (Some(mark), Instant::now());
        record.published(mark);
        let command =
            json!(["publish", name, publisher.stream.topic(), digits(&mark.payload(32)), publisher.stream.qos]);
        self.tell(&command);
    }
}

impl Paho {
    pub(super) fn start(python: &Path, record: Arc<Record>) -> Self {
        let mut command = Command::new(python);
        command.arg(checkout().join("tests/py/cluster.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let told = Arc::new(Mutex::new(Told { stdin, publishers: HashMap::new() }));
        let mut reader = Reader { told: told.clone(), record, connections: HashMap::new() };
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                reader.handle(&serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { child, told, reader: Some(reader) }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics with it")
    }

    /// In version 4, which is 3.1.1, or 5.
    pub(super) fn subscriber(&mut self, audience: u32, version: u8, node: SocketAddr) {
        let (name, host) = (format!("ps{audience}"), node.ip().to_string());
        let qos = AUDIENCES.iter().find(|(known, _)| *known == audience).expect("one of them").1;
        self.told().tell(&json!(["subscriber", name, version, host, node.port(), "foreign/#", qos]));
    }

    pub(super) fn publisher(&mut self, stream: Stream, version: u8, node: SocketAddr) {
        let (name, host) = (format!("pp{}", stream.number), node.ip().to_string());
        let publisher = Publisher { stream, next: 0, in_flight: None, progress: Instant::now(), is_new: true };
        let mut told = self.told();
        told.publishers.insert(name.clone(), publisher);
        told.tell(&json!(["publisher", name, version, host, node.port()]));
    }

    /// Those connect anew that have waited too long for an answer.
    pub(super) fn hurry(&self) {
        let mut told = self.told();
        let mut late = Vec::new();
        for (name, publisher) in &mut told.publishers {
            if publisher.in_flight.is_some() && publisher.progress.elapsed() > UNANSWERED {
                publisher.progress = Instant::now();
                late.push(json!(["break", name]));
            }
        }
        late.iter().for_each(|command| told.tell(command));
    }

    pub(super) fn end(mut self) {
        self.told().stdin = None;
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        self.reader.take().expect("it reads").join().expect("it ends");
    }
}

impl Drop for Paho {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hears what the process says.
struct Reader {
    told: Arc<Mutex<Told>>,
    record: Arc<Record>,
    /// Of subscribers: who they are and the number of their connection.
    connections: HashMap<String, u32>,
}

impl Reader {
    fn handle(&mut self, event: &Value) {
        let text = |at: usize| event[at].as_str().expect("a string");
        let name = text(1);
        // Publishers have no audience.
        let audience = name.strip_prefix("ps").map(|number| number.parse().expect("a number"));
        match (text(0), audience) {
            ("connected", Some(audience)) => {
                let conn = self.record.connected(audience, event[2] == true);
                self.connections.insert(name.to_owned(), conn);
            }
            ("connected", None) => self.publisher_connected(name, event[2] == true),
            ("disconnected", _) => self.disconnected(name),
            ("subscribed", Some(audience)) => self.record.subscribed_by(audience),
            ("message", Some(audience)) => {
                let conn = self.connections[name];
                self.record.received(Heard { audience, conn, dup: event[3] == true }, &bytes(text(2)));
            }
            ("answered", _) => self.answered(name, event[3] == true),
            _ => panic!("not expected: {event}"),
        }
    }

    fn publisher_connected(&self, name: &str, session_present: bool) {
        let mut told = self.told.lock().expect("nobody panics with it");
        let publisher = told.publishers.get_mut(name).expect("a publisher");
        if !std::mem::replace(&mut publisher.is_new, false) && !session_present {
            self.record.fault(format!("the session of {name} is gone"));
        }
        told.publish(name, &self.record);
    }

    /// Paho sends what has no answer again, when it is connected.
    fn disconnected(&self, name: &str) {
        self.record.disconnected();
        let told = self.told.lock().expect("nobody panics with it");
        if let Some(publisher) = told.publishers.get(name)
            && let Some(mark) = publisher.in_flight
        {
            self.record.sent_again(mark, publisher.stream.qos);
        }
    }

    fn answered(&self, name: &str, is_success: bool) {
        let mut told = self.told.lock().expect("nobody panics with it");
        let publisher = told.publishers.get_mut(name).expect("a publisher");
        if let Some(mark) = publisher.in_flight.take() {
            self.record.answered(mark, is_success);
        }
        drop(told);
        std::thread::sleep(PACE);
        self.told.lock().expect("nobody panics with it").publish(name, &self.record);
    }
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
