//! `bifroctl sub`: subscribes, and prints the payload of each message, followed by a line break.

use super::connection::Connection;
use super::options::{ConnectOptions, parse_qos};
use super::{Console, CtlError};
use crate::auth::grant::PATTERN_LIMITS;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use bifro_mqtt::codec::encode;
use bifro_mqtt::packet::{Ack, Packet, PacketId, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeFilters};
use bifro_mqtt::property::Properties;
use bifro_mqtt::reason::Reason;
use bifro_mqtt::topic::ParsedFilter;
use clap::Args;
use std::collections::HashSet;
use std::io::{self, Write};
use std::num::NonZeroU16;

/// Arguments of `bifroctl sub`.
#[derive(Debug, Args)]
pub(super) struct SubscribeArgs {
    #[command(flatten)]
    connect: ConnectOptions,
    /// Topic filter; may be given several times.
    #[arg(long, short, required = true)]
    topic: Vec<String>,
    /// Quality of service asked for: 0, 1 or 2.
    #[arg(long, short, default_value = "0", value_parser = parse_qos)]
    qos: QoS,
    /// Leave out messages that were retained before (MQTT 5 only).
    #[arg(long)]
    no_retained: bool,
    /// End after so many messages; without it, never.
    #[arg(long, short = 'C', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print the topic before each payload, and on standard error when the subscription is made.
    #[arg(long, short)]
    verbose: bool,
}

/// What a packet from the broker comes to.
enum Received {
    /// The subscription is answered: refused filters with their codes.
    Answered(Vec<(usize, Reason)>),
    /// A message was printed, or not because it was a duplicate; something is to be sent.
    Message { printed: bool, reply: Vec<u8> },
    /// Something that only needs a reply.
    Reply(Vec<u8>),
    /// The broker is alive.
    Pong,
    /// Nothing that may come here.
    Unexpected,
}

impl SubscribeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        for filter in &self.topic {
            ParsedFilter::parse(filter, &PATTERN_LIMITS)
                .map_err(|error| CtlError::Usage(format!("{filter:?} is no topic filter ({error})")))?;
        }
        let mut connection = Connection::open(&self.connect)?;
        self.subscribe(&mut connection)?;
        Subscriber { args: self, version: connection.version(), answered: false, printed: 0, held: HashSet::new() }
            .run(&mut connection, console)?;
        connection.close()
    }

    fn subscribe(&self, connection: &mut Connection) -> Result<(), CtlError> {
        let filters = self.topic.iter().map(|filter| SubscribeFilter {
            filter,
            qos: self.qos,
            no_local: false,
            retain_as_published: true,
            retain_handling: if self.no_retained { 2 } else { 0 },
        });
        let mut scratch = Vec::new();
        let subscribe = Subscribe {
            packet_id: NonZeroU16::MIN,
            properties: Properties::default(),
            filters: SubscribeFilters::encode(filters, &mut scratch),
        };
        connection.send(&Packet::Subscribe(subscribe))
    }
}

struct Subscriber<'a> {
    args: &'a SubscribeArgs,
    version: Version,
    answered: bool,
    printed: u64,
    /// QoS 2 messages whose PUBREL is due: a repetition is not printed again [MQTT-4.3.3-2] [MQTT5-4.3.3-10].
    held: HashSet<PacketId>,
}

impl Subscriber<'_> {
    fn run(mut self, connection: &mut Connection, console: &mut Console<'_>) -> Result<(), CtlError> {
        let mut ping_unanswered = false;
        while self.args.count.is_none_or(|count| self.printed < count) {
            let patience = if self.answered { connection.idle_time() } else { connection.timeout() };
            let received =
                connection.receive("waiting for messages", patience, |packet| self.handle(packet, console.output))?;
            match received {
                Some(received) => {
                    ping_unanswered = false;
                    self.follow_up(received.map_err(CtlError::output)?, connection, console)?;
                }
                None if !self.answered => return Err(connection.timed_out("waiting for SUBACK")),
                None if ping_unanswered => return Err(connection.timed_out("waiting for PINGRESP")),
                None => {}
            }
            ping_unanswered |= connection.keep_alive()?;
        }
        Ok(())
    }

    fn follow_up(
        &mut self,
        received: Received,
        connection: &mut Connection,
        console: &mut Console<'_>,
    ) -> Result<(), CtlError> {
        match received {
            Received::Answered(refused) => {
                if let Some((index, reason)) = refused.first() {
                    let filter = self.args.topic.get(*index).map_or("", String::as_str);
                    return Err(connection.refused(format!("the subscription to {filter}"), *reason, None));
                }
                self.answered = true;
                if self.args.verbose {
                    writeln!(console.notes, "subscribed to {}", self.args.topic.join(", "))
                        .map_err(CtlError::output)?;
                }
                Ok(())
            }
            Received::Message { printed, reply } => {
                self.printed += u64::from(printed);
                if reply.is_empty() { Ok(()) } else { connection.send_bytes(&reply) }
            }
            Received::Reply(reply) => connection.send_bytes(&reply),
            Received::Pong => Ok(()),
            Received::Unexpected => Err(connection.protocol("a packet came that a client does not get here")),
        }
    }

    fn handle(&mut self, packet: &Packet<'_>, output: &mut dyn Write) -> io::Result<Received> {
        Ok(match packet {
            Packet::SubAck(ack) if !self.answered => self.check(ack),
            Packet::Publish(publish) => self.handle_publish(publish, output)?,
            Packet::PubRel(ack) => {
                self.held.remove(&ack.packet_id);
                Received::Reply(self.reply(ack.packet_id, Packet::PubComp))
            }
            Packet::PingResp => Received::Pong,
            _ => Received::Unexpected,
        })
    }

    fn check(&self, ack: &SubAck<'_>) -> Received {
        if ack.codes.len() != self.args.topic.len() {
            return Received::Unexpected; // [MQTT-3.8.4-5] [MQTT5-3.8.4-6]
        }
        let reasons = ack.codes.iter().map(|code| Reason(*code)).enumerate();
        Received::Answered(reasons.filter(|(_, reason)| reason.is_error()).collect())
    }

    fn handle_publish(&mut self, publish: &Publish<'_>, output: &mut dyn Write) -> io::Result<Received> {
        let reply = match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.reply(id, Packet::PubAck),
            (QoS::ExactlyOnce, Some(id)) => {
                let reply = self.reply(id, Packet::PubRec);
                if !self.held.insert(id) {
                    return Ok(Received::Message { printed: false, reply });
                }
                reply
            }
            _ => Vec::new(),
        };
        if self.args.verbose {
            output.write_all(publish.topic.as_bytes())?;
            output.write_all(b" ")?;
        }
        output.write_all(publish.payload)?;
        output.write_all(b"\n")?;
        output.flush()?;
        Ok(Received::Message { printed: true, reply })
    }

    fn reply<'p>(&self, packet_id: PacketId, kind: impl FnOnce(Ack<'p>) -> Packet<'p>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ack = Ack { packet_id, reason: Reason::SUCCESS, properties: Properties::default() };
        encode(&kind(ack), self.version, &mut bytes);
        bytes
    }
}
