// Sending to an Event Hub.

import { EventHubBufferedProducerClient } from "@azure/event-hubs";
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

import { bodies, mark, NAME, producer, Receiving } from "./event_hub.mjs";
import { bytesOf, casesOf, equal, refused } from "./harness.mjs";

const { test } = casesOf("@azure/event-hubs");

const LINK_LIMIT = 1024 * 1024;

test("an event arrives with its properties of every type", async (run) => {
  const { properties, mine } = mark(run);
  const more = { text: "grün", int: 7, big: 2 ** 40, float: 1.5, flag: true, bytes: Buffer.from([1, 2]) };
  const body = Buffer.from("\x00\xff body", "latin1");
  const event = {
    body,
    properties: { ...properties, ...more },
    messageId: "m-1",
    correlationId: "c-1",
    contentType: "text/plain",
  };
  await producer(run).sendBatch([event]);
  const [found] = await new Receiving(run).until(1, mine);
  equal(Buffer.from(found.body), body);
  equal({ ...found.properties, bytes: bytesOf(found.properties.bytes) }, event.properties);
  equal([found.messageId, found.correlationId, found.contentType], ["m-1", "c-1", "text/plain"]);
  assert(found.offset && found.enqueuedTimeUtc && found.sequenceNumber >= 0);
});

test("a batch arrives whole and in order", async (run) => {
  const { properties, mine } = mark(run);
  const client = producer(run);
  const batch = await client.createBatch({ partitionId: "1" });
  const numbers = Array.from(Array(200).keys(), String);
  for (const number of numbers) assert(batch.tryAdd({ body: Buffer.from(number), properties }));
  await client.sendBatch(batch);
  equal(bodies(await new Receiving(run, { partition: "1" }).until(200, mine)), numbers);
});

test("events of one partition key share a partition", async (run) => {
  const { properties, mine } = mark(run);
  const client = producer(run);
  for (const partitionKey of "abcdefgh") {
    for (let time = 0; time < 3; time += 1)
      await client.sendBatch([{ body: Buffer.from(partitionKey), properties }], { partitionKey });
  }
  const partitions = {};
  for (const { partitionId, partitionKey, body } of await new Receiving(run).until(24, mine)) {
    equal(partitionKey, body.toString());
    (partitions[partitionKey] ??= new Set()).add(partitionId);
  }
  const sets = Object.values(partitions);
  assert(
    sets.every(({ size }) => size === 1) && new Set(sets.flatMap((set) => [...set])).size > 1,
    JSON.stringify(partitions),
  );
});

test("events without a key go to the partition that is named, or to any", async (run) => {
  const { properties, mine } = mark(run);
  const client = producer(run);
  for (const partitionId of ["0", "3", "3"])
    await client.sendBatch([{ body: Buffer.from(partitionId), properties }], { partitionId });
  for (let time = 0; time < 8; time += 1) await client.sendBatch([{ body: Buffer.from("any"), properties }]);
  const found = await new Receiving(run).until(11, mine);
  const named = found
    .map(({ partitionId, body }) => [partitionId, body.toString()])
    .filter(([, body]) => body !== "any");
  equal(named.toSorted(), [
    ["0", "0"],
    ["3", "3"],
    ["3", "3"],
  ]);
  assert(found.every(({ partitionKey }) => !partitionKey));
});

test("events of 100 KB and of nearly 1 MB arrive", async (run) => {
  const { properties, mine } = mark(run);
  const client = producer(run);
  const sent = [randomBytes(100_000), randomBytes(LINK_LIMIT - 10_000)];
  for (const body of sent) await client.sendBatch([{ body, properties }], { partitionId: "2" });
  const found = await new Receiving(run, { partition: "2" }).until(2, mine);
  assert(
    found.every(({ body }, at) => sent[at].equals(body)),
    `${found.map(({ body }) => body.length)} bytes`,
  );
});

test("an event above 1 MB is refused", async (run) => {
  const client = producer(run);
  const batch = await client.createBatch();
  equal(batch.maxSizeInBytes, LINK_LIMIT);
  equal(batch.tryAdd({ body: randomBytes(LINK_LIMIT) }), false);
  await refused(client.sendBatch([{ body: randomBytes(LINK_LIMIT) }]));
  const { properties, mine } = mark(run);
  await client.sendBatch([{ body: "the next one passes", properties }]);
  await new Receiving(run).until(1, mine);
});

test("a buffered producer sends what it holds", async (run) => {
  const { properties, mine } = mark(run);
  const failed = [];
  const options = { maxWaitTimeInMs: 200, onSendEventsErrorHandler: async ({ error }) => failed.push(error) };
  const client = new EventHubBufferedProducerClient(run.world.eventsConnectionString(), NAME, options);
  for (let number = 0; number < 50; number += 1)
    await client.enqueueEvent({ body: Buffer.from(`${number}`), properties });
  await client.flush();
  await client.close();
  equal(failed, []);
  await new Receiving(run).until(50, mine);
});
