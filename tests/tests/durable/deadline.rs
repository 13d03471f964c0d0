//! What becomes of a publish that is not taken over in time.

use crate::{payload, persistent};
use bifro_core::client::Version::V5;
use bifro_core::message::QoS::ExactlyOnce;
use bifro_mqtt::codec::AckKind;
use bifro_mqtt::packet::{Packet, PacketId, Publish, PublishProperties};
use bifro_tests::{Broker, Client};
use std::ptr::null_mut;
use std::time::Duration;

/// One thread of another process, stopped while this lives. The thread that made it must also drop it.
struct StoppedThread(libc::pid_t);

impl StoppedThread {
    /// The thread of this name.
    fn new(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
        let mut tids = tasks.map(|task| task.expect("a thread").file_name().to_string_lossy().into_owned());
        let is_it = |tid: &String| {
            std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let tid: libc::pid_t =
            tids.find(is_it).unwrap_or_else(|| panic!("no thread is named {name}")).parse().expect("a number");
        // SAFETY: no memory of this process is involved.
        let stopped = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, tid, null_mut::<u8>(), null_mut::<u8>()) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, tid, null_mut::<u8>(), null_mut::<u8>()) == 0
                && libc::waitpid(tid, null_mut(), libc::__WALL) == tid
        };
        assert!(stopped, "ptrace: {}", std::io::Error::last_os_error());
        Self(tid)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // SAFETY: as above. It fails only if the thread is gone.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, null_mut::<u8>(), null_mut::<u8>()) };
    }
}

/// Should it be told that the publish failed, and not hear it, its repetition would come twice. Before, another message under the identifier was lost:
/// ranges took it for a repetition of the one that had failed. [MQTT5-4.3.3-10]
#[test]
fn a_publish_that_somebody_may_have_is_not_refused_at_its_deadline_and_leaves_its_identifier_free() {
    let broker = Broker::start(1, "[limits]\npublish_deadline_ms = 200\n");
    let subscriber = persistent(V5, "subscriber");
    let (mut client, _) = Client::connect_with(broker.tcp(), &subscriber);
    client.subscribe("q", ExactlyOnce);
    client.disconnect();
    let (mut publisher, _) = Client::connect_with(broker.tcp(), &persistent(V5, "publisher"));
    publisher.publish_exactly_once("q", b"before");

    let id = PacketId::new(77).expect("not zero");
    let publish = |payload| {
        Packet::Publish(Publish {
            dup: false,
            qos: ExactlyOnce,
            retain: false,
            topic: "q",
            packet_id: Some(id),
            properties: PublishProperties::default(),
            payload,
        })
    };
    let stopped = StoppedThread::new(broker.pid(), "wal-writer");
    publisher.send(&publish(b"late"));
    std::thread::sleep(Duration::from_millis(600));
    publisher.expect_silence();
    drop(stopped);
    finish(&mut publisher, id);
    publisher.send(&publish(b"another"));
    finish(&mut publisher, id);

    let (mut client, _) = Client::connect_with(broker.tcp(), &subscriber);
    let received = client.recv_publishes(3);
    let payloads: Vec<String> = received.iter().map(payload).collect();
    assert_eq!(payloads, ["before", "late", "another"]);
}

/// A publish is answered, and the identifier released.
fn finish(publisher: &mut Client, id: PacketId) {
    match publisher.recv().packet() {
        Packet::PubRec(ack) => assert!(!ack.reason.is_error(), "{:?}", ack.reason),
        other => panic!("not a PUBREC: {other:?}"),
    }
    publisher.ack(AckKind::PubRel, id);
    publisher.recv();
}
