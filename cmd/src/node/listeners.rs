//! From `[[listener]]` to sockets and stages.

use bifro_core::client::Transport;
use bifro_core::config::{ClientAuth, ListenerConfig, NodeConfig, Protocol, TlsConfig, TlsVersion};
use bifro_net::broker::ListenerSettings;
use bifro_net::limiter::{ConnLimiter, ConnLimits};
use bifro_net::ring::{listener_tcp, listener_unix};
use bifro_net::stage::proxy::ProxyConfig;
use bifro_net::stage::tls::{self, CertificateSource, PemFile, TlsCell, TlsConfigError, TlsSource};
use bifro_net::stage::websocket::WsConfig;
use bifro_net::stage::{IpNet, ListenerStages};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a listener could not be opened.
#[derive(Debug, Error)]
pub enum ListenerError {
    /// The socket.
    #[error("listener {name}: cannot listen: {source}; is another process using the address?")]
    Bind {
        /// The listener.
        name: String,
        /// The reason.
        source: std::io::Error,
    },
    /// Its certificates.
    #[error("listener {name}: {source}")]
    Tls {
        /// The listener.
        name: String,
        /// The reason.
        source: TlsConfigError,
    },
}

/// Transport of a protocol's connections.
const fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Tls => Transport::Tls,
        Protocol::Ws => Transport::Ws,
        Protocol::Wss => Transport::Wss,
        Protocol::Unix => Transport::Unix,
    }
}

/// What a listener is called in logs and messages.
pub(super) fn name(listener: &ListenerConfig) -> String {
    let protocol = protocol_name(listener.protocol);
    match (&listener.bind, &listener.path) {
        (Some(bind), _) => format!("{protocol} {bind}"),
        (None, Some(path)) => format!("{protocol} {path}"),
        (None, None) => protocol.to_owned(),
    }
}

/// The protocol as the configuration writes it.
pub(super) const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
        Protocol::Ws => "ws",
        Protocol::Wss => "wss",
        Protocol::Unix => "unix",
    }
}

/// Reads a listener's certificates.
///
/// # Errors
/// When a file cannot be used; the error names it.
pub(super) fn load_tls(config: &TlsConfig) -> Result<Arc<rustls::ServerConfig>, TlsConfigError> {
    let pair = |certificate: &str, key: &str| {
        Ok::<_, TlsConfigError>(CertificateSource {
            chain: PemFile::read(Path::new(certificate))?,
            key: PemFile::read(Path::new(key))?,
        })
    };
    let mut certificates = vec![pair(&config.certificate, &config.key)?];
    for sni in &config.sni {
        certificates.push(pair(&sni.certificate, &sni.key)?);
    }
    let authorities = config.client_ca.as_ref().map(|path| PemFile::read(Path::new(path))).transpose()?;
    let client_auth = match (config.client_auth, authorities) {
        (ClientAuth::Optional, Some(file)) => tls::ClientAuth::Optional(file),
        (ClientAuth::Required, Some(file)) => tls::ClientAuth::Required(file),
        // The configuration's rules refuse client authentication without authorities.
        _ => tls::ClientAuth::Off,
    };
    let minimum = match config.min_version {
        TlsVersion::V12 => tls::TlsVersion::Tls12,
        TlsVersion::V13 => tls::TlsVersion::Tls13,
    };
    tls::load(&TlsSource { certificates, minimum, client_auth })
}

fn networks(cidrs: &[bifro_core::config::Cidr]) -> Vec<IpNet> {
    // Both types write a network the same way, so what one prints the other reads.
    cidrs.iter().filter_map(|cidr| cidr.to_string().parse().ok()).collect()
}

/// Builds the settings of a listener; all shards share them.
///
/// # Errors
/// When its certificates cannot be used.
pub(super) fn settings(listener: &ListenerConfig, packet_bytes_max: u64) -> Result<ListenerSettings, ListenerError> {
    let tls = listener.tls.as_ref().filter(|_| listener.protocol.is_tls()).map(load_tls).transpose();
    let tls = tls.map_err(|source| ListenerError::Tls { name: name(listener), source })?;
    let stages = ListenerStages {
        proxy: listener
            .proxy_protocol
            .then(|| Arc::new(ProxyConfig { trusted: networks(&listener.proxy_trusted), required: true })),
        tls: tls.map(|config| Arc::new(TlsCell::new(config))),
        ws: listener.protocol.is_websocket().then(|| {
            Arc::new(WsConfig {
                path: listener.ws_path.clone(),
                frame_bytes_max: packet_bytes_max,
                trust_forwarded_for: networks(&listener.trust_forwarded_for),
            })
        }),
    };
    let limits = ConnLimits {
        connections_max: listener.connections_max,
        per_address_max: listener.connections_per_ip_max,
        accepts_per_s_max: listener.connects_per_s_max,
        accept_burst: listener.connects_per_s_max,
    };
    Ok(ListenerSettings {
        name: name(listener),
        transport: transport(listener.protocol),
        stages,
        limiter: Arc::new(ConnLimiter::new(&limits)),
        connect_deadline: Duration::from_secs(listener.connect_deadline_s.into()),
        pre_auth_packet_bytes_max: listener.pre_auth_packet_bytes_max,
    })
}

/// The largest WebSocket frame any tenant may need.
pub(super) fn frame_bytes_max(config: &NodeConfig) -> u64 {
    let tenants = config.tenant.values().chain([&config.tenant_defaults]);
    tenants.map(|tenant| u64::from(tenant.settings.packet_bytes_max())).max().unwrap_or(u64::from(u32::MAX))
}

/// A listener's sockets, one per shard, and the address it got.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Address, or path of a Unix socket.
    pub(super) address: String,
    /// By shard.
    pub(super) fds: Vec<OwnedFd>,
}

/// How long an address may stay taken although its owner is dead: the kernel takes the io_uring of a killed process apart,
/// and with it the sockets, only some time after the process is gone.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// Tries again for [`RELEASE_PATIENCE`] while the address is in use, so that a restart right after a crash succeeds.
pub(super) fn once_free<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Opens a listener on every shard: SO_REUSEPORT spreads TCP connections; a Unix socket is shared by duplicates.
///
/// # Errors
/// When the system refuses.
pub(super) fn open(listener: &ListenerConfig, shards: u16) -> Result<Sockets, ListenerError> {
    let bind = |source| ListenerError::Bind { name: name(listener), source };
    // The system caps it anyway (net.core.somaxconn).
    let backlog = i32::try_from(listener.backlog).unwrap_or(i32::MAX);
    if let Some(path) = &listener.path {
        let first = once_free(|| listener_unix(Path::new(path), listener.mode, backlog)).map_err(bind)?;
        let mut fds = Vec::new();
        for _ in 1..shards {
            fds.push(first.as_fd().try_clone_to_owned().map_err(bind)?);
        }
        fds.push(first);
        return Ok(Sockets { address: path.clone(), fds });
    }
    // The configuration's rules demand one of the two.
    let mut address = listener.bind.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 1883)));
    // SO_REUSEPORT would share the address with another process without a word: without it, the system says so.
    drop(once_free(|| listener_tcp(address, backlog, false)).map_err(bind)?);
    let mut fds = Vec::new();
    for _ in 0..shards {
        let fd = listener_tcp(address, backlog, true).map_err(bind)?;
        if address.port() == 0 {
            let socket = std::net::TcpListener::from(fd.try_clone().map_err(bind)?);
            address = socket.local_addr().map_err(bind)?;
        }
        fds.push(fd);
    }
    Ok(Sockets { address: address.to_string(), fds })
}
