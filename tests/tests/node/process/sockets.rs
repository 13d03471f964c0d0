//! Unix-domain listeners, and addresses that are taken.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_tests::{Broker, Client, ConnectOptions, process};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

const UNIX: &str = "[[listener]]\nprotocol = \"unix\"\npath = \"mqtt.sock\"\nmode = 0o600\n";

const TCP: &str = "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\" # mqtt\n";

fn over_unix(path: &Path, client_id: &str) -> Client {
    let stream = UnixStream::connect(path).expect("the broker listens");
    let mut client = Client::over(Box::new(stream), Version::V5);
    client.login(&ConnectOptions::new(Version::V5, client_id)).expect("local clients may be anonymous");
    client
}

#[test]
fn a_unix_socket_is_as_private_as_its_mode_and_replaced_after_a_crash() {
    let mut broker = Broker::start_with(2, &format!("{UNIX}{TCP}"), &[]);
    let path = broker.dir.join("mqtt.sock");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Connections spread over the shards, which share the socket.
    let mut clients: Vec<_> = (0..8).map(|index| over_unix(&path, &format!("local-{index}"))).collect();
    for client in &mut clients {
        assert_eq!(client.subscribe("t", QoS::AtMostOnce), 0);
    }
    clients[0].publish("t", b"x", QoS::AtMostOnce, false);
    for client in &mut clients {
        client.recv_publish();
    }
    // A crash leaves the file behind; the next start replaces it, and gets the port as soon as the kernel lets go of it.
    let address = broker.tcp();
    broker.signal(libc::SIGKILL);
    broker.wait(bifro_tests::PATIENCE);
    assert!(path.exists());
    let dir = process::fresh_dir("after-crash");
    std::fs::rename(&path, dir.join("mqtt.sock")).expect("it is there");
    let config = std::fs::read_to_string(broker.dir.join("node.toml")).expect("it is there");
    std::fs::write(
        dir.join("node.toml"),
        config.replace("bind = \"127.0.0.1:0\" # mqtt", &format!("bind = \"{address}\"")),
    )
    .expect("a file");
    let broker = Broker::start_in(2, dir);
    assert_eq!(broker.tcp(), address);
    let path = broker.dir.join("mqtt.sock");
    over_unix(&path, "local").disconnect();
    Client::connect(address, Version::V5, "remote").disconnect();
    assert!(broker.terminate().success());
    assert!(UnixStream::connect(&path).is_err());
}

/// A second node with this one's configuration, in a directory of its own.
fn second(config: &str) -> Output {
    let dir = process::fresh_dir("second");
    std::fs::write(dir.join("node.toml"), config).expect("a file");
    let mut command = Command::new(process::binaries().join("bifro-uring"));
    command.args(["--cores", "2", "--config", "node.toml"]).current_dir(&dir);
    let output = command.output().expect("it runs");
    std::fs::remove_dir_all(dir).expect("it is the test's own");
    output
}

/// Shards share ports by SO_REUSEPORT, which alone would let another process of the same user take half the clients.
#[test]
fn a_second_node_on_the_same_address_says_what_is_wrong() {
    let broker = Broker::start_with(2, &format!("{UNIX}{TCP}"), &[]);
    let (tcp, admin) = (broker.tcp(), broker.address("admin"));
    let socket = broker.dir.join("mqtt.sock");
    let off = "[admin]\nbind = \"\"\n";
    for (config, wanted) in [
        (format!("{off}[[listener]]\nprotocol = \"tcp\"\nbind = \"{tcp}\"\n"), tcp.to_string()),
        (format!("{off}[[listener]]\nprotocol = \"unix\"\npath = \"{}\"\n", socket.display()), "mqtt.sock".to_owned()),
        (
            format!("[admin]\nbind = \"{admin}\"\n[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n"),
            admin.to_string(),
        ),
    ] {
        let output = second(&config);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{config}");
        assert!(errors.contains(&wanted), "no {wanted} in {errors}");
        assert!(errors.contains("in use") || errors.contains("listens on it"), "{errors}");
    }
    Client::connect(tcp, Version::V5, "undisturbed").disconnect();
}
