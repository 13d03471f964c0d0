//! `bifroctl certs`: a CA for a cluster, and the certificates of its nodes.
//!
//! What it makes is what `[cluster.tls]` wants: certificates for servers and clients with the one DNS name that nodes call each other by. Each
//! is checked as a node will check it, before anything is written.

use super::Console;
use super::error::CtlError;
use crate::auth::source;
use bifro_net::links::tls::SERVER_NAME;
use bifro_net::links::{Certificates, ClusterPem};
use bifro_net::stage::tls::PemFile;
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest file read.
const PEM_BYTES_MAX: usize = 1 << 20;
/// Days a CA is valid: ten years.
const CA_DAYS: u32 = 3_650;
/// Days a node's certificate is valid: a year.
const NODE_DAYS: u32 = 365;
/// A hundred years.
const DAYS_MAX: i64 = 36_500;
const DAY: Duration = Duration::from_secs(86_400);
/// What clocks of nodes may be behind this one's.
const CLOCKS_APART: Duration = Duration::from_secs(3_600);
/// Longest name of a node: that of a certificate's owner (RFC 5280, A.1).
const NAME_CHARS_MAX: usize = 64;
/// Who may read what.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Makes certificates for the nodes of a cluster.
#[derive(Debug, Args)]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a CA: ca.pem, which all nodes need, and ca.key, which none does. Whoever has ca.key can make nodes.
    Ca {
        #[command(flatten)]
        place: Place,
        /// Days it is valid.
        #[arg(long, default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
    /// Make a node's certificate and key, NAME.pem and NAME.key, with the CA of the directory.
    Node {
        #[command(flatten)]
        place: Place,
        /// Whose they are: letters, digits, '.', '-' and '_'. Nodes do not look at it.
        #[arg(long)]
        name: String,
        /// Days they are valid; not longer than the CA is.
        #[arg(long, default_value_t = NODE_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// Directory of the CA; made if it is not there.
    #[arg(long)]
    dir: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

impl CertsArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        match &self.command {
            CertsCommand::Ca { place, days } => make_ca(console, place, *days),
            CertsCommand::Node { place, name, days } => make_node(console, place, name, *days),
        }
    }
}

fn make_ca(console: &mut Console<'_>, place: &Place, days: u32) -> Result<(), CtlError> {
    let pair = Pair::new(place, "ca")?;
    let key = KeyPair::generate()?;
    // Two CAs with one name would be hard to tell apart in a log.
    let digest = digest(&SHA256, key.public_key_raw());
    let mark: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let mut params = params(days, &format!("bifro-uring cluster CA {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    pair.write(&certificate.pem(), &key.serialize_pem())?;
    pair.report(console, "keep the second where nobody else can read it: it makes nodes")
}

fn make_node(console: &mut Console<'_>, place: &Place, name: &str, days: u32) -> Result<(), CtlError> {
    check_name(name)?;
    let pair = Pair::new(place, name)?;
    let ca = read(&place.dir.join("ca.pem"))?;
    let (issuer, ends) = issuer(&ca, &read(&place.dir.join("ca.key"))?)?;
    let key = KeyPair::generate()?;
    let mut params = params(days, name);
    if u64::try_from(params.not_after.unix_timestamp()).is_ok_and(|last| last > ends) {
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends);
    }
    let node = SERVER_NAME.try_into()?;
    params.subject_alt_names = vec![SanType::DnsName(node)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    let file = |path: &Path, text: &str| PemFile { name: path.display().to_string(), bytes: text.into() };
    Certificates::new(&ClusterPem {
        ca,
        certificate: file(&pair.certificate, &certificate),
        key: file(&pair.key, &key),
    })?;
    pair.write(&certificate, &key)?;
    pair.report(console, "copy both to the node, and ca.pem with them")
}

/// What certificates of a CA and of a node have in common.
fn params(days: u32, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    // A clock before 1970 makes a certificate that has expired, which the check tells.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCKS_APART);
    params.not_after = epoch + now + DAY * days;
    params
}

fn check_name(name: &str) -> Result<(), CtlError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
    let is_usable = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain);
    if !is_usable || name.len() > NAME_CHARS_MAX {
        let problem = format!(
            "{name:?} cannot be the name of files: take 1 to {NAME_CHARS_MAX} letters, digits, '.', '-' and '_', the first a \
             letter or digit"
        );
        return Err(CtlError::Usage(problem));
    }
    if name == "ca" {
        return Err(CtlError::Usage("\"ca\" is the name of the CA's files: take another for the node".to_owned()));
    }
    Ok(())
}

/// What signs certificates, and when the CA ends, in seconds since 1970.
fn issuer(ca: &PemFile, key: &PemFile) -> Result<(Issuer<'static, KeyPair>, u64), CtlError> {
    let fault = |file: &PemFile, problem: &str| CtlError::CertificateFile {
        file: file.name.clone(),
        problem: problem.to_owned(),
    };
    let der = CertificateDer::from_pem_slice(&ca.bytes).map_err(|_| fault(ca, "has no certificate in PEM"))?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|_| fault(ca, "has a certificate that cannot be read"))?;
    let text = std::str::from_utf8(&key.bytes).map_err(|_| fault(key, "has no private key in PEM"))?;
    let pair = KeyPair::from_pem(text).map_err(|_| fault(key, "has no private key in PEM that can be used"))?;
    if pair.subject_public_key_info() != certificate.public_key().raw {
        return Err(fault(key, &format!("is not the key of the certificate in {}", ca.name)));
    }
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    let issuer =
        Issuer::from_ca_cert_der(&der, pair).map_err(|_| fault(ca, "has a certificate that cannot be used"))?;
    Ok((issuer, ends))
}

fn read(path: &Path) -> Result<PemFile, CtlError> {
    if matches!(fs::metadata(path), Err(error) if error.kind() == ErrorKind::NotFound) {
        let dir = path.parent().unwrap_or(Path::new(".")).display();
        let problem = format!("there is none: `bifroctl certs ca --dir {dir}` makes a CA");
        return Err(CtlError::CertificateFile { file: path.display().to_string(), problem });
    }
    Ok(PemFile { name: path.display().to_string(), bytes: source::read(path, PEM_BYTES_MAX)? })
}

/// A certificate's file and that of its key.
struct Pair {
    dir: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    force: bool,
}

impl Pair {
    /// In this place, if it is free or may be replaced.
    fn new(place: &Place, name: &str) -> Result<Self, CtlError> {
        let path = |ending: &str| place.dir.join(format!("{name}.{ending}"));
        let (dir, force) = (place.dir.clone(), place.force);
        let pair = Self { dir, certificate: path("pem"), key: path("key"), force };
        // `write` does not overwrite either; asked here, nothing is made in vain, and not one file without the other.
        let taken = [&pair.certificate, &pair.key].into_iter().find(|path| fs::symlink_metadata(path).is_ok());
        if let Some(path) = taken.filter(|_| !pair.force) {
            return Err(CtlError::Exists { path: path.clone() });
        }
        Ok(pair)
    }

    fn write(&self, certificate: &str, key: &str) -> Result<(), CtlError> {
        fs::create_dir_all(&self.dir).map_err(CtlError::file(&self.dir, "make it"))?;
        self.write_one(&self.key, key, KEY_MODE)?;
        self.write_one(&self.certificate, certificate, CERTIFICATE_MODE)
    }

    fn write_one(&self, path: &Path, text: &str, mode: u32) -> Result<(), CtlError> {
        if self.force {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(CtlError::file(path, "replace it")(error));
                }
                _ => {}
            }
        }
        let create = |error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => CtlError::Exists { path: path.to_owned() },
            _ => CtlError::file(path, "create it")(error),
        };
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(create)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(CtlError::file(path, "write it"))
    }

    fn report(&self, console: &mut Console<'_>, advice: &str) -> Result<(), CtlError> {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        writeln!(console.notes, "made {certificate} and {key}; {advice}").map_err(CtlError::output)
    }
}
