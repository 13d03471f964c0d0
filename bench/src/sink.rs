//! `sink`: a peer that speaks just enough MQTT to be driven by `pair` and `fanout`. It forwards PUBLISH frames as they are and
//! acknowledges at once: what the generator reaches against it is the generator's own limit. With a fault it is the
//! deliberately broken broker that the checker must find.

use crate::frames::{Frame, next_frame};
use crate::options::{Fault, SinkOptions};
use crate::wake::Wake;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

/// Bytes of a receive buffer.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Link {
    wake: Wake,
    is_closed: Cell<bool>,
    out: RefCell<Vec<u8>>,
}

impl Link {
    fn put(&self, bytes: &[u8]) {
        self.out.borrow_mut().extend_from_slice(bytes);
        self.wake.wake();
    }
}

type Subscribers = Rc<RefCell<Vec<Rc<Link>>>>;

#[derive(Default)]
struct Sink {
    topics: RefCell<HashMap<Vec<u8>, Subscribers>>,
    fault: Option<(Fault, u64)>,
}

/// What a connection remembers.
struct Peer {
    sink: Rc<Sink>,
    link: Rc<Link>,
    level: u8,
    /// The topic of its last PUBLISH, and who has it.
    topic: Vec<u8>,
    subscribers: Subscribers,
    published: u64,
    /// A frame that is held back.
    late: Option<Vec<u8>>,
}

/// Serves until the process ends. `listening` is told the address.
///
/// # Errors
/// If the address cannot be bound or there is no ring.
pub fn serve(options: &SinkOptions, listening: impl FnOnce(SocketAddr)) -> io::Result<()> {
    if let Some(cpu) = options.cpu {
        crate::proc::pin_thread(cpu);
    }
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4096).build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind_with_config(options.bind, &ListenerOpts::new().backlog(4096))?;
        listening(listener.local_addr()?);
        let fault = options.fault.map(|fault| (fault, options.every.max(1)));
        let sink = Rc::new(Sink { fault, ..Sink::default() });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let link = Rc::new(Link::default());
            let (reader, writer) = stream.into_split();
            let peer = Peer {
                sink: sink.clone(),
                link: link.clone(),
                level: 4,
                topic: Vec::new(),
                subscribers: Subscribers::default(),
                published: 0,
                late: None,
            };
            monoio::spawn(read_loop(peer, reader));
            monoio::spawn(write_loop(link, writer));
        }
    })
}

async fn read_loop(mut peer: Peer, reader: OwnedReadHalf<TcpStream>) {
    read_all(&mut peer, reader).await;
    for subscribers in peer.sink.topics.borrow().values() {
        subscribers.borrow_mut().retain(|link| !Rc::ptr_eq(link, &peer.link));
    }
    peer.link.is_closed.set(true);
    peer.link.wake.wake();
}

/// Answers until the connection ends.
async fn read_all(peer: &mut Peer, mut reader: OwnedReadHalf<TcpStream>) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let rest = buffer.len();
        let (result, slice) = reader.read(buffer.slice_mut(rest..)).await;
        buffer = slice.into_inner();
        if result.unwrap_or(0) == 0 {
            return;
        }
        let mut at = 0;
        loop {
            match next_frame(&buffer[at..]) {
                Ok(Some(frame)) => {
                    let whole = &buffer[at..at + frame.len];
                    if peer.answer(&frame, whole).is_none() {
                        return;
                    }
                    at += frame.len;
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        let rest = buffer.len() - at;
        buffer.copy_within(at.., 0);
        buffer.truncate(rest);
        if rest == buffer.capacity() {
            buffer.reserve(BUFFER_BYTES);
        }
    }
}

async fn write_loop(link: Rc<Link>, mut writer: OwnedWriteHalf<TcpStream>) {
    let mut buffer = Vec::new();
    loop {
        std::mem::swap(&mut buffer, &mut *link.out.borrow_mut());
        if link.is_closed.get() {
            return;
        }
        if buffer.is_empty() {
            link.wake.wait().await;
            continue;
        }
        let (result, sent) = writer.write_all(buffer).await;
        if result.is_err() {
            return;
        }
        buffer = sent;
        buffer.clear();
    }
}

impl Peer {
    /// Answers a frame; none ends the connection.
    fn answer(&mut self, frame: &Frame<'_>, whole: &[u8]) -> Option<()> {
        let body = frame.body;
        match frame.first >> 4 {
            1 => {
                let name_bytes = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
                self.level = *body.get(2 + name_bytes)?;
                let ack: &[u8] = if self.level == 5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                self.link.put(ack);
            }
            3 => self.publish(frame, whole)?,
            5 => self.link.put(&[0x62, 2, *body.first()?, *body.get(1)?]),
            6 => self.link.put(&[0x70, 2, *body.first()?, *body.get(1)?]),
            8 => self.subscribe(body)?,
            12 => self.link.put(&[0xD0, 0]),
            14 => return None,
            _ => {}
        }
        Some(())
    }

    /// Takes the first filter of a SUBSCRIBE, as a topic.
    fn subscribe(&self, body: &[u8]) -> Option<()> {
        let skip = if self.level == 5 { 3 + usize::from(*body.get(2)?) } else { 2 };
        let filter = body.get(skip..)?;
        let filter_bytes = usize::from(u16::from_be_bytes([*filter.first()?, *filter.get(1)?]));
        let (topic, qos) = (filter.get(2..2 + filter_bytes)?, *filter.get(2 + filter_bytes)? & 3);
        let subscribers = self.sink.topics.borrow_mut().entry(topic.to_vec()).or_default().clone();
        subscribers.borrow_mut().push(self.link.clone());
        let ack: &[u8] =
            if self.level == 5 { &[0x90, 4, body[0], body[1], 0, qos] } else { &[0x90, 3, body[0], body[1], qos] };
        self.link.put(ack);
        Some(())
    }

    fn publish(&mut self, frame: &Frame<'_>, whole: &[u8]) -> Option<()> {
        let body = frame.body;
        let topic_bytes = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
        let topic = body.get(2..2 + topic_bytes)?;
        if topic != self.topic {
            self.topic = topic.to_vec();
            self.subscribers = self.sink.topics.borrow_mut().entry(topic.to_vec()).or_default().clone();
        }
        if frame.first & 0b110 != 0 {
            let id = body.get(2 + topic_bytes..4 + topic_bytes)?;
            let kind = if frame.first & 0b100 == 0 { 0x40 } else { 0x50 };
            self.link.put(&[kind, 2, id[0], id[1]]);
        }
        self.published += 1;
        match self.sink.fault {
            Some((fault, every)) if self.published.is_multiple_of(every) => match fault {
                Fault::Drop => {}
                Fault::Duplicate => {
                    self.forward(whole);
                    self.forward(whole);
                }
                Fault::Reorder => self.late = Some(whole.to_vec()),
            },
            _ => {
                self.forward(whole);
                if let Some(late) = self.late.take() {
                    self.forward(&late);
                }
            }
        }
        Some(())
    }

    #[inline]
    fn forward(&self, whole: &[u8]) {
        self.subscribers.borrow().iter().for_each(|link| link.put(whole));
    }
}
