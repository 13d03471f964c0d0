//! What ends up on a line, and how levels follow the configuration.

use super::*;
use bifro_core::event::{Event, EventKind};
use std::io::{self, Write};
use std::sync::Mutex;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics while it writes").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no test panics while it writes").clone()).expect("lines are UTF-8")
    }
}

fn captured(config: &LogConfig, act: impl FnOnce(&EventLog, &reload::Handle<Targets, Registry>)) -> String {
    let lines = Captured::default();
    let writer = lines.clone();
    let (layer, filter) = reload::Layer::new(targets(config.level));
    let subscriber = Registry::default().with(layer).with(line_layer(config.format, false, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, || act(&EventLog::new(2, config), &filter));
    lines.text()
}

fn event(kind: EventKind, detail: &str) -> Event {
    Event { topic: Some("a/b\nc".into()), ..Event::of(kind, None, detail) }
}

#[test]
fn an_event_is_one_line_whatever_the_client_sent() {
    let text = captured(&LogConfig::default(), |events, _| {
        events.log_event(0, &event(EventKind::ClientConnected, "first\nforged line"));
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("kind=\"client_connected\"") && text.contains("topic=\"a/b\\nc\""), "{text}");
}

#[test]
fn json_lines_are_objects_with_the_events_fields() {
    let config = LogConfig { format: LogFormat::Json, ..LogConfig::default() };
    let text = captured(&config, |events, _| events.log_event(0, &event(EventKind::ByServer, "why")));
    let line: serde_json::Value = serde_json::from_str(&text).expect("a JSON object");
    assert_eq!((line["kind"].as_str(), line["detail"].as_str()), (Some("by_server"), Some("why")));
    assert_eq!((line["topic"].as_str(), line.get("tenant")), (Some("a/b\nc"), None));
}

#[test]
fn the_level_of_a_kind_decides_and_follows_a_reload() {
    let text = captured(&LogConfig::default(), |events, _| {
        events.log_event(0, &event(EventKind::Pushed, "debug is below info"));
        let mut config = LogConfig::default();
        config.events.insert("pushed".to_owned(), LogLevel::Warn);
        config.events.insert("client_connected".to_owned(), LogLevel::Off);
        events.apply(&config);
        events.log_event(1, &event(EventKind::Pushed, "raised"));
        events.log_event(1, &event(EventKind::ClientConnected, "silenced"));
        let counted: Vec<_> = events.counts().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [(EventKind::ClientConnected, 1), (EventKind::Pushed, 2)], "counted, logged or not");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("raised"), "{text}");
}

#[test]
fn the_level_of_the_process_follows_a_reload() {
    let text = captured(&LogConfig::default(), |_, filter| {
        tracing::debug!("before");
        filter.reload(targets(LogLevel::Debug)).expect("the subscriber is in force");
        tracing::debug!("after");
        tracing::info!(target: "hyper::client", "chatter");
    });
    assert!(!text.contains("before") && text.contains("after") && !text.contains("chatter"), "{text}");
}
