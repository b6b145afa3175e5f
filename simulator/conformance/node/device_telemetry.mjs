// Messages from the device to the built-in endpoint, read there with @azure/event-hubs.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

import { bytesOf, DeviceClient, HOST, Message, Mqtt, casesOf, equal, refused, sasToken, sleep } from "./harness.mjs";

const { test } = casesOf("azure-iot-device-mqtt");

const LIMIT_BYTES = 256 * 1024;

test("a message arrives with its body, properties and annotations", async (run) => {
  const device = await run.device();
  const { responseBody: identity } = await run.registry().get(device.id);
  const message = new Message('{"t": 21.5}');
  Object.assign(message, { messageId: "mid-1", correlationId: "cid-1", userId: "someone" });
  Object.assign(message, { contentType: "application/json", contentEncoding: "utf-8" });
  const properties = { room: "greenhouse", "iothub-creation-time-utc": "2026-02-03T04:05:06.7Z" };
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  const before = Date.now();
  await (await run.connected(device)).sendEvent(message);
  const [event] = await run.events(device);
  equal(event.body.toString(), '{"t": 21.5}');
  equal(event.properties, properties);
  equal([event.messageId, event.correlationId, event.contentType], ["mid-1", "cid-1", "application/json"]);
  equal([event.amqp.contentEncoding, bytesOf(event.systemProperties.userId).toString()], ["utf-8", "someone"]);
  const { annotations } = event;
  equal(annotations["iothub-connection-device-id"], device.id);
  equal(annotations["iothub-connection-auth-generation-id"], identity.generationId);
  equal(annotations["iothub-message-source"], "Telemetry");
  const { scope, type, issuer } = JSON.parse(annotations["iothub-connection-auth-method"]);
  equal([scope, type, issuer], ["device", "sas", "iothub"]);
  for (const name of ["iothub-enqueuedtime", "x-opt-enqueued-time"]) {
    assert(
      Math.abs(new Date(annotations[name]).getTime() - before) < 60_000,
      `${name} ${annotations[name]}, sent at ${before}`,
    );
  }
  equal(event.partitionKey, device.id);
});

test("any characters survive in properties", async (run) => {
  const device = await run.device();
  const message = new Message("x");
  message.messageId = "a-:.+%_#*?!(),=@;$'";
  const properties = { "k y": "v&=/?#+ %", größe: "zwölf €", $odd: "$.mid" };
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  await (await run.connected(device)).sendEvent(message);
  const [event] = await run.events(device);
  equal(event.properties, properties);
  equal(event.messageId, message.messageId);
});

test("any body survives byte for byte", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  const sent = [
    Buffer.alloc(0),
    Buffer.from([...Array(256).keys()]),
    Buffer.from("grün"),
    Buffer.from('{ "b":1.0 }\n'),
  ];
  for (const body of sent) await client.sendEvent(new Message(body));
  const events = await run.events(device, sent.length);
  equal(
    events.map(({ body }) => Buffer.from(body).toString("hex")),
    sent.map((body) => body.toString("hex")),
  );
});

test("a session by policy shows in the message", async (run) => {
  const device = await run.device();
  const key = Buffer.from(run.world.policies.device, "base64");
  const client = run.own(
    DeviceClient.fromSharedAccessSignature(sasToken(`${HOST}/devices/${device.id}`, key, "device"), Mqtt),
  );
  await client.open();
  await client.sendEvent(new Message("x"));
  const [event] = await run.events(device);
  equal(JSON.parse(event.annotations["iothub-connection-auth-method"]).scope, "hub");
});

test("a hundred messages arrive once each and in order", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  const numbers = Array.from(Array(100).keys(), String);
  await Promise.all(numbers.map((number) => client.sendEvent(new Message(number))));
  const events = await run.events(device, 100);
  equal(
    events.map(({ body }) => body.toString()),
    numbers,
  );
  equal(new Set(events.map(({ partitionId }) => partitionId)).size, 1);
  const sequence = events.map(({ sequenceNumber }) => sequenceNumber);
  equal(
    sequence,
    sequence.toSorted((a, b) => a - b),
  );
});

test("a message of 256 KB arrives", async (run) => {
  const device = await run.device();
  const body = randomBytes(LIMIT_BYTES);
  await (await run.connected(device)).sendEvent(new Message(body));
  const [event] = await run.events(device);
  assert(body.equals(event.body), `${event.body.length} bytes, not those that were sent`);
});

test("a message above 256 KB does not arrive", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  await refused(client.sendEvent(new Message(randomBytes(LIMIT_BYTES + 1))));
  await sleep(500);
  equal(await run.world.builtIn.of(device, 0), []);
});
