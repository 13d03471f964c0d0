//! rumqttc, in both versions it knows.

mod peer;

use self::peer::{Message, Peer, Will};
use super::stand::{PAYLOAD_BYTES, Stand};
use bifro_tests::tls::client_config;
use rumqttc::{TlsConfiguration, Transport};
use std::future::Future;

/// A version of the protocol that rumqttc speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// A way to reach the node, in one version of the protocol.
pub(super) struct Route {
    version: Version,
    transport: Transport,
    /// A host, or a URL for WebSocket.
    host: String,
    port: u16,
    name: String,
    prefix: String,
}

impl Route {
    fn new(stand: &Stand, transport: &str, version: Version) -> Self {
        let encrypted = |identity| TlsConfiguration::Rustls(client_config(&stand.authority, identity));
        let port = |protocol: &str, nth: usize| stand.broker.nth_address(protocol, nth).port();
        let host = "localhost".to_owned();
        let (how, host, port) = match transport {
            "tcp" => (Transport::Tcp, "127.0.0.1".to_owned(), port("tcp", 0)),
            "tls" => (Transport::Tls(encrypted(None)), host, port("tls", 0)),
            "mtls" => (Transport::Tls(encrypted(Some(&stand.alice))), host, port("tls", 1)),
            "ws" => (Transport::Ws, format!("ws://localhost:{}/mqtt", port("ws", 0)), port("ws", 0)),
            _ => {
                let url = format!("wss://localhost:{}/mqtt", port("wss", 0));
                (Transport::Wss(encrypted(None)), url, port("wss", 0))
            }
        };
        let name = format!("rumqttc/{transport}/{version:?}");
        let prefix = if transport == "mtls" { format!("by-user/alice/{name}") } else { name.clone() };
        Self { version, transport: how, host, port, name, prefix }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn peer(&self, name: &str) -> Peer {
        Peer::connect(self, name, true, None).await
    }
}

async fn through_each_qos(route: &Route) {
    let (mut sender, mut receiver) = (route.peer("sender").await, route.peer("receiver").await);
    for granted in 0..=2 {
        receiver.subscribe(&route.topic("qos/+"), granted).await;
        for qos in 0..=2 {
            let topic = route.topic(&format!("qos/{qos}"));
            sender.publish(&topic, b"hello", qos, false).await;
            let expected = Message { topic, payload: b"hello".to_vec(), qos: qos.min(granted), retain: false };
            assert_eq!(receiver.message().await, expected);
        }
    }
    sender.leave().await;
    receiver.leave().await;
}

async fn retained(route: &Route) {
    let (mut sender, mut receiver) = (route.peer("sender").await, route.peer("receiver").await);
    let topic = route.topic("retained");
    sender.publish(&topic, b"kept", 1, true).await;
    receiver.subscribe(&topic, 1).await;
    let kept = receiver.message().await;
    assert_eq!((kept.payload.as_slice(), kept.retain), (&b"kept"[..], true));
    sender.publish(&topic, b"", 1, true).await;
    let mut late = route.peer("late").await;
    late.subscribe(&topic, 1).await;
    sender.publish(&topic, b"live", 1, false).await;
    let live = late.message().await;
    assert_eq!((live.payload.as_slice(), live.retain), (&b"live"[..], false));
}

async fn will(route: &Route) {
    let mut watcher = route.peer("watcher").await;
    let topic = route.topic("will");
    watcher.subscribe(&topic, 1).await;
    let testament = |payload| Some(Will { topic: topic.clone(), payload });
    Peer::connect(route, "quiet", true, testament("never")).await.leave().await;
    drop(Peer::connect(route, "loud", true, testament("gone")).await);
    assert_eq!(watcher.message().await.payload, b"gone");
}

async fn offline_queue(route: &Route) {
    let topic = route.topic("offline");
    let mut first = Peer::connect(route, "offline", false, None).await;
    assert!(!first.session_present);
    first.subscribe(&topic, 2).await;
    first.leave().await;
    let mut sender = route.peer("sender").await;
    for number in 0..20_u8 {
        sender.publish(&topic, &[number], 2, false).await;
    }
    let mut again = Peer::connect(route, "offline", false, None).await;
    assert!(again.session_present);
    for number in 0..20_u8 {
        assert_eq!(again.message().await.payload, [number]);
    }
}

async fn shared(route: &Route) {
    let topic = route.topic("shared");
    let mut members = [route.peer("member 0").await, route.peer("member 1").await];
    for member in &mut members {
        member.subscribe(&format!("$share/rumqttc/{topic}"), 1).await;
    }
    let mut sender = route.peer("sender").await;
    for number in 0..40_u8 {
        sender.publish(&topic, &[number], 1, false).await;
    }
    let [one, other] = &mut members;
    let mut numbers = Vec::new();
    while numbers.len() < 40 {
        let message = tokio::select! {
            message = one.message() => message,
            message = other.message() => message,
        };
        numbers.extend(message.payload);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<u8>>(), "each message once");
}

async fn large(route: &Route) {
    let (mut sender, mut receiver) = (route.peer("sender").await, route.peer("receiver").await);
    let topic = route.topic("large");
    receiver.subscribe(&topic, 2).await;
    let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|index| (index % 251) as u8).collect();
    for qos in 0..=2 {
        sender.publish(&topic, &payload, qos, false).await;
        let message = receiver.message().await;
        assert!(message.payload == payload && message.qos == qos, "{} bytes", message.payload.len());
    }
}

fn block_on(scenario: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(scenario);
}

fn all_scenarios(transports: &[&str]) {
    let mut stand = Stand::start();
    for transport in transports {
        for version in [Version::V311, Version::V5] {
            let route = Route::new(&stand, transport, version);
            block_on(async {
                through_each_qos(&route).await;
                retained(&route).await;
                will(&route).await;
                offline_queue(&route).await;
                shared(&route).await;
                large(&route).await;
            });
        }
    }
    stand.broker.assert_alive();
}

#[test]
fn rumqttc_over_tcp_and_tls() {
    all_scenarios(&["tcp", "tls", "mtls"]);
}

#[test]
fn rumqttc_over_websocket() {
    all_scenarios(&["ws", "wss"]);
}

/// Request and response, with everything an MQTT 5 message can carry. [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-18]
#[test]
fn rumqttc_requests_and_is_answered() {
    let stand = Stand::start();
    let route = Route::new(&stand, "tcp", Version::V5);
    block_on(async {
        let (mut asker, mut answerer) = (route.peer("asker").await, route.peer("answerer").await);
        answerer.subscribe(&route.topic("questions"), 1).await;
        asker.subscribe(&route.topic("answers"), 1).await;
        let pairs = [("b", "1"), ("a", "2"), ("b", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let question = rumqttc::v5::mqttbytes::v5::PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(3600),
            response_topic: Some(route.topic("answers")),
            correlation_data: Some(vec![0, 1, 255].into()),
            user_properties: pairs.to_vec(),
            content_type: Some("text/plain".to_owned()),
            ..Default::default()
        };
        asker.publish_with(&route.topic("questions"), b"1+1", question.clone()).await;
        let (message, mut got) = answerer.message_with_properties().await;
        assert_eq!(message.payload, b"1+1");
        let expiry = got.message_expiry_interval.take().expect("it is passed on");
        assert!((3590..=3600).contains(&expiry), "{expiry} s left");
        assert_eq!(got, rumqttc::v5::mqttbytes::v5::PublishProperties { message_expiry_interval: None, ..question });
        let answer = rumqttc::v5::mqttbytes::v5::PublishProperties {
            correlation_data: got.correlation_data,
            ..Default::default()
        };
        answerer.publish_with(&got.response_topic.expect("the asker names one"), b"2", answer).await;
        let (message, got) = asker.message_with_properties().await;
        assert_eq!(message.payload, b"2");
        assert_eq!(got.correlation_data.as_deref(), Some(&[0, 1, 255][..]));
    });
}
