//! Nodes with certificates: which of them take each other, and what is said of files that do not do.

use super::*;
use crate::stage::tls::PemFile;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What a certificate is made of, and the years from and until which it is valid.
#[derive(Clone, Copy)]
struct Wanted {
    name: &'static str,
    years: (i32, i32),
    uses: &'static [ExtendedKeyUsagePurpose],
}

const NODE: Wanted = Wanted {
    name: tls::SERVER_NAME,
    years: (2000, 2100),
    uses: &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
};

impl Ca {
    /// All have one name, as those of two clusters may have.
    fn new() -> Self {
        Self::until(2100)
    }

    fn until(year: i32) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "a cluster's CA");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    fn issue(&self, wanted: Wanted) -> ClusterPem {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([wanted.name.to_owned()]).expect("a name");
        params.extended_key_usages = wanted.uses.to_vec();
        params.not_before = date_time_ymd(wanted.years.0, 1, 1);
        params.not_after = date_time_ymd(wanted.years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        ClusterPem {
            ca: file("ca.pem", &self.0.pem()),
            certificate: file("node.pem", &certificate.pem()),
            key: file("node.key", &key.serialize_pem()),
        }
    }

    fn node(&self) -> Certificates {
        Certificates::new(&self.issue(NODE)).expect("a node's certificate")
    }

    /// Whatever it is good for.
    fn holder(&self, wanted: Wanted) -> Certificates {
        Certificates::parse(&self.issue(wanted)).expect("well-formed")
    }
}

fn file(name: &str, text: &str) -> PemFile {
    PemFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn with(node: u64, secret: &str, certificates: Option<Certificates>) -> LinksConfig {
    LinksConfig { certificates, ..config(node, secret) }
}

/// The first calls the second, and neither comes up; what the first is told.
#[track_caller]
fn refused(one: Option<Certificates>, two: Option<Certificates>) -> String {
    let mut pair = Pair::new(with(1, "", one), with(2, "", two));
    pair.one.dial(pair.two.links.local_addr());
    let failed = |end: &End| end.links.counters().handshakes_failed == 1;
    pair.until("refused at both ends", |pair| failed(&pair.one) && failed(&pair.two));
    assert!(pair.one.ups().is_empty() && pair.two.events.is_empty());
    let [(_, false, reason)] = &pair.one.downs()[..] else { panic!("{:?}", pair.one.downs()) };
    reason.clone()
}

#[test]
fn certificates_of_one_ca_come_up_without_a_secret_and_with_one() {
    let ca = Ca::new();
    for secret in ["", "secret"] {
        let (pair, ..) = Pair::linked(with(1, secret, Some(ca.node())), with(2, secret, Some(ca.node())));
        assert!(pair.one.downs().is_empty() && pair.two.downs().is_empty());
    }
}

#[test]
fn a_certificate_does_not_stand_for_the_secret() {
    let ca = Ca::new();
    let mut pair = Pair::new(with(1, "secret", Some(ca.node())), with(2, "another", Some(ca.node())));
    pair.one.dial(pair.two.links.local_addr());
    pair.until("refused", |pair| !pair.one.downs().is_empty());
    assert!(pair.one.downs()[0].2.contains("the cluster's secret was not proven"), "{:?}", pair.one.downs());
    assert!(pair.one.ups().is_empty() && pair.two.ups().is_empty());
}

#[test]
fn certificates_of_two_cas_are_refused_at_both_ends() {
    let reason = refused(Some(Ca::new().node()), Some(Ca::new().node()));
    assert!(reason.contains("its certificate is not of the same CA"), "{reason}");
}

/// Whoever calls trusts both, so that the one called has to refuse.
#[test]
fn a_caller_of_another_ca_is_told_by_the_one_it_calls() {
    let (ours, other) = (Ca::new(), Ca::new());
    let mut trusting = other.issue(NODE);
    trusting.ca.bytes.extend_from_slice(ours.0.pem().as_bytes());
    let reason = refused(Some(Certificates::new(&trusting).expect("in order")), Some(ours.node()));
    assert!(reason.contains("does not take this node's certificate, which is not of the same CA"), "{reason}");
}

#[test]
fn no_certificate_is_refused_whoever_calls() {
    let ca = Ca::new();
    let reason = refused(None, Some(ca.node()));
    assert!(reason.contains("this node's certificate, which is missing"), "{reason}");
    let reason = refused(Some(ca.node()), None);
    assert!(reason.contains("its certificate is not of the same CA"), "{reason}");
}

#[test]
fn a_certificate_out_of_its_time_is_refused_whoever_calls() {
    let ca = Ca::new();
    for years in [(2000, 2001), (2099, 2100)] {
        let late = || ca.holder(Wanted { years, ..NODE });
        let reason = refused(Some(late()), Some(ca.node()));
        assert!(reason.contains("this node's certificate, which has expired or is not valid yet"), "{reason}");
        let reason = refused(Some(ca.node()), Some(late()));
        assert!(reason.contains("its certificate has expired or is not valid yet"), "{reason}");
    }
}

#[test]
fn a_certificate_of_the_ca_for_something_else_is_refused_whoever_calls() {
    let ca = Ca::new();
    let of_a_client = Wanted { name: "client.example.com", ..NODE };
    let for_servers = Wanted { uses: &NODE.uses[..1], ..NODE };
    for (wanted, caller) in [(of_a_client, true), (of_a_client, false), (for_servers, true)] {
        let (holder, node) = (Some(ca.holder(wanted)), Some(ca.node()));
        let reason = if caller { refused(holder, node) } else { refused(node, holder) };
        assert!(reason.contains("is not that of a node"), "{reason}");
    }
}

#[track_caller]
fn assert_fault(pem: &ClusterPem, expected: &str) {
    let told = Certificates::new(pem).expect_err("a fault").to_string();
    assert!(told.starts_with(expected), "told:     {told}\nexpected: {expected}");
}

#[test]
fn a_file_that_does_not_do_is_told_by_key_name_and_reason() {
    let (ca, good) = (Ca::new(), Ca::new().issue(NODE));
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let of_ca = |text: &str| ClusterPem { ca: file("ca.pem", text), ..good.clone() };
    assert_fault(&of_ca("no PEM"), "cluster.tls.ca = \"ca.pem\": has no certificate in PEM: there is none");
    assert_fault(&of_ca(garbled), "cluster.tls.ca = \"ca.pem\": has a certificate that cannot be read");
    let leaf = String::from_utf8_lossy(&good.certificate.bytes).into_owned();
    assert_fault(
        &of_ca(&leaf),
        "cluster.tls.ca = \"ca.pem\": has the certificate of CN=rcgen self signed cert, which is no CA",
    );
    assert_fault(&of_ca(&Ca::until(2001).0.pem()), "cluster.tls.ca = \"ca.pem\": has expired on Jan  1 ");
    assert_fault(&of_ca(&ca.0.pem()), "cluster.tls.certificate = \"node.pem\": was not issued by the CA in ca.pem");

    let of_node = |text: &str| ClusterPem { certificate: file("node.pem", text), ..good.clone() };
    assert_fault(&of_node(""), "cluster.tls.certificate = \"node.pem\": has no certificate in PEM");
    assert_fault(&of_node(garbled), "cluster.tls.certificate = \"node.pem\": ");
    let other = String::from_utf8_lossy(&ca.issue(NODE).key.bytes).into_owned();
    for (text, expected) in
        [("", "has no private key in PEM"), (&other, "is not the key of the certificate in node.pem")]
    {
        let pem = ClusterPem { key: file("node.key", text), ..good.clone() };
        assert_fault(&pem, &format!("cluster.tls.key = \"node.key\": {expected}"));
    }
}

#[test]
fn a_certificate_that_no_node_would_take_is_told_at_the_start() {
    let ca = Ca::new();
    for (wanted, expected) in [
        (Wanted { years: (2000, 2001), ..NODE }, "has expired: make another"),
        (Wanted { years: (2099, 2100), ..NODE }, "is not valid yet"),
        (Wanted { name: "node-1.example.com", ..NODE }, "is not for the name \"bifro-uring-node\""),
        (Wanted { uses: &NODE.uses[..1], ..NODE }, "must be for servers and for clients"),
        (Wanted { uses: &NODE.uses[1..], ..NODE }, "must be for servers and for clients"),
    ] {
        assert_fault(&ca.issue(wanted), &format!("cluster.tls.certificate = \"node.pem\": {expected}"));
    }
}

#[test]
fn an_expired_ca_may_stand_beside_its_successor_and_is_not_trusted() {
    let (old, new) = (Ca::until(2001), Ca::new());
    let both = old.0.pem() + &new.0.pem();
    let pem = ClusterPem { ca: file("ca.pem", &both), ..new.issue(NODE) };
    Certificates::new(&pem).expect("the successor does");
    let pem = ClusterPem { ca: file("ca.pem", &both), ..old.issue(NODE) };
    assert_fault(&pem, "cluster.tls.certificate = \"node.pem\": was not issued by the CA in ca.pem");
}
