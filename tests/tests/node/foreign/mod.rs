//! Clients of other houses against one node that listens on everything it can: mosquitto's tools, paho-mqtt, MQTT.js and
//! rumqttc, each with the protocol versions and transports it knows.
//!
//! | client | 3.1 | 3.1.1 | 5.0 | TCP | TLS | mTLS | WS | WSS | Unix |
//! |---|---|---|---|---|---|---|---|---|---|
//! | mosquitto | x | x | x | x | x | x | | | x |
//! | paho-mqtt | x | x | x | x | x | x | x | x | x |
//! | MQTT.js | x | x | x | x | x | x | x | x | |
//! | rumqttc | | x | x | x | x | x | x | x | |
//!
//! The users of the mTLS listener are named by their certificates: its scenarios run below `by-user/alice/`, where only
//! `alice` may publish and subscribe.

mod mosquitto;
mod mqttjs;
mod paho;
mod rumqtt;
mod stand;
mod tool;
