"""Scenarios with paho-mqtt against a running broker, in every protocol version, over the transports named as arguments.

Standard input is the JSON that `foreign/stand.rs` writes: ports and files. Prints "done <transport> <version>" for each
combination that passes; anything else ends with an exception.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE_S = 15
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5.0": mqtt.MQTTv5}


class Peer:
    """A client whose callbacks feed queues, so that scenarios read from top to bottom."""

    def __init__(self, stand, transport, version, client_id, clean=True, will=None):
        self.is_v5 = version == mqtt.MQTTv5
        self.messages = queue.Queue()
        self.happened = queue.Queue()
        kind = {"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(transport, "tcp")
        more = {} if self.is_v5 else {"clean_session": clean}
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, transport=kind, **more
        )
        if kind == "websockets":
            client.ws_set_options(path="/mqtt")
        if transport in ("tls", "wss"):
            client.tls_set(ca_certs=stand["ca"])
        if transport == "mtls":
            client.tls_set(ca_certs=stand["ca"], certfile=stand["certificate"], keyfile=stand["key"])
        if will:
            client.will_set(*will)
        client.on_connect = lambda _c, _u, flags, reason, _p: self.happened.put(("connect", reason, flags))
        client.on_subscribe = lambda _c, _u, mid, reasons, _p: self.happened.put(("subscribe", mid, reasons))
        client.on_unsubscribe = lambda _c, _u, mid, reasons, _p: self.happened.put(("unsubscribe", mid, reasons))
        client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client = client
        properties = None
        if self.is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 3600
            properties.TopicAliasMaximum = 5
        where = stand["unix"] if transport == "unix" else "127.0.0.1"
        port = 1 if transport == "unix" else stand[transport]
        start = {"clean_start": clean} if self.is_v5 else {}
        client.connect(where, port, properties=properties, **start)
        client.loop_start()
        _, reason, flags = self.wait("connect")
        assert not reason.is_failure, f"refused: {reason}"
        self.session_present = flags.session_present

    def wait(self, what):
        event = self.happened.get(timeout=PATIENCE_S)
        assert event[0] == what, f"{event} instead of {what}"
        return event

    def subscribe(self, topic, qos=0, **v5):
        if v5:
            self.client.subscribe(topic, **v5)
        else:
            self.client.subscribe(topic, qos)
        _, _, reasons = self.wait("subscribe")
        assert not reasons[0].is_failure, f"{topic}: {reasons[0]}"
        return reasons[0].value

    def publish(self, topic, payload, qos=0, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(PATIENCE_S)
        assert sent.is_published(), f"{topic} was not acknowledged"

    def message(self):
        return self.messages.get(timeout=PATIENCE_S)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def crash(self):
        """Ends the connection without a DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()


class Route:
    """One transport in one version."""

    def __init__(self, stand, transport, name):
        self.stand, self.transport, self.version = stand, transport, VERSIONS[name]
        user = "by-user/alice/" if transport == "mtls" else ""
        self.prefix = f"{user}paho/{transport}/{name}"
        self.is_v5 = self.version == mqtt.MQTTv5
        self.payload_bytes = stand["payload_bytes"]

    def topic(self, name):
        return f"{self.prefix}/{name}"

    def peer(self, name, **how):
        version = {3: "31", 4: "311", 5: "5"}[int(self.version)]
        return Peer(self.stand, self.transport, self.version, f"p{self.transport}{version}{name}", **how)


def through_each_qos(route):
    sender, receiver = route.peer("snd"), route.peer("rcv")
    for granted in (0, 1, 2):
        assert receiver.subscribe(route.topic("qos/+"), granted) == granted
        for qos in (0, 1, 2):
            sender.publish(route.topic(f"qos/{qos}"), f"{granted}{qos}", qos)
            message = receiver.message()
            assert message.payload.decode() == f"{granted}{qos}"
            assert (message.qos, message.retain) == (min(granted, qos), False)
    sender.leave()
    receiver.leave()


def retained(route):
    sender, receiver = route.peer("snd"), route.peer("rcv")
    topic = route.topic("retained")
    sender.publish(topic, b"kept", 1, retain=True)
    receiver.subscribe(topic, 1)
    message = receiver.message()
    assert (message.payload, message.retain, message.qos) == (b"kept", True, 1)
    sender.publish(topic, b"", 1, retain=True)
    assert receiver.message().payload == b""
    late = route.peer("late")
    late.subscribe(topic, 1)
    sender.publish(topic, b"live", 1)
    message = late.message()
    assert (message.payload, message.retain) == (b"live", False)
    for peer in (sender, receiver, late):
        peer.leave()


def will(route):
    watcher = route.peer("watch")
    topic = route.topic("will")
    watcher.subscribe(topic, 2)
    route.peer("quiet", will=(topic, b"never", 2, False)).leave()
    route.peer("loud", will=(topic, b"gone", 2, False)).crash()
    message = watcher.message()
    assert (message.payload, message.qos) == (b"gone", 2), "a client that said DISCONNECT has no will"
    watcher.leave()


def offline_queue(route):
    topic = route.topic("offline")
    first = route.peer("off", clean=False)
    assert not first.session_present
    first.subscribe(topic, 2)
    first.leave()
    sender = route.peer("snd")
    for number in range(20):
        sender.publish(topic, str(number), 1 + number % 2)
    again = route.peer("off", clean=False)
    # MQTT 3.1 has no such flag.
    assert again.session_present or route.version == mqtt.MQTTv31
    got = [(int(m.payload), m.qos) for m in (again.message() for _ in range(20))]
    for qos in (1, 2):
        assert [n for n, q in got if q == qos] == [n for n in range(20) if 1 + n % 2 == qos], got
    again.leave()
    route.peer("off").leave()
    sender.leave()


def shared(route):
    members = [route.peer("m0"), route.peer("m1")]
    topic = route.topic("shared")
    for member in members:
        member.subscribe(f"$share/paho/{topic}", 1)
    sender = route.peer("snd")
    for number in range(40):
        sender.publish(topic, str(number), 1)
    got = []
    while len(got) < 40:
        for member in members:
            try:
                got.append(int(member.messages.get(timeout=0.02 if got else PATIENCE_S / 2).payload))
            except queue.Empty:
                pass
    assert sorted(got) == list(range(40)), got
    for peer in (sender, *members):
        peer.leave()


def large(route):
    sender, receiver = route.peer("snd"), route.peer("rcv")
    topic = route.topic("large")
    receiver.subscribe(topic, 2)
    payload = bytes(index % 251 for index in range(route.payload_bytes))
    for qos in (0, 1, 2):
        sender.publish(topic, payload, qos)
        message = receiver.message()
        assert message.payload == payload and message.qos == qos, f"{len(message.payload)} bytes at QoS {message.qos}"
    sender.leave()
    receiver.leave()


def properties(route):
    sender, receiver = route.peer("snd"), route.peer("rcv")
    topic = route.topic("properties")
    wanted = Properties(PacketTypes.SUBSCRIBE)
    wanted.SubscriptionIdentifier = 268_435_455
    receiver.subscribe(topic, options=SubscribeOptions(qos=1), properties=wanted)
    sent = Properties(PacketTypes.PUBLISH)
    sent.PayloadFormatIndicator = 1
    sent.MessageExpiryInterval = 3600
    sent.ContentType = "text/plain"
    sent.ResponseTopic = route.topic("answers")
    sent.CorrelationData = bytes(range(256))
    sent.UserProperty = [("b", "1"), ("a", "2"), ("b", "3"), ("ü", "")]
    sender.publish(topic, "text", 1, properties=sent)
    got = receiver.message().properties
    assert got.UserProperty == sent.UserProperty, got.UserProperty
    for name in ("PayloadFormatIndicator", "ContentType", "ResponseTopic", "CorrelationData"):
        assert getattr(got, name) == getattr(sent, name), name
    assert 3590 <= got.MessageExpiryInterval <= 3600
    assert got.SubscriptionIdentifier == [268_435_455]
    sender.leave()
    receiver.leave()


def topic_alias(route):
    sender, receiver = route.peer("snd"), route.peer("rcv")
    receiver.subscribe(route.topic("alias/+"), 1)
    for topic in (route.topic("alias/a"), "", ""):
        sent = Properties(PacketTypes.PUBLISH)
        sent.TopicAlias = 1
        sender.publish(topic, "x", 1, properties=sent)
        assert receiver.message().topic in (route.topic("alias/a"), "")
    sender.leave()
    receiver.leave()


def request_response(route):
    asker, answerer = route.peer("ask"), route.peer("answer")
    answerer.subscribe(route.topic("questions"), 1)
    asker.subscribe(route.topic("answers"), 1)
    question = Properties(PacketTypes.PUBLISH)
    question.ResponseTopic = route.topic("answers")
    question.CorrelationData = b"17"
    asker.publish(route.topic("questions"), b"1+1", 1, properties=question)
    got = answerer.message().properties
    answer = Properties(PacketTypes.PUBLISH)
    answer.CorrelationData = got.CorrelationData
    answerer.publish(got.ResponseTopic, b"2", 1, properties=answer)
    message = asker.message()
    assert (message.payload, message.properties.CorrelationData) == (b"2", b"17")
    asker.leave()
    answerer.leave()


def main():
    stand = json.load(sys.stdin)
    for transport in sys.argv[1:]:
        for name in VERSIONS:
            route = Route(stand, transport, name)
            scenarios = [through_each_qos, retained, will, offline_queue, shared, large]
            if route.is_v5:
                scenarios += [properties, topic_alias, request_response]
            for scenario in scenarios:
                print(f"     {transport} {name} {scenario.__name__}", flush=True)
                scenario(route)
            print(f"done {transport} {name}", flush=True)


main()
