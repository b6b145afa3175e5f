// Who may reach an Event Hub, and what it says of itself.

import { AzureNamedKeyCredential, AzureSASCredential } from "@azure/core-auth";
import assert from "node:assert/strict";

import { mark, NAME, producer, producerBy, Receiving } from "./event_hub.mjs";
import { casesOf, equal, HOST, newKey, refused, sasToken } from "./harness.mjs";

const { test } = casesOf("@azure/event-hubs");

const RESOURCE = `sb://${HOST}/${NAME}`;
const EVENTS = [{ body: "x" }];

async function passes(run, client) {
  const { properties, mine } = mark(run);
  await client.sendBatch([{ body: "x", properties }]);
  await new Receiving(run).until(1, mine);
}

test("the properties of a hub and its partitions", async (run) => {
  const client = producer(run);
  const hub = await client.getEventHubProperties();
  equal([hub.name, hub.partitionIds], [NAME, ["0", "1", "2", "3"]]);
  assert(hub.createdOn instanceof Date);
  const before = await client.getPartitionProperties("2");
  await client.sendBatch(EVENTS, { partitionId: "2" });
  const after = await client.getPartitionProperties("2");
  equal([after.eventHubName, after.partitionId, after.isEmpty], [NAME, "2", false]);
  equal(after.lastEnqueuedSequenceNumber, before.lastEnqueuedSequenceNumber + 1);
  assert(Math.abs(after.lastEnqueuedOnUtc - Date.now()) < 60_000, `${after.lastEnqueuedOnUtc}`);
});

test("an unknown hub is refused", async (run) => {
  const client = producer(run, { hub: "nothing-here" });
  await refused(client.sendBatch(EVENTS), "MessagingError");
  await refused(client.getEventHubProperties(), "MessagingError");
});

test("an unknown partition is refused", async (run) => {
  await refused(producer(run).sendBatch(EVENTS, { partitionId: "99" }), "MessagingError");
  await refused(producer(run).getPartitionProperties("99"), "MessagingError");
});

const unauthorized = async (promise) => equal((await refused(promise, "MessagingError")).code, "UnauthorizedError");

test("a wrong key is refused", async (run) => {
  await unauthorized(producerBy(run, new AzureNamedKeyCredential(run.world.eventsKeyName, newKey())).sendBatch(EVENTS));
});

test("an unknown key name is refused", async (run) => {
  await unauthorized(producerBy(run, new AzureNamedKeyCredential("nobody", run.world.eventsKey)).sendBatch(EVENTS));
});

test("a named key is accepted", async (run) => {
  await passes(run, producerBy(run, new AzureNamedKeyCredential(run.world.eventsKeyName, run.world.eventsKey)));
});

// Event Hubs signs with the key's text, IoT Hub with the bytes that it encodes.
const signed = (run, expiry) =>
  new AzureSASCredential(sasToken(RESOURCE, run.world.eventsKey, run.world.eventsKeyName, expiry));

test("a signature made elsewhere is accepted", async (run) => {
  await passes(run, producerBy(run, signed(run)));
});

test("an expired signature is refused", async (run) => {
  await unauthorized(producerBy(run, signed(run, Math.floor(Date.now() / 1000) - 60)).sendBatch(EVENTS));
});

test("a token credential is accepted", async (run) => {
  await passes(run, producerBy(run, run.world.entraCredential()));
});

test("a token for something else is refused", async (run) => {
  await refused(producerBy(run, run.world.entraCredential("https://iothubs.azure.net")).sendBatch(EVENTS));
});
