//! Per-tenant settings (BifroMQ's `Setting` enum, with saner defaults) and resource quotas (its 21 resource types).

use crate::time::Instant;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use serde::{Deserialize, Serialize};

/// Behaviour of the broker towards one tenant's clients. Every field is a key of `[tenant_defaults]` and `[tenant.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSettings {
    /// Accept MQTT 3.1.
    pub mqtt_31_enabled: bool,
    /// Accept MQTT 3.1.1.
    pub mqtt_311_enabled: bool,
    /// Accept MQTT 5.0.
    pub mqtt_5_enabled: bool,
    /// Publish no wills when the server itself closes sessions to shut down.
    pub no_will_at_shutdown: bool,
    /// Report per-message events as well.
    pub debug_mode: bool,
    /// Treat every session as transient: Session Expiry Interval 0, whatever the client asks.
    pub force_transient: bool,
    /// Check that payloads declared as UTF-8 are UTF-8 [MQTT5-3.3.2.3.2].
    pub payload_format_validation: bool,
    /// Keep retained messages.
    pub retain_enabled: bool,
    /// Accept filters with wildcards.
    pub wildcard_subscription_enabled: bool,
    /// Accept subscription identifiers.
    pub subscription_identifier_enabled: bool,
    /// Accept shared subscriptions.
    pub shared_subscription_enabled: bool,
    /// Where the tenant's clients are sent instead (Server Reference, at most 65,535 bytes); empty = they stay here.
    pub redirect_to: String,
    /// Whether they are told to stay there: 0x9D instead of 0x9C.
    pub redirect_permanently: bool,
    /// Highest QoS clients may publish with and are granted.
    pub maximum_qos: u8,
    /// Longest level of a topic or filter, in bytes.
    pub topic_level_bytes_max: u32,
    /// Most levels of a topic or filter.
    pub topic_levels_max: u32,
    /// Longest topic or filter, in bytes.
    pub topic_bytes_max: u32,
    /// Most topic aliases per connection and direction.
    pub topic_alias_max: u16,
    /// Most members of one shared group.
    pub shared_group_members_max: u32,
    /// Most subscriptions of one session.
    pub subscriptions_per_session_max: u32,
    /// Most messages a client may publish per second; 0 = unlimited.
    pub publish_rate_max: u32,
    /// Receive Maximum the server announces: QoS 1 and 2 publishes it takes before acknowledging.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in flight to one client at most, even if its Receive Maximum is larger.
    pub send_maximum: u16,
    /// Bytes per second accepted from one connection; 0 = unlimited.
    pub inbound_bytes_per_s_max: u64,
    /// Bytes per second sent to one connection; 0 = unlimited.
    pub outbound_bytes_per_s_max: u64,
    /// Largest will payload, in bytes.
    pub will_bytes_max: u32,
    /// Largest payload of a publish, in bytes; the server's Maximum Packet Size leaves room for topic and properties.
    pub payload_bytes_max: u32,
    /// MQTT 3.x only: seconds without acknowledgement before a live client gets the message again; 0 = never (MQTT 5
    /// forbids it [MQTT5-4.4.0-1]).
    pub resend_timeout_s: u32,
    /// MQTT 3.x only: how often at most; the message stays in flight afterwards.
    pub resend_times_max: u32,
    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_per_packet_max: u32,
    /// Most shared groups one message is delivered to; 0 = unlimited.
    pub group_fanout_max: u32,
    /// Most persistent sessions one message is delivered to; 0 = unlimited.
    pub persistent_fanout_max: u32,
    /// Most bytes one message may cost over all persistent sessions; 0 = unlimited.
    pub persistent_fanout_bytes_max: u64,
    /// Longest session expiry, in seconds.
    pub session_expiry_max_s: u32,
    /// Shortest session expiry of a persistent session, in seconds.
    pub session_expiry_min_s: u32,
    /// Shortest keep-alive, in seconds; shorter ones are raised to it (and 0 to it, if it is not 0).
    pub keep_alive_min_s: u16,
    /// Longest client identifier, in bytes.
    pub client_id_bytes_max: u16,
    /// Most messages queued for one session, connected or not.
    pub inbox_messages_max: u32,
    /// Most bytes queued for one session.
    pub inbox_bytes_max: u64,
    /// When the queue is full, drop the oldest QoS 0 message for the new one.
    pub qos0_drop_oldest: bool,
    /// Keep QoS 0 messages for sessions that are not connected.
    pub qos0_queue_offline: bool,
    /// Most retained messages delivered for one filter; 0 = unlimited.
    pub retained_matches_max: u32,
    /// Most bytes of retained messages delivered for one filter; 0 = unlimited.
    pub retained_match_bytes_max: u64,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            mqtt_31_enabled: true,
            mqtt_311_enabled: true,
            mqtt_5_enabled: true,
            no_will_at_shutdown: true,
            debug_mode: false,
            force_transient: false,
            payload_format_validation: true,
            retain_enabled: true,
            wildcard_subscription_enabled: true,
            subscription_identifier_enabled: true,
            shared_subscription_enabled: true,
            redirect_to: String::new(),
            redirect_permanently: false,
            maximum_qos: 2,
            topic_level_bytes_max: 65_535,
            topic_levels_max: 128,
            topic_bytes_max: 65_535,
            topic_alias_max: 10,
            shared_group_members_max: 200,
            subscriptions_per_session_max: 1_000,
            publish_rate_max: 0,
            receive_maximum: 64,
            send_maximum: 64,
            inbound_bytes_per_s_max: 0,
            outbound_bytes_per_s_max: 0,
            will_bytes_max: 262_144,
            payload_bytes_max: 262_144,
            resend_timeout_s: 0,
            resend_times_max: 3,
            filters_per_packet_max: 1_000,
            group_fanout_max: 0,
            persistent_fanout_max: 0,
            persistent_fanout_bytes_max: 0,
            session_expiry_max_s: 30 * 24 * 3600,
            session_expiry_min_s: 0,
            keep_alive_min_s: 0,
            client_id_bytes_max: 65_535,
            inbox_messages_max: 1_000,
            inbox_bytes_max: 64 << 20,
            qos0_drop_oldest: true,
            qos0_queue_offline: true,
            retained_matches_max: 0,
            retained_match_bytes_max: 64 << 20,
        }
    }
}

impl TenantSettings {
    /// The Maximum Packet Size to announce: payload limit plus room for a topic and 64 KiB of properties.
    pub const fn packet_bytes_max(&self) -> u32 {
        self.payload_bytes_max.saturating_add(self.topic_bytes_max).saturating_add(65_536 + 16)
    }
}

macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident => $key:ident, $rate:literal;)*) => {
        /// What a tenant can run out of; BifroMQ's `TenantResourceType`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Resource { $($(#[$doc])* $variant),* }

        impl Resource {
            /// Every resource, in the order of [`Resource::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Place in the quota's tables.
            pub const fn index(self) -> usize { self as usize }

            /// The key in `[tenant.NAME.quota]`, also the metric's label.
            pub const fn key(self) -> &'static str { match self { $(Self::$variant => stringify!($key)),* } }

            /// Whether the limit is per second rather than on a level.
            pub const fn is_rate(self) -> bool { match self { $(Self::$variant => $rate),* } }
        }

        /// Limits of `[tenant.NAME.quota]`; 0 = unlimited.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct QuotaLimits { $($(#[$doc])* pub $key: u64),* }

        impl QuotaLimits {
            /// The limit for `resource`; 0 = unlimited.
            pub const fn limit(&self, resource: Resource) -> u64 {
                match resource { $(Resource::$variant => self.$key),* }
            }
        }
    };
}

resources! {
    /// Live connections.
    TotalConnections => total_connections, false;
    /// Bytes of memory held by live sessions.
    TotalSessionMemoryBytes => total_session_memory_bytes, false;
    /// Persistent sessions, connected or not.
    TotalPersistentSessions => total_persistent_sessions, false;
    /// Bytes queued in persistent sessions.
    TotalPersistentSessionSpaceBytes => total_persistent_session_space_bytes, false;
    /// Shared subscriptions.
    TotalSharedSubscriptions => total_shared_subscriptions, false;
    /// Subscriptions of transient sessions.
    TotalTransientSubscriptions => total_transient_subscriptions, false;
    /// Subscriptions of persistent sessions.
    TotalPersistentSubscriptions => total_persistent_subscriptions, false;
    /// Bytes of retained messages.
    TotalRetainMessageSpaceBytes => total_retain_message_space_bytes, false;
    /// Topics with a retained message.
    TotalRetainTopics => total_retain_topics, false;
    /// CONNECTs per second.
    TotalConnectPerSecond => total_connect_per_second, true;
    /// Bytes received per second.
    TotalInboundBytesPerSecond => total_inbound_bytes_per_second, true;
    /// Filters subscribed per second by transient sessions.
    TotalTransientSubscribePerSecond => total_transient_subscribe_per_second, true;
    /// Filters subscribed per second by persistent sessions.
    TotalPersistentSubscribePerSecond => total_persistent_subscribe_per_second, true;
    /// Filters unsubscribed per second by transient sessions.
    TotalTransientUnsubscribePerSecond => total_transient_unsubscribe_per_second, true;
    /// Filters unsubscribed per second by persistent sessions.
    TotalPersistentUnsubscribePerSecond => total_persistent_unsubscribe_per_second, true;
    /// Bytes per second fanned out to transient sessions.
    TotalTransientFanOutBytesPerSeconds => total_transient_fan_out_bytes_per_second, true;
    /// Bytes per second fanned out to persistent sessions.
    TotalPersistentFanOutBytesPerSeconds => total_persistent_fan_out_bytes_per_second, true;
    /// Retained messages set per second.
    TotalRetainedMessagesPerSeconds => total_retained_messages_per_second, true;
    /// Bytes of retained messages set per second.
    TotalRetainedBytesPerSecond => total_retained_bytes_per_second, true;
    /// Retained lookups per second.
    TotalRetainMatchPerSeconds => total_retain_match_per_second, true;
    /// Bytes of retained messages delivered per second.
    TotalRetainMatchBytesPerSecond => total_retain_match_bytes_per_second, true;
}

const RESOURCES: usize = Resource::ALL.len();

/// A tenant's limits and what is in use, counted over all shards. Only limited resources are touched on the data path,
/// so an unlimited tenant costs no shared write there.
#[derive(Debug)]
pub struct Quota {
    limits: [AtomicU64; RESOURCES],
    /// Level in use; for rates the count within `second`.
    used: [AtomicU64; RESOURCES],
    /// The second a rate's count belongs to.
    second: [AtomicU64; RESOURCES],
}

impl Quota {
    /// A quota with nothing in use.
    pub fn new(limits: &QuotaLimits) -> Self {
        let quota = Self {
            limits: [const { AtomicU64::new(0) }; RESOURCES],
            used: [const { AtomicU64::new(0) }; RESOURCES],
            second: [const { AtomicU64::new(0) }; RESOURCES],
        };
        quota.set_limits(limits);
        quota
    }

    /// Replaces the limits; what is in use stays.
    pub fn set_limits(&self, limits: &QuotaLimits) {
        for &resource in Resource::ALL {
            self.limits[resource.index()].store(limits.limit(resource), Ordering::Relaxed);
        }
    }

    /// The limit in force; 0 = unlimited.
    pub fn limit(&self, resource: Resource) -> u64 {
        self.limits[resource.index()].load(Ordering::Relaxed)
    }

    /// What is in use; for rates the count of the last second that saw any.
    pub fn used(&self, resource: Resource) -> u64 {
        self.used[resource.index()].load(Ordering::Relaxed)
    }

    /// Takes `amount` of a level, or takes nothing and says no. Give it back with [`Quota::release`].
    pub fn acquire(&self, resource: Resource, amount: u64) -> bool {
        debug_assert!(!resource.is_rate());
        let limit = self.limit(resource);
        let used = &self.used[resource.index()];
        let before = used.fetch_add(amount, Ordering::Relaxed);
        let admitted = limit == 0 || before.saturating_add(amount) <= limit;
        if !admitted {
            used.fetch_sub(amount, Ordering::Relaxed);
        }
        admitted
    }

    /// Counts `held` instead of `counted` of a level, whatever the limit says: for what can only be measured afterwards.
    pub fn recount(&self, resource: Resource, counted: u64, held: u64) {
        debug_assert!(!resource.is_rate());
        let used = &self.used[resource.index()];
        if held >= counted {
            used.fetch_add(held - counted, Ordering::Relaxed);
        } else {
            used.fetch_sub(counted - held, Ordering::Relaxed);
        }
    }

    /// Gives back `amount` of a level.
    pub fn release(&self, resource: Resource, amount: u64) {
        debug_assert!(!resource.is_rate());
        self.used[resource.index()].fetch_sub(amount, Ordering::Relaxed);
    }

    /// Spends `amount` of a per-second rate; false if this second's share is used up. Unlimited rates are not counted.
    pub fn spend(&self, resource: Resource, amount: u64, now: Instant) -> bool {
        debug_assert!(resource.is_rate());
        let limit = self.limit(resource);
        if limit == 0 {
            return true;
        }
        let (used, second) = (&self.used[resource.index()], &self.second[resource.index()]);
        if second.swap(now.as_unix_secs(), Ordering::Relaxed) != now.as_unix_secs() {
            used.store(0, Ordering::Relaxed);
        }
        used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_refused_at_its_limit_and_free_again_after_release() {
        let quota = Quota::new(&QuotaLimits { total_connections: 2, ..QuotaLimits::default() });
        assert!(quota.acquire(Resource::TotalConnections, 2));
        assert!(!quota.acquire(Resource::TotalConnections, 1));
        assert_eq!(quota.used(Resource::TotalConnections), 2);
        quota.release(Resource::TotalConnections, 1);
        assert!(quota.acquire(Resource::TotalConnections, 1));
        assert!(quota.acquire(Resource::TotalRetainTopics, 1 << 40), "no limit is no limit");
    }

    #[test]
    fn a_rate_starts_anew_each_second() {
        let quota = Quota::new(&QuotaLimits { total_connect_per_second: 1, ..QuotaLimits::default() });
        let at = |secs: u64| Instant::from_micros(secs * 1_000_000);
        assert!(quota.spend(Resource::TotalConnectPerSecond, 1, at(10)));
        assert!(!quota.spend(Resource::TotalConnectPerSecond, 1, at(10)));
        assert!(quota.spend(Resource::TotalConnectPerSecond, 1, at(11)));
    }

    #[test]
    fn there_are_21_resources_as_in_bifromq() {
        assert_eq!(Resource::ALL.len(), 21);
    }
}
