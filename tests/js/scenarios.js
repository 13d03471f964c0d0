// Scenarios with MQTT.js against a running broker, in every protocol version, over the transports named as arguments.
//
// Standard input is the JSON that `foreign/stand.rs` writes: ports and files. Prints "done <transport> <version>" for each
// combination that passes; the first failure ends the process with status 1.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const PATIENCE_MS = 15_000;
const VERSIONS = {
  "3.1": { protocolId: "MQIsdp", protocolVersion: 3 },
  "3.1.1": { protocolVersion: 4 },
  "5.0": { protocolVersion: 5 },
};
const SCHEMES = { tcp: "mqtt", tls: "mqtts", mtls: "mqtts", ws: "ws", wss: "wss" };

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A connected client with a queue of the messages that have come. */
class Peer {
  constructor(client) {
    this.client = client;
    this.arrived = [];
    this.waiting = [];
    client.on("message", (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain, properties: packet.properties ?? {} };
      const taker = this.waiting.shift();
      if (taker) taker(message);
      else this.arrived.push(message);
    });
  }

  message() {
    const next = this.arrived.shift();
    return next ? Promise.resolve(next) : within(new Promise((taker) => this.waiting.push(taker)), "message");
  }

  async subscribe(topic, options) {
    const [granted] = await within(this.client.subscribeAsync(topic, options), `SUBACK for ${topic}`);
    assert.ok(granted.qos < 3, `${topic} was refused`);
    return granted.qos;
  }

  publish(topic, payload, options = {}) {
    return within(this.client.publishAsync(topic, payload, options), `acknowledgement of ${topic}`);
  }

  leave() {
    return within(this.client.endAsync(), "end");
  }

  /** Ends the connection without a DISCONNECT. */
  async crash() {
    const closed = new Promise((done) => this.client.once("close", done));
    this.client.stream.destroy();
    await within(closed, "close");
    await this.client.endAsync(true);
  }
}

/** One transport in one version. */
class Route {
  constructor(stand, transport, name) {
    Object.assign(this, { stand, transport, name, isV5: name === "5.0" });
    this.prefix = `${transport === "mtls" ? "by-user/alice/" : ""}js/${transport}/${name}`;
  }

  topic(name) {
    return `${this.prefix}/${name}`;
  }

  async peer(name, { clean = true, will } = {}) {
    const { stand, transport } = this;
    const path = transport.startsWith("ws") ? "/mqtt" : "";
    const url = `${SCHEMES[transport]}://localhost:${stand[transport]}${path}`;
    const options = {
      ...VERSIONS[this.name],
      clientId: `j${transport}${this.name}${name}`,
      clean,
      will,
      reconnectPeriod: 0,
      family: 4,
    };
    if (transport === "mtls") {
      Object.assign(options, { cert: readFileSync(stand.certificate), key: readFileSync(stand.key) });
    }
    if (this.isV5) options.properties = { sessionExpiryInterval: clean ? 0 : 3600, topicAliasMaximum: 5 };
    const client = mqtt.connect(url, options);
    // Messages of a resumed session come right behind CONNACK, so somebody must listen before.
    const peer = new Peer(client);
    peer.connack = await within(
      new Promise((done, refuse) => client.once("connect", done).once("error", refuse)),
      `CONNACK over ${url}`,
    );
    return peer;
  }
}

async function throughEachQos(route) {
  const [sender, receiver] = [await route.peer("snd"), await route.peer("rcv")];
  for (const granted of [0, 1, 2]) {
    assert.equal(await receiver.subscribe(route.topic("qos/+"), { qos: granted }), granted);
    for (const qos of [0, 1, 2]) {
      await sender.publish(route.topic(`qos/${qos}`), `${granted}${qos}`, { qos });
      const message = await receiver.message();
      assert.equal(message.payload.toString(), `${granted}${qos}`);
      assert.deepEqual([message.qos, message.retain], [Math.min(granted, qos), false]);
    }
  }
  await Promise.all([sender.leave(), receiver.leave()]);
}

async function retained(route) {
  const [sender, receiver, late] = [await route.peer("snd"), await route.peer("rcv"), await route.peer("late")];
  const topic = route.topic("retained");
  await sender.publish(topic, "kept", { qos: 1, retain: true });
  await receiver.subscribe(topic, { qos: 1 });
  const kept = await receiver.message();
  assert.deepEqual([kept.payload.toString(), kept.retain, kept.qos], ["kept", true, 1]);
  await sender.publish(topic, "", { qos: 1, retain: true });
  await late.subscribe(topic, { qos: 1 });
  await sender.publish(topic, "live", { qos: 1 });
  const live = await late.message();
  assert.deepEqual([live.payload.toString(), live.retain], ["live", false]);
  await Promise.all([sender.leave(), receiver.leave(), late.leave()]);
}

async function will(route) {
  const watcher = await route.peer("watch");
  const topic = route.topic("will");
  await watcher.subscribe(topic, { qos: 1 });
  const testament = (payload) => ({ will: { topic, payload: Buffer.from(payload), qos: 1, retain: false } });
  await (await route.peer("quiet", testament("never"))).leave();
  await (await route.peer("loud", testament("gone"))).crash();
  assert.equal((await watcher.message()).payload.toString(), "gone");
  await watcher.leave();
}

async function offlineQueue(route) {
  const topic = route.topic("offline");
  const first = await route.peer("off", { clean: false });
  await first.subscribe(topic, { qos: 2 });
  await first.leave();
  const sender = await route.peer("snd");
  for (let number = 0; number < 20; number += 1) await sender.publish(topic, `${number}`, { qos: 2 });
  const again = await route.peer("off", { clean: false });
  // MQTT 3.1 has no such flag.
  assert.ok(again.connack.sessionPresent || route.name === "3.1");
  for (let number = 0; number < 20; number += 1) {
    assert.equal((await again.message()).payload.toString(), `${number}`);
  }
  await Promise.all([again.leave(), sender.leave()]);
  await (await route.peer("off")).leave();
}

async function shared(route) {
  const members = [await route.peer("m0"), await route.peer("m1")];
  const topic = route.topic("shared");
  for (const member of members) await member.subscribe(`$share/js/${topic}`, { qos: 1 });
  const sender = await route.peer("snd");
  const numbers = [];
  const complete = new Promise((done) => {
    for (const member of members) {
      member.client.on("message", (_topic, payload) => {
        numbers.push(Number(payload.toString()));
        if (numbers.length === 40) done();
      });
    }
  });
  for (let number = 0; number < 40; number += 1) await sender.publish(topic, `${number}`, { qos: 1 });
  await within(complete, "40 messages");
  assert.deepEqual(numbers.sort((a, b) => a - b), [...Array(40).keys()]);
  await Promise.all([sender, ...members].map((peer) => peer.leave()));
}

async function large(route) {
  const [sender, receiver] = [await route.peer("snd"), await route.peer("rcv")];
  const topic = route.topic("large");
  await receiver.subscribe(topic, { qos: 2 });
  const payload = Buffer.from(Array.from({ length: route.stand.payload_bytes }, (_, index) => index % 251));
  for (const qos of [0, 1, 2]) {
    await sender.publish(topic, payload, { qos });
    const message = await receiver.message();
    assert.ok(message.payload.equals(payload) && message.qos === qos, `${message.payload.length} bytes`);
  }
  await Promise.all([sender.leave(), receiver.leave()]);
}

async function properties(route) {
  const [sender, receiver] = [await route.peer("snd"), await route.peer("rcv")];
  const topic = route.topic("properties");
  await receiver.subscribe(topic, { qos: 1, properties: { subscriptionIdentifier: 300 } });
  const sent = {
    payloadFormatIndicator: true,
    messageExpiryInterval: 3600,
    contentType: "text/plain",
    responseTopic: route.topic("answers"),
    correlationData: Buffer.from([0, 255, 1]),
    userProperties: { b: ["1", "3"], a: "2" },
  };
  await sender.publish(topic, "text", { qos: 1, properties: sent });
  const got = { ...(await receiver.message()).properties };
  assert.ok(got.messageExpiryInterval > 3590 && got.messageExpiryInterval <= 3600);
  assert.deepEqual([got.subscriptionIdentifier].flat(), [300]);
  assert.deepEqual({ ...got.userProperties }, sent.userProperties);
  for (const name of ["payloadFormatIndicator", "contentType", "responseTopic", "correlationData"]) {
    assert.deepEqual(got[name], sent[name], name);
  }
  await Promise.all([sender.leave(), receiver.leave()]);
}

async function requestResponse(route) {
  const [asker, answerer] = [await route.peer("ask"), await route.peer("answer")];
  await answerer.subscribe(route.topic("questions"), { qos: 1 });
  await asker.subscribe(route.topic("answers"), { qos: 1 });
  const question = { responseTopic: route.topic("answers"), correlationData: Buffer.from("17") };
  await asker.publish(route.topic("questions"), "1+1", { qos: 1, properties: question });
  const { responseTopic, correlationData } = (await answerer.message()).properties;
  await answerer.publish(responseTopic, "2", { qos: 1, properties: { correlationData } });
  const answer = await asker.message();
  assert.deepEqual([answer.payload.toString(), answer.properties.correlationData.toString()], ["2", "17"]);
  await Promise.all([asker.leave(), answerer.leave()]);
}

const stand = JSON.parse(readFileSync(0, "utf8"));
for (const transport of process.argv.slice(2)) {
  for (const name of Object.keys(VERSIONS)) {
    const route = new Route(stand, transport, name);
    const scenarios = [throughEachQos, retained, will, offlineQueue, shared, large];
    if (route.isV5) scenarios.push(properties, requestResponse);
    for (const scenario of scenarios) {
      console.log(`     ${transport} ${name} ${scenario.name}`);
      await scenario(route);
    }
    console.log(`done ${transport} ${name}`);
  }
}
process.exit(0);
