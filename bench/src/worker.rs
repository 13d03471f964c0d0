//! One core of the generator: its connections, two tasks each.
//!
//! The reader receives into one recycled buffer, looks at each frame once, and counts a batch at a time. The writer sends
//! what has gathered since its last send (acknowledgements, then as many publications as the window or the schedule
//! allows) as one buffer. Nothing is allocated per message.

use crate::check::{Findings, Flow};
use crate::connect::{ConnectError, open, shake_hands};
use crate::frames::{Identity, PublishImage, Stamp, next_frame, packet_id, split_publish};
use crate::options::LoadOptions;
use crate::plan::{ClientPlan, Plan};
use crate::progress::{CoreResult, Phase, Progress, latency_histogram};
use crate::schedule::Schedule;
use crate::transport::{ReadHalf, Transport, WriteHalf};
use crate::wake::Wake;
use bifro_core::client::Version;
use bifro_core::message::QoS;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Bytes of a connection's receive buffer, and what a send is filled up to.
const BUFFER_BYTES: usize = 64 * 1024;

/// Handshakes under way at a time on one core.
const HANDSHAKES_MAX: usize = 64;

/// Unacknowledged messages of one publisher in an open loop: identifiers must not come round.
const IN_FLIGHT_MAX: u64 = 60_000;

/// A publisher whose window has been full for so long lost messages, and sends again.
const STALL_NS: u64 = 2_000_000_000;

/// The publishing side of a connection.
#[derive(Debug)]
struct Publisher {
    index: usize,
    image: PublishImage,
    copies: u64,
    /// Messages in flight at most: as asked for, and above QoS 0 as the broker takes.
    window: u64,
    sent: Cell<u64>,
    acknowledged: Cell<u64>,
    /// Messages given up in a stall.
    forgiven: Cell<u64>,
    schedule: Cell<Option<Schedule>>,
    /// Messages done when it was last looked at, and since when.
    watched: Cell<(u64, u64)>,
}

/// The subscribing side of a connection.
#[derive(Debug)]
struct Subscriber {
    expects: Range<u32>,
    is_shared: bool,
    flows: Vec<Flow>,
    strays: u64,
}

/// A connection of this core.
#[derive(Debug)]
struct Link {
    wake: Wake,
    out: RefCell<Vec<u8>>,
    publisher: Option<Publisher>,
    subscriber: RefCell<Subscriber>,
}

/// A core.
#[derive(Debug)]
struct Core {
    index: usize,
    version: Version,
    qos: QoS,
    transport: Transport,
    progress: Arc<Progress>,
    links: RefCell<Vec<Rc<Link>>>,
    /// The links of this core's publishers, by publisher.
    by_publisher: RefCell<Vec<Option<Rc<Link>>>>,
    latency: RefCell<Histogram<u64>>,
}

/// Runs core `index` of the generator until the run stops.
///
/// # Errors
/// If there is no ring to be had.
pub fn run(index: usize, plan: &Plan, options: &LoadOptions, progress: &Arc<Progress>) -> std::io::Result<CoreResult> {
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4096).enable_timer().build()?;
    let core = Rc::new(Core {
        index,
        version: options.version(),
        qos: options.quality(),
        transport: Transport::new(options)?,
        progress: progress.clone(),
        links: RefCell::default(),
        by_publisher: RefCell::new(vec![None; plan.copies.len()]),
        latency: RefCell::new(latency_histogram()),
    });
    runtime.block_on(supervise(&core, plan, options));
    let mut findings = Findings::default();
    for link in core.links.borrow().iter() {
        let subscriber = link.subscriber.borrow();
        findings.strays += subscriber.strays;
        subscriber.flows.iter().for_each(|flow| findings.add(&flow.findings()));
    }
    let latency = core.latency.borrow().clone();
    Ok(CoreResult { latency, findings })
}

/// Connects the clients, starts the load, opens stalled windows, and returns when the run stops.
async fn supervise(core: &Rc<Core>, plan: &Plan, options: &LoadOptions) {
    let cores = core.progress.cores.len();
    let own: Vec<(usize, &ClientPlan)> =
        plan.clients.iter().enumerate().filter(|(_, client)| client.core % cores == core.index).collect();
    for some in own.chunks(HANDSHAKES_MAX) {
        let tasks: Vec<_> = some
            .iter()
            .map(|(number, client)| {
                monoio::spawn(start_client(
                    core.clone(),
                    *number,
                    (*client).clone(),
                    options.clone(),
                    plan.copies.clone(),
                ))
            })
            .collect();
        for task in tasks {
            if let Err(error) = task.await {
                core.progress.fail(error.to_string());
                core.progress.cores[core.index].disconnects.fetch_add(1, Relaxed);
            }
            core.progress.cores[core.index].ready.fetch_add(1, Relaxed);
        }
    }
    while core.progress.phase() == Phase::Ramp {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
    if let Some(rate) = options.rate {
        start_schedule(core, rate);
    }
    wake_publishers(core);
    let pause = Duration::from_millis(if cores > 1 { 1 } else { 10 });
    while core.progress.phase() != Phase::Stop {
        monoio::time::sleep(pause).await;
        core.open_stalled_windows();
        if cores > 1 {
            wake_publishers(core);
        }
    }
}

fn wake_publishers(core: &Core) {
    core.links.borrow().iter().filter(|link| link.publisher.is_some()).for_each(|link| link.wake.wake());
}

/// Gives this core's publishers their times and starts the task that keeps them.
fn start_schedule(core: &Rc<Core>, rate: f64) {
    let publishers = core.progress.publishers.len() as u32;
    let links: Vec<(Rc<Link>, Schedule)> = core
        .links
        .borrow()
        .iter()
        .filter_map(|link| {
            let publisher = link.publisher.as_ref()?;
            let schedule = Schedule::new(core.progress.start_ns(), rate, publisher.index as u32, publishers);
            publisher.schedule.set(Some(schedule));
            Some((link.clone(), schedule))
        })
        .collect();
    if !links.is_empty() {
        let core = core.clone();
        monoio::spawn(async move {
            if let Err(error) = keep_time(&core, &links).await {
                core.progress.fail(format!("timer: {error}"));
            }
        });
    }
}

/// Wakes each publisher at its times. The runtime's timers are too coarse (a millisecond): a timerfd is not.
async fn keep_time(core: &Core, links: &[(Rc<Link>, Schedule)]) -> std::io::Result<()> {
    // SAFETY: no pointers; the descriptor is checked before it is owned.
    let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
    if timer < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's. The stream only waits for it to be readable.
    let waiter = monoio::net::UnixStream::from_std(unsafe { OwnedFd::from_raw_fd(timer) }.into())?;
    let (mut turn, mut sequence) = (0, 0);
    while core.progress.phase() < Phase::Drain {
        let now_ns = core.progress.now_ns();
        let due_ns = links[turn].1.intended_ns(sequence);
        if due_ns <= now_ns {
            links[turn].0.wake.wake();
            turn += 1;
            if turn == links.len() {
                (turn, sequence) = (0, sequence + 1);
            }
            continue;
        }
        let wait_ns = due_ns - now_ns;
        // SAFETY: an itimerspec of zeros is valid, and it outlives the calls; the buffer has the eight bytes a timerfd writes.
        unsafe {
            let mut spec: libc::itimerspec = std::mem::zeroed();
            spec.it_value.tv_sec = (wait_ns / 1_000_000_000) as libc::time_t;
            spec.it_value.tv_nsec = (wait_ns % 1_000_000_000) as libc::c_long;
            libc::timerfd_settime(timer, 0, &raw const spec, std::ptr::null_mut());
        }
        waiter.readable(true).await?;
        let mut expirations = [0_u8; 8];
        // SAFETY: as above.
        unsafe { libc::read(timer, expirations.as_mut_ptr().cast(), expirations.len()) };
    }
    Ok(())
}

async fn start_client(
    core: Rc<Core>,
    number: usize,
    client: ClientPlan,
    options: LoadOptions,
    copies: Vec<u64>,
) -> Result<(), ConnectError> {
    let publishes_elsewhere = client.publisher.is_some() && !options.publish_to.is_empty();
    let targets = if publishes_elsewhere { &options.publish_to } else { &options.targets };
    let target = targets[number % targets.len()];
    let mut stream = open(&core.transport, target, number as u64).await?;
    let identity = Identity {
        version: core.version,
        client_id: client.client_id,
        clean: !options.persistent,
        keep_alive_s: 0,
        credentials: options.credentials(),
    };
    let accepted = shake_hands(&mut stream, &identity, &client.filters, core.qos).await?;
    let publisher = client.publisher.map(|(index, topic)| Publisher {
        index: index as usize,
        image: PublishImage::new(core.version, &topic, core.qos, false, options.payload, index),
        copies: copies[index as usize],
        window: core.window(&options, accepted.receive_maximum),
        sent: Cell::new(0),
        acknowledged: Cell::new(0),
        forgiven: Cell::new(0),
        schedule: Cell::new(None),
        watched: Cell::new((0, 0)),
    });
    let flows = vec![Flow::default(); client.expects.len()];
    let subscriber = Subscriber { expects: client.expects, is_shared: client.is_shared, flows, strays: 0 };
    let link = Rc::new(Link {
        wake: Wake::default(),
        out: RefCell::default(),
        publisher,
        subscriber: RefCell::new(subscriber),
    });
    if let Some(publisher) = &link.publisher {
        core.by_publisher.borrow_mut()[publisher.index] = Some(link.clone());
    }
    core.links.borrow_mut().push(link.clone());
    let (reader, writer) = stream.into_split();
    monoio::spawn(read_loop(core.clone(), link.clone(), reader, accepted.held));
    monoio::spawn(write_loop(core, link, writer));
    Ok(())
}

async fn read_loop(core: Rc<Core>, link: Rc<Link>, mut reader: ReadHalf, held: Vec<u8>) {
    let mut buffer = held;
    buffer.reserve_exact(BUFFER_BYTES.saturating_sub(buffer.len()));
    loop {
        let used = match core.take(&link, &buffer) {
            Ok(used) => used,
            Err(reason) => return core.lose(&link, reason),
        };
        let rest = buffer.len() - used;
        buffer.copy_within(used.., 0);
        buffer.truncate(rest);
        if rest == buffer.capacity() {
            buffer.reserve(BUFFER_BYTES);
        }
        let result;
        (result, buffer) = reader.read_more(buffer).await;
        match result {
            Ok(0) => return core.lose(&link, "the broker closed a connection".to_owned()),
            Ok(_) => {}
            Err(error) => return core.lose(&link, format!("receiving: {error}")),
        }
    }
}

async fn write_loop(core: Rc<Core>, link: Rc<Link>, mut writer: WriteHalf) {
    let mut buffer = Vec::new();
    loop {
        std::mem::swap(&mut buffer, &mut *link.out.borrow_mut());
        if let Some(publisher) = &link.publisher {
            core.fill(publisher, &mut buffer);
        }
        if buffer.is_empty() {
            link.wake.wait().await;
            continue;
        }
        let (result, sent) = writer.write_all(buffer).await;
        buffer = sent;
        buffer.clear();
        if let Err(error) = result {
            return core.lose(&link, format!("sending: {error}"));
        }
    }
}

impl Core {
    /// Messages a publisher may have in flight, if the broker announced `receive_maximum`.
    fn window(&self, options: &LoadOptions, receive_maximum: u16) -> u64 {
        let asked = if options.rate.is_some() { IN_FLIGHT_MAX } else { options.window };
        if self.qos == QoS::AtMostOnce { asked } else { asked.min(receive_maximum.into()) }
    }

    fn lose(&self, link: &Link, reason: String) {
        if self.progress.phase() < Phase::Stop {
            let whose = if link.publisher.is_some() { "publisher" } else { "subscriber" };
            self.progress.fail(format!("{whose}: {reason}"));
            self.progress.cores[self.index].disconnects.fetch_add(1, Relaxed);
        }
    }

    /// Messages of `publisher` that are no longer in flight.
    fn done(&self, publisher: &Publisher) -> u64 {
        let received = self.progress.publishers[publisher.index].received.load(Relaxed);
        let received = received.checked_div(publisher.copies).unwrap_or(u64::MAX);
        let received = received.saturating_add(publisher.forgiven.get());
        match self.qos {
            QoS::AtMostOnce => received.min(publisher.sent.get()),
            QoS::AtLeastOnce | QoS::ExactlyOnce => received.min(publisher.acknowledged.get()),
        }
    }

    /// Appends the messages `publisher` may send now, as far as the buffer goes.
    fn fill(&self, publisher: &Publisher, out: &mut Vec<u8>) {
        if !(Phase::WarmUp..Phase::Drain).contains(&self.progress.phase()) {
            return;
        }
        let (now_ns, first) = (self.progress.now_ns(), publisher.sent.get());
        let schedule = publisher.schedule.get();
        let allowed = match &schedule {
            Some(schedule) if self.qos == QoS::AtMostOnce => schedule.due(now_ns),
            Some(schedule) => schedule.due(now_ns).min(publisher.acknowledged.get() + publisher.window),
            None => {
                let allowed = self.done(publisher) + publisher.window;
                // A quarter of the window at a time, or every message that comes back would be a send of its own.
                if allowed < first + (publisher.window / 4).max(1) { first } else { allowed }
            }
        };
        let room = (BUFFER_BYTES.saturating_sub(out.len()) / publisher.image.len()).max(1) as u64;
        let end = allowed.min(first + room);
        if end <= first {
            return;
        }
        for sequence in first..end {
            let intended_ns = schedule.as_ref().map_or(now_ns, |schedule| schedule.intended_ns(sequence));
            publisher.image.put(sequence, intended_ns, out);
        }
        publisher.sent.set(end);
        self.progress.publishers[publisher.index].published.store(end, Relaxed);
        self.progress.cores[self.index].published.fetch_add(end - first, Relaxed);
    }

    /// QoS 0 messages may be lost: a window that stays full is opened again.
    fn open_stalled_windows(&self) {
        if self.qos != QoS::AtMostOnce || self.progress.phase() >= Phase::Drain {
            return;
        }
        let now_ns = self.progress.now_ns();
        for link in self.links.borrow().iter() {
            let Some(publisher) = &link.publisher else { continue };
            let (done, (watched, since_ns)) = (self.done(publisher), publisher.watched.get());
            if done != watched || publisher.sent.get() == done || publisher.schedule.get().is_some() {
                publisher.watched.set((done, now_ns));
            } else if now_ns - since_ns > STALL_NS {
                publisher.forgiven.set(publisher.forgiven.get() + publisher.sent.get() - done);
                self.progress.cores[self.index].stalls.fetch_add(1, Relaxed);
                link.wake.wake();
            }
        }
    }

    /// Handles the whole frames in `bytes` and returns how many bytes they were.
    fn take(&self, link: &Link, bytes: &[u8]) -> Result<usize, String> {
        let now_ns = self.progress.now_ns();
        let mut batch =
            Batch { core: self, now_ns, is_measured: self.progress.phase() == Phase::Measure, run: None, count: 0 };
        let mut latency = self.latency.borrow_mut();
        let mut subscriber = link.subscriber.borrow_mut();
        let mut out = link.out.borrow_mut();
        let (mut at, mut acknowledged) = (0, 0);
        while let Some(frame) = next_frame(&bytes[at..]).map_err(|error| error.to_string())? {
            at += frame.len;
            match frame.first >> 4 {
                3 => {
                    let (id, payload) =
                        split_publish(self.version, frame.first, frame.body).ok_or("a PUBLISH that is too short")?;
                    batch.publication(&mut subscriber, payload, &mut latency);
                    match frame.first >> 1 & 3 {
                        0 => {}
                        1 => put_acknowledgement(0x40, id, &mut out),
                        _ => put_acknowledgement(0x50, id, &mut out),
                    }
                }
                4 | 7 => acknowledged += self.acknowledgement(link, frame.body)?,
                5 => put_acknowledgement(0x62, identifier(frame.body)?, &mut out),
                6 => put_acknowledgement(0x70, identifier(frame.body)?, &mut out),
                13 => {}
                other => return Err(format!("an unexpected packet of type {other}")),
            }
        }
        batch.finish();
        if !out.is_empty() || acknowledged > 0 {
            link.wake.wake();
        }
        Ok(at)
    }

    /// PUBACK or PUBCOMP. MQTT has them come in the order of the publications [MQTT-4.6.0-2].
    fn acknowledgement(&self, link: &Link, body: &[u8]) -> Result<u64, String> {
        let publisher = link.publisher.as_ref().ok_or("an acknowledgement for a subscriber")?;
        let done = publisher.acknowledged.get();
        if identifier(body)? != packet_id(done) {
            return Err(format!("acknowledgements out of order: {} instead of {}", identifier(body)?, packet_id(done)));
        }
        if body.get(2).is_some_and(|code| *code >= 0x80) {
            return Err(format!("a message was refused with code {}", body[2]));
        }
        publisher.acknowledged.set(done + 1);
        Ok(1)
    }
}

fn identifier(body: &[u8]) -> Result<u16, String> {
    body.first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
        .ok_or_else(|| "an acknowledgement that is too short".to_owned())
}

#[inline]
fn put_acknowledgement(first: u8, id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// The messages of one receive: counters are touched once per run of one publisher's messages.
struct Batch<'a> {
    core: &'a Core,
    now_ns: u64,
    is_measured: bool,
    /// The publisher of the current run and its new messages.
    run: Option<(u32, u64)>,
    count: u64,
}

impl Batch<'_> {
    #[inline]
    fn publication(&mut self, subscriber: &mut Subscriber, payload: &[u8], latency: &mut Histogram<u64>) {
        let flow = Stamp::read(payload).and_then(|stamp| {
            let index = stamp.publisher.checked_sub(subscriber.expects.start)?;
            Some((stamp, subscriber.flows.get_mut(index as usize)?))
        });
        let Some((stamp, flow)) = flow else {
            subscriber.strays += 1;
            return;
        };
        self.count += 1;
        if self.is_measured {
            latency.saturating_record(self.now_ns.saturating_sub(stamp.intended_ns).max(1));
        }
        let is_new = u64::from(if subscriber.is_shared { flow.record_shared() } else { flow.record(stamp.sequence) });
        match &mut self.run {
            Some((publisher, count)) if *publisher == stamp.publisher => *count += is_new,
            _ => {
                self.close_run();
                self.run = Some((stamp.publisher, is_new));
            }
        }
    }

    fn close_run(&mut self) {
        let Some((publisher, count)) = self.run.take() else { return };
        self.core.progress.publishers[publisher as usize].received.fetch_add(count, Relaxed);
        if let Some(link) = &self.core.by_publisher.borrow()[publisher as usize] {
            link.wake.wake();
        }
    }

    fn finish(mut self) {
        self.close_run();
        if self.count > 0 {
            self.core.progress.cores[self.core.index].received.fetch_add(self.count, Relaxed);
        }
    }
}
