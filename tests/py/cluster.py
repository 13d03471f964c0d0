"""paho-mqtt clients of a cluster, told what to do by a test and telling what they hear; see `cluster/foreign/paho.rs`.

Commands on standard input and events on standard output are JSON lists, one a line:

    ["subscriber", NAME, VERSION, HOST, PORT, FILTER, QOS]    connects to a session that is kept, and subscribes if it is new
    ["publisher", NAME, VERSION, HOST, PORT]                  the same without a subscription
    ["publish", NAME, TOPIC, PAYLOAD, QOS]                    the payload in hexadecimal digits; one at a time
    ["break", NAME]                                           its connection ends

    ["connected", NAME, SESSION_PRESENT]      ["disconnected", NAME]            ["subscribed", NAME]
    ["answered", NAME, PAYLOAD, SUCCESS]      ["message", NAME, PAYLOAD, DUP]

The end of standard input ends it. Clients connect again by paho's own loop.
"""

import json
import socket
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

telling = threading.Lock()
clients = {}


def tell(*event):
    with telling:
        print(json.dumps(event), flush=True)


class Paho(mqtt.Client):
    """paho 2.1 forgets, when a second attempt to connect fails, that a message of QoS 2 had its PUBREC, and publishes it anew."""

    def _messages_reconnect_reset_out(self):
        released = (mqtt.mqtt_ms_wait_for_pubcomp, mqtt.mqtt_ms_resend_pubrel)
        released = [message for message in self._out_messages.values() if message.state in released]
        super()._messages_reconnect_reset_out()
        for message in released:
            message.state = mqtt.mqtt_ms_resend_pubrel


class Client:
    def __init__(self, name, version, host, port, subscription=None):
        more = {} if version == mqtt.MQTTv5 else {"clean_session": False}
        self.client = Paho(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **more)
        self.payload = None
        self.name, self.subscription = name, subscription
        self.client.reconnect_delay_set(1, 2)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = lambda *_: tell("disconnected", name)
        self.client.on_subscribe = lambda *_: tell("subscribed", name)
        self.client.on_message = lambda _c, _u, message: tell("message", name, message.payload.hex(), message.dup)
        self.client.on_publish = self.on_publish
        start = {}
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            start = {"clean_start": False, "properties": properties}
        self.client.connect_async(host, port, keepalive=5, **start)
        self.client.loop_start()

    def on_connect(self, _client, _data, flags, reason, _properties):
        if reason.is_failure:
            return
        tell("connected", self.name, flags.session_present)
        if self.subscription and not flags.session_present:
            self.client.subscribe(*self.subscription)

    def publish(self, topic, payload, qos):
        self.payload = payload
        self.client.publish(topic, bytes.fromhex(payload), qos)

    def on_publish(self, _client, _data, _mid, reason, _properties):
        tell("answered", self.name, self.payload, not reason.is_failure)

    def end_connection(self):
        connection = self.client.socket()
        if connection:
            connection.shutdown(socket.SHUT_RDWR)


def main():
    for line in sys.stdin:
        what, name, *more = json.loads(line)
        if what == "publish":
            clients[name].publish(*more)
        elif what == "break":
            clients[name].end_connection()
        elif what == "publisher":
            clients[name] = Client(name, *more)
        else:
            version, host, port, *subscription = more
            clients[name] = Client(name, version, host, port, subscription)
    for client in clients.values():
        client.client.disconnect()
        client.client.loop_stop()


main()
