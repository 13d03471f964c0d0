//! What the broker has acknowledged survives `kill -9`, at whatever moment. Every test drives a real broker with its default storage.

mod damage;
mod deadline;
mod kill_loop;
mod power_loss;
mod recorded;
mod sessions;
mod steps;

use bifro_core::client::Version;
use bifro_mqtt::packet::Packet;
use bifro_mqtt::property::{PropertyId, PropertyWriter};
use bifro_tests::{ConnectOptions, Received};

/// A persistent session of this version; an MQTT 5 one lasts for an hour.
fn persistent(version: Version, client_id: &str) -> ConnectOptions {
    lasting(version, client_id, 3_600)
}

fn lasting(version: Version, client_id: &str, expiry_s: u32) -> ConnectOptions {
    let mut options = ConnectOptions { clean: false, ..ConnectOptions::new(version, client_id) };
    if version == Version::V5 {
        PropertyWriter::new(&mut options.properties).u32(PropertyId::SessionExpiryInterval, expiry_s);
    }
    options
}

/// What a PUBLISH carries, as text.
fn payload(received: &Received) -> String {
    let Packet::Publish(publish) = received.packet() else { panic!("not a PUBLISH: {received:?}") };
    String::from_utf8_lossy(publish.payload).into_owned()
}
