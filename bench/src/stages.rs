//! Loads in stages, each timed for itself: `retain` (store, replay, clear), `session` (queue while away, return, drain) and
//! `takeover` (one client identifier, again and again).

use crate::check::{Findings, Flow};
use crate::client::Client;
use crate::frames::PublishImage;
use crate::options::{LoadOptions, RetainOptions, SessionOptions, TakeoverOptions};
use crate::proc;
use crate::progress::latency_histogram;
use crate::report::{Latency, Report};
use std::error::Error;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

type Outcome = Result<Report, Box<dyn Error>>;

/// Runs `stages` on a runtime of this thread, and adds what the target needed for it.
fn on_this_thread(options: &LoadOptions, stages: impl Future<Output = Outcome>) -> Outcome {
    proc::raise_descriptor_limit();
    if let Some(cpu) = options.cpus.first() {
        proc::pin_thread(*cpu);
    }
    let before = proc::of_all(&options.target_pids, proc::usage_with_pss);
    let own_before = proc::usage(std::process::id()).unwrap_or_default();
    let begin = Instant::now();
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(1024).enable_timer().build()?;
    let mut report = runtime.block_on(stages)?;
    let elapsed_s = begin.elapsed().as_secs_f64();
    report.measured_s = elapsed_s;
    report.target_before = before;
    report.target_after = proc::of_all(&options.target_pids, proc::usage_with_pss);
    let cpu_s = report.target_after.cpu_s - before.cpu_s;
    report.target_cpus = cpu_s / elapsed_s;
    report.received_per_cpu_s = if cpu_s > 0.0 { report.findings.received as f64 / cpu_s } else { 0.0 };
    report.generator_cpus = (proc::usage(std::process::id()).unwrap_or_default().cpu_s - own_before.cpu_s) / elapsed_s;
    report.judge(options.qos, None);
    Ok(report)
}

/// Messages sent before their acknowledgements are waited for.
fn window(client: &Client, options: &LoadOptions) -> u64 {
    options.window.min(client.receive_maximum.into())
}

/// Publishes message 0 of every image (or its clearing), a window at a time.
async fn publish_each(client: &mut Client, images: &[PublishImage], options: &LoadOptions) -> std::io::Result<()> {
    for some in images.chunks(window(client, options) as usize) {
        let mut frames = Vec::new();
        for (sequence, image) in some.iter().enumerate() {
            // The sequence gives each message of a batch an identifier of its own.
            image.put(sequence as u64, 0, &mut frames);
        }
        client.publish(frames, options.quality(), some.len() as u64).await?;
    }
    Ok(())
}

/// `retain`.
///
/// # Errors
/// If the broker cannot be reached or does not answer.
pub fn retain(options: &RetainOptions, stop: &AtomicBool) -> Outcome {
    on_this_thread(&options.load, async {
        let load = &options.load;
        let (version, qos) = (load.version(), load.quality());
        let name = |role: &str| format!("bench-{}-retain-{role}", load.seed);
        let topic = |index: u32| format!("bench/{}/retain/{index}", load.seed);
        let image = |index| PublishImage::new(version, &topic(index), qos, true, load.payload, index);
        let images: Vec<PublishImage> = (0..options.topics).map(image).collect();
        let mut publisher = Client::connect(load, name("pub"), true, &[], 0).await?;
        let begin = Instant::now();
        publish_each(&mut publisher, &images, load).await?;
        let stored_s = begin.elapsed().as_secs_f64();
        let mut seen = vec![0_u64; images.len()];
        let (mut latency, mut rounds, mut replayed_s) = (latency_histogram(), 0_u64, 0.0);
        while rounds < u64::from(options.replays) && !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let filter = [format!("bench/{}/retain/#", load.seed)];
            let mut subscriber = Client::connect(load, name("sub"), true, &filter, rounds).await?;
            let count = &mut |stamp: crate::frames::Stamp| {
                if let Some(count) = seen.get_mut(stamp.publisher as usize) {
                    *count += 1;
                }
            };
            subscriber.receive(images.len() as u64, count).await?;
            latency.saturating_record(begin.elapsed().as_nanos() as u64);
            replayed_s += begin.elapsed().as_secs_f64();
            subscriber.disconnect().await?;
            rounds += 1;
        }
        let mut clears = Vec::new();
        for index in 0..options.topics {
            put_clear(version, &topic(index), &mut clears);
        }
        publisher.publish(clears, bifro_core::message::QoS::AtMostOnce, 0).await?;
        let received = seen.iter().sum::<u64>();
        let duplicates = seen.iter().map(|count| count.saturating_sub(rounds)).sum();
        Ok(Report {
            scenario: "retain".into(),
            connections: rounds + 1,
            published_per_s: images.len() as f64 / stored_s,
            received_per_s: received as f64 / f64::max(replayed_s, f64::MIN_POSITIVE),
            latency: Latency::from(&latency),
            findings: Findings { received, duplicates, ..Findings::default() },
            lost: seen.iter().map(|count| rounds.saturating_sub(*count)).sum(),
            is_interrupted: stop.load(Ordering::Relaxed),
            ..Report::default()
        })
    })
}

/// An empty retained message clears what is stored [MQTT-3.3.1-10].
fn put_clear(version: bifro_core::client::Version, topic: &str, out: &mut Vec<u8>) {
    use bifro_mqtt::packet::{Packet, Publish, PublishProperties};
    let qos = bifro_core::message::QoS::AtMostOnce;
    let properties = PublishProperties::default();
    let publish = Publish { dup: false, qos, retain: true, topic, packet_id: None, properties, payload: &[] };
    bifro_mqtt::codec::encode(&Packet::Publish(publish), version, out);
}

/// `session`.
///
/// # Errors
/// If the broker cannot be reached or does not answer.
pub fn session(options: &SessionOptions, stop: &AtomicBool) -> Outcome {
    on_this_thread(&options.load, async {
        let load = &options.load;
        let (version, qos) = (load.version(), load.quality());
        let name = |index: u32| format!("bench-{}-session-{index}", load.seed);
        let topic = |index: u32| format!("bench/{}/session/{index}", load.seed);
        for index in 0..options.sessions {
            // An older session of the name goes first.
            Client::connect(load, name(index), true, &[], u64::from(index)).await?.disconnect().await?;
            let filter = [topic(index)];
            Client::connect(load, name(index), false, &filter, u64::from(index)).await?.disconnect().await?;
        }
        let mut publisher = Client::connect(load, format!("bench-{}-session-pub", load.seed), true, &[], 0).await?;
        let begin = Instant::now();
        for index in 0..options.sessions {
            let image = PublishImage::new(version, &topic(index), qos, false, load.payload, index);
            let mut sent = 0;
            while sent < u64::from(options.messages) {
                let end = (sent + window(&publisher, load)).min(u64::from(options.messages));
                let mut frames = Vec::new();
                (sent..end).for_each(|sequence| image.put(sequence, 0, &mut frames));
                publisher.publish(frames, qos, end - sent).await?;
                sent = end;
            }
        }
        let queued_s = begin.elapsed().as_secs_f64();
        let (mut findings, mut latency, mut drained_s, mut lost) = (Findings::default(), latency_histogram(), 0.0, 0);
        for index in 0..options.sessions {
            let (begin, mut flow, mut strays) = (Instant::now(), Flow::default(), 0);
            let mut subscriber = Client::connect(load, name(index), false, &[], u64::from(index)).await?;
            let each = &mut |stamp: crate::frames::Stamp| {
                if stamp.publisher == index {
                    flow.record(stamp.sequence);
                } else {
                    strays += 1;
                }
            };
            // What has not come in time is lost; the count below says how much.
            let _ = subscriber.receive(u64::from(options.messages), each).await;
            latency.saturating_record(begin.elapsed().as_nanos() as u64);
            drained_s += begin.elapsed().as_secs_f64();
            subscriber.disconnect().await?;
            let found = flow.findings();
            lost += u64::from(options.messages).saturating_sub(found.received - found.duplicates);
            findings.add(&Findings { strays, ..found });
            Client::connect(load, name(index), true, &[], u64::from(index)).await?.disconnect().await?;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(Report {
            scenario: "session".into(),
            connections: latency.len(),
            published_per_s: f64::from(options.sessions) * f64::from(options.messages) / queued_s,
            received_per_s: findings.received as f64 / f64::max(drained_s, f64::MIN_POSITIVE),
            latency: Latency::from(&latency),
            findings,
            lost,
            is_interrupted: stop.load(Ordering::Relaxed),
            ..Report::default()
        })
    })
}

/// `takeover`.
///
/// # Errors
/// If the broker cannot be reached, does not answer, or lets the older connection live.
pub fn takeover(options: &TakeoverOptions, stop: &AtomicBool) -> Outcome {
    on_this_thread(&options.load, async {
        let load = &options.load;
        let client_id = format!("bench-{}-takeover", load.seed);
        let mut latency = latency_histogram();
        let clean = !load.persistent;
        let mut older = Client::connect(load, client_id.clone(), clean, &[], 0).await?;
        let begin = Instant::now();
        while begin.elapsed() < load.measured() && !stop.load(Ordering::Relaxed) {
            let at = Instant::now();
            let newer = Client::connect(load, client_id.clone(), clean, &[], latency.len() + 1).await?;
            latency.saturating_record(at.elapsed().as_nanos() as u64);
            older.closed().await?;
            older = newer;
        }
        older.disconnect().await?;
        Ok(Report {
            scenario: "takeover".into(),
            connections: latency.len() + 1,
            received_per_s: latency.len() as f64 / begin.elapsed().as_secs_f64(),
            latency: Latency::from(&latency),
            is_interrupted: stop.load(Ordering::Relaxed),
            ..Report::default()
        })
    })
}
