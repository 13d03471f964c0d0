//! The command line of everything that connects.

use super::error::CtlError;
use crate::auth::source;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Largest password file of a client.
const PASSWORD_BYTES_MAX: usize = 65_535 + 2;

/// Protocol version to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[default]
    #[value(name = "5")]
    V5,
}

/// Options of the connection.
#[derive(Clone, Debug, Args)]
pub(super) struct ConnectOptions {
    /// Host name or address of the broker.
    #[arg(long, short = 'H', default_value = "localhost")]
    pub(super) host: String,
    /// Port of the broker; 1883, with TLS 8883.
    #[arg(long, short)]
    port: Option<u16>,
    /// Version of MQTT.
    #[arg(long, short = 'V', value_enum, default_value_t)]
    protocol: Protocol,
    /// Client identifier; without one the broker assigns it.
    #[arg(long, short, default_value = "")]
    pub(super) id: String,
    /// User name.
    #[arg(long, short)]
    pub(super) username: Option<String>,
    /// Password; visible to other users of this machine.
    #[arg(long, short = 'P', conflicts_with = "password_file")]
    password: Option<String>,
    /// File with the password; one line break at its end is not part of it.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Seconds to wait for the connection, and for each answer.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Use TLS and trust the web's certificate authorities, unless --cafile names others.
    #[arg(long)]
    tls: bool,
    /// PEM file of certificate authorities to trust; implies --tls.
    #[arg(long)]
    pub(super) cafile: Option<PathBuf>,
    /// PEM file with the client's certificate chain; implies --tls.
    #[arg(long, requires = "key")]
    pub(super) cert: Option<PathBuf>,
    /// PEM file with the client's private key.
    #[arg(long, requires = "cert")]
    pub(super) key: Option<PathBuf>,
    /// Use TLS without checking who the broker is: whoever sits between may read and change everything.
    #[arg(long, conflicts_with = "cafile")]
    pub(super) insecure: bool,
}

impl ConnectOptions {
    pub(super) const fn uses_tls(&self) -> bool {
        self.tls || self.insecure || self.cafile.is_some() || self.cert.is_some()
    }

    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.uses_tls() { 8883 } else { 1883 })
    }

    /// Host and port, for messages.
    pub(super) fn server(&self) -> String {
        format!("{}:{}", self.host, self.port())
    }

    pub(super) const fn version(&self) -> Version {
        match self.protocol {
            Protocol::V311 => Version::V311,
            Protocol::V5 => Version::V5,
        }
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The password, from wherever it is to come.
    pub(super) fn password(&self) -> Result<Option<Vec<u8>>, CtlError> {
        let Some(path) = &self.password_file else {
            return Ok(self.password.clone().map(String::into_bytes));
        };
        let mut password = source::read(path, PASSWORD_BYTES_MAX)?;
        if password.last() == Some(&b'\n') {
            password.pop();
            if password.last() == Some(&b'\r') {
                password.pop();
            }
        }
        Ok(Some(password))
    }
}

/// Reads `--qos`.
pub(super) fn parse_qos(text: &str) -> Result<QoS, String> {
    let bits = text.parse().ok();
    bits.and_then(QoS::from_bits).ok_or_else(|| "QoS is 0, 1 or 2".to_owned())
}
