//! The first minute of a newcomer: no arguments, no file, an empty directory.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_tests::{Client, PATIENCE, http, process};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;

const MQTT: u16 = 1883;
const WEBSOCKET: u16 = 8083;
const ADMIN: u16 = 9091;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_arguments_in_an_empty_directory_it_serves_this_machine() {
    for port in [MQTT, WEBSOCKET, ADMIN] {
        if let Err(error) = TcpListener::bind(local(port)) {
            eprintln!("skipped: port {port} cannot be had ({error})");
            return;
        }
    }
    let dir = process::fresh_dir("newcomer");
    let mut command = Command::new(process::binaries().join("bifro-uring"));
    command.current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut broker = Killed(command.spawn().expect("it starts"));
    let mut log = BufReader::new(broker.0.stderr.take().expect("it is piped")).lines();
    let mut seen = Vec::new();
    loop {
        let line = log.next().unwrap_or_else(|| panic!("it ended: {seen:?}")).expect("text");
        let is_ready = line.contains("ready");
        seen.push(line);
        if is_ready {
            break;
        }
    }
    let reader = std::thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());

    let mut subscriber = Client::connect(local(MQTT), Version::V5, "subscriber");
    assert_eq!(subscriber.subscribe("greetings/#", QoS::AtLeastOnce), 1);
    let mut publisher = Client::connect(local(MQTT), Version::V311, "publisher");
    publisher.publish_exactly_once("greetings/world", b"hello");
    subscriber.recv_publish();
    websocket_handshake();
    assert_eq!(http::get(local(ADMIN), "/readyz").status, 200);
    assert!(http::get(local(ADMIN), "/metrics").body.contains("bifro_sessions 2"));

    let pid = i32::try_from(broker.0.id()).expect("a pid");
    // SAFETY: kill takes no pointers; the child has not been waited for, so the pid is still its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = broker.0.try_wait().expect("the child can be waited for") {
            break status;
        }
        assert!(Instant::now() < deadline, "Ctrl-C does not end it");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let rest = reader.join().expect("reading does not panic");
    assert!(status.success(), "{status}: {rest:?}");
    std::fs::remove_dir_all(dir).expect("it is the test's own");
}

fn websocket_handshake() {
    let mut request = format!("ws://127.0.0.1:{WEBSOCKET}/mqtt").into_client_request().expect("a URL");
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let stream = TcpStream::connect(local(WEBSOCKET)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (_socket, response) = tungstenite::client(request, stream).expect("a WebSocket");
    // [MQTT-6.0.0-4] [MQTT5-6.0.0-4]
    assert_eq!(response.headers().get("Sec-WebSocket-Protocol").and_then(|value| value.to_str().ok()), Some("mqtt"));
}
