//! What a simulation of the services has been through.

use crate::report::counters;

counters! {
    /// Events handled.
    events: "events",
    /// Turns of shards.
    turns: "turns of shards",
    /// Messages published.
    published: "messages published",
    /// Of them, with QoS 2.
    published_once: "messages published with QoS 2",
    /// Of them, again on another connection.
    published_again: "messages published again",
    /// Publishes acknowledged.
    acknowledged: "publishes acknowledged",
    /// Publishes refused.
    refused: "publishes refused",
    /// Messages received by sessions.
    received: "messages received",
    /// Messages heard by clients without a session.
    heard: "messages heard without a session",
    /// Messages that members of groups got.
    shared: "messages of groups",
    /// Questions of which groups have a publish.
    inquired: "questions of which groups have a publish",
    /// Connections of sessions.
    connects: "connections of sessions",
    /// Subscriptions and their ends.
    subscriptions: "subscriptions and unsubscriptions",
    /// Processes that ended.
    crashes: "crashes",
    /// Cuts of the network.
    cuts: "cuts",
    /// Cuts that came and went.
    flaps: "flaps",
    /// Processes that stood still.
    freezes: "freezes",
    /// Shards that stood still.
    stalls: "stalls",
    /// Disks that were slow.
    disk_faults: "slow disks",
    /// Batches over links.
    batches: "batches over links",
    /// Episodes after whose healing everything was well.
    episodes: "episodes",
}
