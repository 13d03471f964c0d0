//! `bifroctl pub`: publishes messages, and with QoS 1 and 2 waits until the broker has taken each over.

use super::connection::Connection;
use super::options::{ConnectOptions, parse_qos};
use super::{Console, CtlError};
use crate::auth::LoadError;
use crate::auth::grant::PATTERN_LIMITS;
use crate::auth::source;
use bifro_core::message::QoS;
use bifro_mqtt::codec::encode;
use bifro_mqtt::packet::{Ack, Packet, PacketId, Publish, PublishProperties};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::topic::check_name;
use clap::Args;
use std::io::{BufRead, BufReader, Read};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// Largest payload: what a packet holds, less the longest topic.
const PAYLOAD_BYTES_MAX: usize = 268_435_455 - 65_535 - 16;

/// Arguments of `bifroctl pub`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    #[command(flatten)]
    connect: ConnectOptions,
    /// Topic to publish to.
    #[arg(long, short)]
    topic: String,
    /// Quality of service: 0, 1 or 2.
    #[arg(long, short, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Have the broker retain the message; an empty one clears what is retained.
    #[arg(long, short)]
    retain: bool,
    /// How often to publish each message.
    #[arg(long, short = 'C', default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Say on standard error what was published.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    payload: Payload,
}

/// Where the payload comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Payload {
    /// Payload.
    #[arg(long, short)]
    message: Option<String>,
    /// File with the payload.
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// All of standard input is the payload.
    #[arg(long, short)]
    stdin: bool,
    /// Each line of standard input is the payload of a message of its own.
    #[arg(long, short)]
    lines: bool,
    /// An empty payload.
    #[arg(long, short)]
    null: bool,
}

impl PublishArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        check_name(&self.topic, &PATTERN_LIMITS)
            .map_err(|error| CtlError::Usage(format!("{:?} is no topic name ({error})", self.topic)))?;
        let whole = self.payload.whole(console.input)?;
        let mut publisher =
            Publisher { args: self, connection: Connection::open(&self.connect)?, next_id: NonZeroU16::MIN };
        publisher.check()?;
        match whole {
            Some(payload) => publisher.publish(&payload, console)?,
            None => publisher.publish_lines(console)?,
        }
        publisher.connection.close()
    }
}

impl Payload {
    /// The payload; none if it comes line by line.
    fn whole(&self, input: &mut dyn Read) -> Result<Option<Vec<u8>>, CtlError> {
        if self.lines {
            return Ok(None);
        }
        Ok(Some(match (&self.message, &self.file) {
            (Some(message), _) => message.clone().into_bytes(),
            (None, Some(path)) => read_file(path)?,
            (None, None) if self.stdin => read_all(input)?,
            (None, None) => Vec::new(),
        }))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    source::read(path, PAYLOAD_BYTES_MAX)
}

fn read_all(input: &mut dyn Read) -> Result<Vec<u8>, CtlError> {
    let mut payload = Vec::new();
    let failed = |source| CtlError::Input { what: "the payload from standard input", source };
    input.take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut payload).map_err(failed)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(CtlError::Usage(format!("standard input has more than {PAYLOAD_BYTES_MAX} bytes")));
    }
    Ok(payload)
}

struct Publisher<'a> {
    args: &'a PublishArgs,
    connection: Connection,
    next_id: NonZeroU16,
}

impl Publisher<'_> {
    /// What the broker does not accept is not sent [MQTT5-3.2.2-11] [MQTT5-3.2.2-14].
    fn check(&self) -> Result<(), CtlError> {
        let limits = self.connection.limits();
        if self.args.qos > limits.qos {
            return Err(CtlError::Usage(format!("the broker accepts QoS {} at most; lower --qos", limits.qos as u8)));
        }
        if self.args.retain && !limits.retain {
            return Err(CtlError::Usage("the broker retains no messages; leave out --retain".to_owned()));
        }
        Ok(())
    }

    fn publish_lines(&mut self, console: &mut Console<'_>) -> Result<(), CtlError> {
        let mut lines = BufReader::new(&mut *console.input);
        loop {
            let mut line = Vec::new();
            let failed = |source| CtlError::Input { what: "a line from standard input", source };
            (&mut lines).take(PAYLOAD_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(failed)?;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            for _ in 0..self.args.count {
                self.publish_once(&line)?;
            }
        }
    }

    fn publish(&mut self, payload: &[u8], console: &mut Console<'_>) -> Result<(), CtlError> {
        for _ in 0..self.args.count {
            let matched = self.publish_once(payload)?;
            if self.args.verbose {
                let nobody = if matched { "" } else { ", nobody subscribes to it" };
                writeln!(console.notes, "published {} bytes to {}{nobody}", payload.len(), self.args.topic)
                    .map_err(CtlError::output)?;
            }
        }
        Ok(())
    }

    /// Publishes one message. False if the broker says that nobody subscribes to the topic.
    fn publish_once(&mut self, payload: &[u8]) -> Result<bool, CtlError> {
        let qos = self.args.qos;
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.take_id());
        let publish = Publish {
            dup: false,
            qos,
            retain: self.args.retain,
            topic: &self.args.topic,
            packet_id,
            properties: PublishProperties::default(),
            payload,
        };
        let mut bytes = Vec::new();
        encode(&Packet::Publish(publish), self.connection.version(), &mut bytes);
        let bytes_max = self.connection.limits().packet_bytes;
        if u32::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
            // [MQTT5-3.2.2-15]
            let problem =
                format!("the message makes a packet of {} bytes, the broker accepts {bytes_max}", bytes.len());
            return Err(CtlError::Usage(problem));
        }
        self.connection.send_bytes(&bytes)?;
        let Some(id) = packet_id else { return Ok(true) };
        if qos == QoS::AtLeastOnce {
            return self.wait(id, "waiting for PUBACK", |packet| match packet {
                Packet::PubAck(ack) => Some(*ack),
                _ => None,
            });
        }
        let matched = self.wait(id, "waiting for PUBREC", |packet| match packet {
            Packet::PubRec(ack) => Some(*ack),
            _ => None,
        })?;
        let release = Ack { packet_id: id, reason: Reason::SUCCESS, properties: Properties::default() };
        self.connection.send(&Packet::PubRel(release))?;
        self.wait(id, "waiting for PUBCOMP", |packet| match packet {
            Packet::PubComp(ack) => Some(*ack),
            _ => None,
        })?;
        Ok(matched)
    }

    /// Waits for the acknowledgement that `pick` recognises. False if its reason is that nobody subscribes.
    fn wait(
        &mut self,
        id: PacketId,
        doing: &'static str,
        pick: impl for<'p> Fn(&Packet<'p>) -> Option<Ack<'p>>,
    ) -> Result<bool, CtlError> {
        let answer = self.connection.receive(doing, self.connection.timeout(), |packet| {
            let ack = pick(packet).filter(|ack| ack.packet_id == id)?;
            Some((ack.reason, ack.properties.reason_string().map(str::to_owned)))
        })?;
        match answer {
            Some(Some((reason, detail))) if reason.is_error() => {
                Err(self.connection.refused(format!("the message to {}", self.args.topic), reason, detail))
            }
            Some(Some((reason, _))) => Ok(reason != Reason::NO_MATCHING_SUBSCRIBERS),
            Some(None) => Err(self.connection.protocol("another packet came than the acknowledgement that is due")),
            None => Err(self.connection.timed_out(doing)),
        }
    }

    fn take_id(&mut self) -> PacketId {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        id
    }
}
