//! The normative statements of MQTT 3.1.1 and 5.0 that bind a server, shown at the wire by a raw client against a real
//! broker: a module per chapter, and the statements by number above each test. `tests/CONFORMANCE.md` is made from them.

mod acks;
mod aliases;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod errors;
mod flow_control;
mod ordering;
mod ping;
mod properties;
mod publish_in;
mod publish_out;
mod qos;
mod reasons;
mod retained;
mod scram;
mod sessions;
mod shared;
mod subscribe;
mod suite;
mod topics;
mod unsubscribe;
mod v31;
mod websocket;
mod will;
