//! One blocking MQTT connection of the tool: CONNECT to DISCONNECT, keep-alive, and packets one at a time.

use super::error::CtlError;
use super::options::ConnectOptions;
use super::tls;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::{DecodeOptions, decode, encode};
use bifro_mqtt::packet::{ConnAck, Connect, Disconnect, Packet};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Keep Alive asked for, in seconds.
const KEEP_ALIVE_S: u16 = 60;

/// Largest packet there can be: the tool takes what the broker takes.
const PACKET_BYTES_MAX: u32 = 268_435_460;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A connection after CONNACK.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    /// The socket under `stream`, for its timeouts.
    socket: TcpStream,
    server: String,
    version: Version,
    timeout: Duration,
    received: Vec<u8>,
    consumed: usize,
    last_sent: Instant,
    keep_alive: Duration,
    limits: Limits,
}

/// What the broker accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) packet_bytes: u32,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &self.server)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and waits for CONNACK.
    ///
    /// # Errors
    /// [`CtlError`].
    pub(super) fn open(options: &ConnectOptions) -> Result<Self, CtlError> {
        let (server, version) = (options.server(), options.version());
        let password = options.password()?;
        if version == Version::V311 && password.is_some() && options.username.is_none() {
            // [MQTT-3.1.2-22]
            return Err(CtlError::Usage("MQTT 3.1.1 has no password without a user name; add --username".to_owned()));
        }
        for (name, bytes) in
            [("--id", options.id.len()), ("--username", options.username.as_ref().map_or(0, String::len))]
        {
            check_length(name, bytes)?;
        }
        check_length("--password", password.as_ref().map_or(0, Vec::len))?;
        let socket = connect_socket(options)?;
        let failed = |source| CtlError::Connect { server: server.clone(), source };
        socket.set_nodelay(true).map_err(failed)?;
        socket.set_write_timeout(Some(options.timeout())).map_err(failed)?;
        let under = socket.try_clone().map_err(failed)?;
        let stream: Box<dyn Stream> =
            if options.uses_tls() { Box::new(tls::wrap(options, socket)?) } else { Box::new(socket) };
        let mut connection = Self {
            stream,
            socket: under,
            server,
            version,
            timeout: options.timeout(),
            received: Vec::new(),
            consumed: 0,
            last_sent: Instant::now(),
            keep_alive: Duration::from_secs(KEEP_ALIVE_S.into()),
            limits: Limits { qos: QoS::ExactlyOnce, retain: true, packet_bytes: PACKET_BYTES_MAX },
        };
        connection.introduce(options, password.as_deref())?;
        Ok(connection)
    }

    fn introduce(&mut self, options: &ConnectOptions, password: Option<&[u8]>) -> Result<(), CtlError> {
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: true,
            keep_alive: KEEP_ALIVE_S,
            properties: Properties::default(),
            client_id: &options.id,
            will: None,
            username: options.username.as_deref(),
            password,
        };
        self.send(&Packet::Connect(connect))?;
        let answer = self.receive("waiting for CONNACK", self.timeout, |packet| match packet {
            Packet::ConnAck(ack) => Some(Answer::of(ack)),
            _ => None,
        })?;
        match answer {
            Some(Some(Answer { refusal: None, limits, keep_alive_s })) => {
                self.limits = limits;
                self.keep_alive = Duration::from_secs(keep_alive_s.unwrap_or(KEEP_ALIVE_S).into());
                Ok(())
            }
            Some(Some(Answer { refusal: Some((reason, detail)), .. })) => {
                Err(self.refused("the connection", from_v3(reason, self.version), detail))
            }
            Some(None) => Err(self.protocol("the first packet is no CONNACK")),
            None => Err(CtlError::Timeout { server: self.server.clone(), doing: "waiting for CONNACK" }),
        }
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// How long to wait for an answer.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    /// How long to wait before [`Connection::keep_alive`] is due.
    pub(super) fn idle_time(&self) -> Duration {
        if self.keep_alive.is_zero() {
            return Duration::from_secs(3_600);
        }
        (self.keep_alive / 2).saturating_sub(self.last_sent.elapsed()).max(Duration::from_millis(10))
    }

    /// Sends PINGREQ if nothing else was sent for half of Keep Alive [MQTT-3.1.2-23] [MQTT5-3.1.2-20]. Says whether it did.
    pub(super) fn keep_alive(&mut self) -> Result<bool, CtlError> {
        if self.keep_alive.is_zero() || self.last_sent.elapsed() < self.keep_alive / 2 {
            return Ok(false);
        }
        self.send(&Packet::PingReq)?;
        Ok(true)
    }

    /// Sends one packet.
    pub(super) fn send(&mut self, packet: &Packet<'_>) -> Result<(), CtlError> {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes);
        self.send_bytes(&bytes)
    }

    /// Sends encoded packets.
    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), CtlError> {
        let sent = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        sent.map_err(|source| self.lost("sending", source))?;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Waits for a packet and hands it to `handle`; none if there was none in `patience`.
    ///
    /// # Errors
    /// [`CtlError`]; a DISCONNECT from the broker is one.
    pub(super) fn receive<T>(
        &mut self,
        doing: &'static str,
        patience: Duration,
        handle: impl FnOnce(&Packet<'_>) -> T,
    ) -> Result<Option<T>, CtlError> {
        let deadline = Instant::now() + patience;
        let options = DecodeOptions { version: Some(self.version), packet_bytes_max: PACKET_BYTES_MAX };
        loop {
            let decoded = decode(&self.received[self.consumed..], &options)
                .map_err(|error| CtlError::malformed(&self.server, error))?;
            if let Some((packet, length)) = decoded {
                if let Packet::Disconnect(Disconnect { reason, properties }) = packet {
                    return Err(self.refused("to go on", reason, properties.reason_string().map(str::to_owned)));
                }
                let value = handle(&packet);
                self.consumed += length;
                return Ok(Some(value));
            }
            self.received.drain(..self.consumed);
            self.consumed = 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.read(doing, left)? {
                return Ok(None);
            }
        }
    }

    /// Reads what comes within `patience`; false if nothing does.
    fn read(&mut self, doing: &'static str, patience: Duration) -> Result<bool, CtlError> {
        self.socket.set_read_timeout(Some(patience)).map_err(|source| self.lost(doing, source))?;
        let before = self.received.len();
        self.received.resize(before + READ_BYTES, 0);
        let read = self.stream.read(&mut self.received[before..]);
        self.received.truncate(before + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(self.lost(doing, ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(self.lost(doing, error)),
        }
    }

    /// Says DISCONNECT and closes.
    pub(super) fn close(mut self) -> Result<(), CtlError> {
        self.send(&Packet::Disconnect(Disconnect { reason: Reason::SUCCESS, properties: Properties::default() }))
    }

    pub(super) fn refused(&self, what: impl Into<String>, reason: Reason, detail: Option<String>) -> CtlError {
        let detail = detail.map(|text| format!(" ({text})")).unwrap_or_default();
        CtlError::Refused { server: self.server.clone(), what: what.into(), reason, detail }
    }

    pub(super) fn protocol(&self, problem: &str) -> CtlError {
        CtlError::Protocol { server: self.server.clone(), problem: problem.to_owned() }
    }

    pub(super) fn timed_out(&self, doing: &'static str) -> CtlError {
        CtlError::Timeout { server: self.server.clone(), doing }
    }

    fn lost(&self, doing: &'static str, source: std::io::Error) -> CtlError {
        let is_tls_fault = source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        if is_tls_fault {
            return CtlError::Tls { server: self.server.clone(), problem: source.to_string() };
        }
        CtlError::Lost { server: self.server.clone(), doing, source }
    }
}

/// What a CONNACK says.
struct Answer {
    refusal: Option<(Reason, Option<String>)>,
    limits: Limits,
    keep_alive_s: Option<u16>,
}

impl Answer {
    fn of(ack: &ConnAck<'_>) -> Self {
        let properties = &ack.properties;
        let detail = || properties.reason_string().map(str::to_owned);
        Self {
            refusal: (ack.reason != Reason::SUCCESS).then(|| (ack.reason, detail())),
            limits: Limits {
                qos: properties.maximum_qos().unwrap_or(QoS::ExactlyOnce),
                retain: properties.retain_available().unwrap_or(true),
                packet_bytes: properties.maximum_packet_size().unwrap_or(PACKET_BYTES_MAX),
            },
            keep_alive_s: properties.server_keep_alive(),
        }
    }
}

/// The reason that a CONNACK return code of MQTT 3.1.1 stands for (its table 3.1).
const fn from_v3(reason: Reason, version: Version) -> Reason {
    if matches!(version, Version::V5) {
        return reason;
    }
    match reason.0 {
        1 => Reason::UNSUPPORTED_PROTOCOL_VERSION,
        2 => Reason::CLIENT_IDENTIFIER_NOT_VALID,
        3 => Reason::SERVER_UNAVAILABLE,
        4 => Reason::BAD_USER_NAME_OR_PASSWORD,
        5 => Reason::NOT_AUTHORIZED,
        _ => reason,
    }
}

/// MQTT gives strings and passwords two bytes for their length.
fn check_length(name: &str, bytes: usize) -> Result<(), CtlError> {
    if bytes <= usize::from(u16::MAX) {
        return Ok(());
    }
    Err(CtlError::Usage(format!("{name} has {bytes} bytes, but 65,535 are possible")))
}

/// Tries the host's addresses in turn.
fn connect_socket(options: &ConnectOptions) -> Result<TcpStream, CtlError> {
    let failed = |source| CtlError::Connect { server: options.server(), source };
    let addresses = (options.host.as_str(), options.port()).to_socket_addrs().map_err(failed)?;
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, options.timeout()) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}
