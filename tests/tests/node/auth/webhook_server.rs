//! The operator's side of the HTTP webhook: a server that answers by the user name it is asked about.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What has been asked so far: the `Authorization` header and the question.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Asked,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Asked::default();
        let log = asked.clone();
        let thread = std::thread::spawn(move || {
            // Connections whose client is to wait in vain; they are closed with the server.
            let mut silent = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let Some((head, question)) = read_request(&stream) else { break };
                let answer = answer(question["username"].as_str().unwrap_or_default());
                log.lock().expect("no panic while it is held").push((head, question));
                match answer {
                    Some((status, body)) => respond(&stream, status, &body),
                    None => silent.push(stream),
                }
            }
        });
        Self { address, asked, thread: Some(thread) }
    }

    /// The questions about this user.
    pub(super) fn asked_about(&self, user: &str) -> Vec<(String, Value)> {
        let asked = self.asked.lock().expect("no panic while it is held");
        asked.iter().filter(|(_, question)| question["username"] == user).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A connection without a request ends it.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Status and body; none for no answer at all.
fn answer(user: &str) -> Option<(&'static str, String)> {
    let acl = json!([
        {"permission": "deny", "action": "publish", "topic": "devices/%c/secret"},
        {"permission": "allow", "action": "all", "topic": "devices/%c/#"},
    ]);
    let ok = |value: Value| Some(("200 OK", value.to_string()));
    match user {
        "allowed" => ok(json!({"result": "allow"})),
        "renamed" => ok(json!({"result": "allow", "user": "somebody", "tenant": "acme", "acl": acl})),
        "denied" => ok(json!({"result": "deny"})),
        "ignored" => ok(json!({"result": "ignore"})),
        "failing" => Some(("500 Internal Server Error", json!({"result": "allow"}).to_string())),
        "garbled" => Some(("200 OK", "allow".to_owned())),
        "unknown-member" => ok(json!({"result": "allow", "superuser": true})),
        "endless" => Some(("200 OK", format!("{{\"result\": \"allow\"{}}}", " ".repeat(100_000)))),
        _ => None,
    }
}

fn read_request(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        match line.split_once(':') {
            _ if line.is_empty() => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().ok()?,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.trim().into(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((authorization, serde_json::from_slice(&body).ok()?))
}

fn respond(mut stream: &TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    // The broker may have lost its patience; its side of the test shows that.
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}
