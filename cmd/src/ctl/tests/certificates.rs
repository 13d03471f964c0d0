//! `bifroctl certs`, checked with what reads its files in a node.

use super::{TempDir, bifroctl, is_refused, mode};
use bifro_core::config::ClusterTlsConfig;
use bifro_net::links::{CertificateFault, Certificates};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use std::fs;
use std::path::Path;

/// What the tool says of this command: a note, or an error.
fn certs(args: &[&str], dir: &TempDir) -> Result<String, String> {
    let run = bifroctl(&[&["certs"], args, &["--dir", &dir.0.display().to_string()]].concat(), b"", &[]);
    assert!(run.output.is_empty(), "{}", run.output);
    run.result.map(|()| run.notes).map_err(|error| error.to_string())
}

fn load(ca: &Path, dir: &Path, name: &str) -> Result<Certificates, CertificateFault> {
    let path = |path: std::path::PathBuf| path.display().to_string();
    Certificates::load(&ClusterTlsConfig {
        ca: path(ca.to_owned()),
        certificate: path(dir.join(format!("{name}.pem"))),
        key: path(dir.join(format!("{name}.key"))),
    })
}

#[test]
fn what_is_made_for_a_node_is_what_nodes_of_the_same_ca_take() {
    let (one, two) = (TempDir::new(), TempDir::new());
    for dir in [&one, &two] {
        let told = certs(&["ca"], dir).expect("made");
        assert!(told.contains("ca.pem and ") && told.contains("ca.key; keep the second"), "{told}");
        let told = certs(&["node", "--name", "node-1.example.com"], dir).expect("made");
        assert!(told.contains("node-1.example.com.pem and ") && told.contains("copy both to the node"), "{told}");
        assert_eq!((mode(dir.0.join("ca.key")), mode(dir.0.join("ca.pem"))), (0o600, 0o644));
        assert_eq!(mode(dir.0.join("node-1.example.com.key")), 0o600);
        load(&dir.0.join("ca.pem"), &dir.0, "node-1.example.com").expect("in order");
    }
    let told = load(&two.0.join("ca.pem"), &one.0, "node-1.example.com").expect_err("another CA").to_string();
    assert!(told.contains("node-1.example.com.pem\": was not issued by the CA in "), "{told}");
}

#[test]
fn nothing_is_overwritten_unless_it_is_asked_for() {
    let dir = TempDir::new();
    let content = |name: &str| fs::read_to_string(dir.0.join(name)).expect("it exists");
    certs(&["ca"], &dir).expect("made");
    let before = (content("ca.pem"), content("ca.key"));
    let told = certs(&["ca"], &dir).expect_err("it exists");
    assert!(told.contains("ca.pem: exists already, and nothing was written"), "{told}");
    // A key alone is in the way as well, and then there is no certificate without it.
    fs::write(dir.0.join("n1.key"), "").expect("writable");
    let told = certs(&["node", "--name", "n1"], &dir).expect_err("it exists");
    assert!(told.contains("n1.key: exists already") && !dir.0.join("n1.pem").exists(), "{told}");
    assert_eq!(before, (content("ca.pem"), content("ca.key")));

    certs(&["node", "--name", "n1", "--force"], &dir).expect("made");
    assert_eq!(mode(dir.0.join("n1.key")), 0o600, "whatever it was");
    certs(&["ca", "--force"], &dir).expect("made");
    assert_ne!(before, (content("ca.pem"), content("ca.key")));
    load(&dir.0.join("ca.pem"), &dir.0, "n1").expect_err("it is of the CA that was replaced");
}

#[test]
fn what_keeps_a_certificate_from_being_made_is_told() {
    let (dir, other) = (TempDir::new(), TempDir::new());
    let refused = |dir: &TempDir, expected: &str| {
        let told = certs(&["node", "--name", "n1"], dir).expect_err("a fault");
        assert!(told.contains(expected), "told:     {told}\nexpected: {expected}");
        assert!(!dir.0.join("n1.pem").exists() && !dir.0.join("n1.key").exists());
    };
    let nowhere = TempDir(dir.0.join("nowhere"));
    refused(&nowhere, "ca.pem: there is none: `bifroctl certs ca --dir ");
    assert!(!nowhere.0.exists(), "a CA makes its directory, a node does not");
    certs(&["ca"], &nowhere).expect("made, and its directory with it");
    certs(&["ca"], &dir).expect("made");
    certs(&["ca"], &other).expect("made");
    fs::copy(other.0.join("ca.key"), dir.0.join("ca.key")).expect("writable");
    refused(&dir, "ca.key: is not the key of the certificate in ");
    fs::write(dir.0.join("ca.key"), "no key").expect("writable");
    refused(&dir, "ca.key: has no private key in PEM");
    fs::remove_file(dir.0.join("ca.key")).expect("writable");
    refused(&dir, "ca.key: there is none");
    fs::write(dir.0.join("ca.pem"), "no certificate").expect("writable");
    fs::write(dir.0.join("ca.key"), "").expect("writable");
    refused(&dir, "ca.pem: has no certificate in PEM");
    for name in ["", "ca", "../n1", ".n1", "a b", &"n".repeat(65)] {
        let told = certs(&["node", "--name", name], &other).expect_err("no name");
        assert!(told.contains("name of"), "{name:?}: {told}");
    }
}

#[test]
fn a_ca_that_has_expired_makes_no_nodes() {
    let dir = TempDir::new();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(2001, 1, 1);
    let certificate = params.self_signed(&key).expect("an authority");
    fs::write(dir.0.join("ca.pem"), certificate.pem()).expect("writable");
    fs::write(dir.0.join("ca.key"), key.serialize_pem()).expect("writable");
    let told = certs(&["node", "--name", "n1"], &dir).expect_err("it has expired");
    assert!(told.contains("ca.pem: has expired on Jan  1 ") && told.ends_with("; nothing was written"), "{told}");
    assert!(!dir.0.join("n1.pem").exists() && !dir.0.join("n1.key").exists());
}

#[test]
fn a_node_does_not_outlive_its_ca() {
    let dir = TempDir::new();
    certs(&["ca", "--days", "2"], &dir).expect("made");
    certs(&["node", "--name", "n1", "--days", "900"], &dir).expect("made");
    certs(&["node", "--name", "n2", "--days", "1"], &dir).expect("made");
    let ends = |name: &str| {
        let pem = fs::read(dir.0.join(name)).expect("it exists");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        pem.parse_x509().expect("a certificate").validity().not_after.timestamp()
    };
    assert_eq!(ends("n1.pem"), ends("ca.pem"));
    assert!((86_300..86_500).contains(&(ends("ca.pem") - ends("n2.pem"))));
    assert!(is_refused(&["certs", "ca", "--dir", "x", "--days", "0"]));
    assert!(is_refused(&["certs", "node", "--dir", "x"]));
}
