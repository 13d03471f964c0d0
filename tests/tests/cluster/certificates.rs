//! `[cluster.tls]`: nodes with the certificates that `bifroctl certs` makes.

use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::reason::Reason;
use bifro_tests::Broker;
use bifro_tests::client::Client;
use bifro_tests::cluster::{free_address, wait_for};
use bifro_tests::process::{binaries, fresh_dir};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A CA's directory, gone after the test.
struct Ca(PathBuf);

impl Ca {
    fn new() -> Self {
        let ca = Self(fresh_dir("ca"));
        ca.certs(&["ca"]);
        ca
    }

    fn certs(&self, arguments: &[&str]) {
        let mut command = Command::new(binaries().join("bifroctl"));
        let output = command.arg("certs").args(arguments).arg("--dir").arg(&self.0).output().expect("the tool runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a node's certificate. Its files as a node's directory has them: the CA's certificate, the node's, its key.
    fn issue(&self, name: &str) -> [(&'static str, Vec<u8>); 3] {
        self.certs(&["node", "--name", name]);
        let read = |file: String| std::fs::read(self.0.join(file)).expect("it was made");
        [
            ("ca.pem", read("ca.pem".into())),
            ("node.pem", read(format!("{name}.pem"))),
            ("node.key", read(format!("{name}.key"))),
        ]
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const TLS: &str = "[cluster.tls]\nca = \"ca.pem\"\ncertificate = \"node.pem\"\nkey = \"node.key\"\n";

fn begin(bind: SocketAddr, seed: SocketAddr, rest: &str, files: &[(&str, Vec<u8>)]) -> Broker {
    let config = format!(
        "[[listener]]\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\n[cluster]\nbind = \"{bind}\"\nseeds = [\"{seed}\"]\n{rest}"
    );
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    Broker::begin_with(1, &config, &files)
}

/// Two nodes with certificates of this CA that hear each other's clients.
fn cluster(ca: &Ca) -> [Broker; 2] {
    let (first, second) = (free_address(), free_address());
    let nodes =
        [(first, "n1"), (second, "n2")].map(|(bind, name)| begin(bind, first, TLS, &ca.issue(name)).until_ready());
    for node in &nodes {
        wait_for(node, &["alive", "alive"]);
        node.wait_for_metric("bifro_links", |up| up == 2.0);
        node.wait_for_metric("bifro_nodes_unheard", |unheard| unheard == 0.0);
    }
    nodes
}

#[test]
fn nodes_of_one_ca_are_a_cluster_without_a_secret() {
    let nodes = cluster(&Ca::new());
    let mut subscriber = Client::connect(nodes[1].tcp(), Version::V5, "s");
    subscriber.subscribe("line/+", QoS::AtLeastOnce);
    let mut publisher = Client::connect(nodes[0].tcp(), Version::V5, "p");
    assert_eq!(publisher.publish_acked("line/1", b"over mutual TLS"), Reason::SUCCESS);
    let received = subscriber.recv_publish();
    let Packet::Publish(publish) = received.packet() else { panic!("not a publish: {:?}", received.packet()) };
    assert_eq!(publish.payload, b"over mutual TLS");
    for node in &nodes {
        assert_eq!(node.metric("bifro_cluster_handshakes_refused_total"), 0.0);
    }
}

#[test]
fn a_node_of_another_ca_stays_outside_and_both_say_why() {
    let (ours, other) = (Ca::new(), Ca::new());
    let nodes = cluster(&ours);
    let seed = nodes[0].address("cluster");
    let stranger = begin(free_address(), seed, TLS, &other.issue("n3"));
    stranger.wait_for_log("why it waits", |line| {
        line.contains("waiting for the seeds") && line.contains("its certificate is not of the same CA")
    });
    nodes[0].wait_for_log("who was refused", |line| {
        line.contains("was refused") && line.contains("certificate") && line.contains("cluster.tls.ca")
    });
    nodes[0].wait_for_metric("bifro_cluster_handshakes_refused_total", |refused| refused > 0.0);
    assert_eq!(nodes[0].metric("bifro_cluster_members_present"), 2.0);
}

#[test]
fn a_node_without_a_certificate_stays_outside_and_both_say_why() {
    let nodes = cluster(&Ca::new());
    let stranger = begin(free_address(), nodes[0].address("cluster"), "", &[]);
    stranger.wait_for_log("why it waits", |line| {
        line.contains("waiting for the seeds")
            && line.contains("does not take this node's certificate, which is missing")
    });
    nodes[0].wait_for_log("who was refused", |line| line.contains("its certificate is missing"));
    assert_eq!(nodes[0].metric("bifro_cluster_members_present"), 2.0);
}

#[test]
fn a_certificate_does_not_stand_for_the_secret_where_there_are_both() {
    let ca = Ca::new();
    let seed = free_address();
    let rest = format!("secret_file = \"secret\"\n{TLS}");
    let node = |bind, name, secret: &str| {
        let mut files = ca.issue(name).to_vec();
        files.push(("secret", secret.into()));
        begin(bind, seed, &rest, &files)
    };
    let first = node(seed, "n1", "a secret that is long enough").until_ready();
    let stranger = node(free_address(), "n2", "another secret, of a good length");
    first.wait_for_log("who was refused", |line| line.contains("does not know the secret"));
    stranger.wait_for_log("why it waits", |line| line.contains("waiting for the seeds") && line.contains("secret"));
    let second = node(free_address(), "n3", "a secret that is long enough").until_ready();
    wait_for(&second, &["alive", "alive"]);
}

/// What `--check-config` says of a directory's `node.toml`, which has a mistake.
fn refusal(dir: &Path, config: &str) -> String {
    let path = dir.join("node.toml");
    std::fs::write(&path, config).expect("a file");
    let mut command = Command::new(binaries().join("bifro-uring"));
    let output = command.arg("--check-config").arg("--config").arg(path).output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    told
}

#[test]
fn files_that_do_not_do_are_told_by_key_and_name_before_anything_runs() {
    let ca = Ca::new();
    let (good, other) = (ca.issue("n1"), ca.issue("n2"));
    let reachable = format!("[cluster]\nbind = \"10.0.0.1:7946\"\n{TLS}");
    let told_with = |change: &dyn Fn(&Path)| {
        let dir = fresh_dir("certificates");
        for (name, content) in &good {
            std::fs::write(dir.join(name), content).expect("a file");
        }
        change(&dir);
        let told = refusal(&dir, &reachable);
        std::fs::remove_dir_all(&dir).expect("it was made");
        told.replace(&format!("{}/", dir.display()), "")
    };
    let told = told_with(&|dir| std::fs::remove_file(dir.join("node.pem")).expect("it is there"));
    assert!(told.contains("cluster.tls.certificate = \"node.pem\": cannot be read: No such file"), "{told}");
    let told = told_with(&|dir| std::fs::write(dir.join("node.key"), &other[2].1).expect("a file"));
    assert!(told.contains("cluster.tls.key = \"node.key\": is not the key of the certificate in node.pem"), "{told}");
    let told = told_with(&|dir| std::fs::write(dir.join("ca.pem"), "no PEM").expect("a file"));
    assert!(told.contains("cluster.tls.ca = \"ca.pem\": has no certificate in PEM"), "{told}");
    let told = told_with(&|dir| std::fs::write(dir.join("ca.pem"), &Ca::new().issue("n1")[0].1).expect("a file"));
    assert!(told.contains("cluster.tls.certificate = \"node.pem\": was not issued by the CA in ca.pem"), "{told}");
}

#[test]
fn a_key_that_is_missing_from_the_configuration_is_told_by_its_line() {
    let dir = fresh_dir("certificates");
    for key in ["ca", "certificate", "key"] {
        let lines: Vec<&str> = TLS.lines().filter(|line| !line.starts_with(&format!("{key} = "))).collect();
        let told = refusal(&dir, &format!("[cluster]\n{}", lines.join("\n")));
        assert!(told.contains(&format!("node.toml:2: cluster.tls: missing field `{key}`")), "{told}");
    }
    let told = refusal(&dir, "[cluster]\nbind = \"10.0.0.1:7946\"\n");
    assert!(
        told.contains("node.toml:2: cluster.bind: other machines can reach it") && told.contains("[cluster.tls]"),
        "{told}"
    );
    std::fs::remove_dir_all(&dir).expect("it was made");
}
