// Receiving from an Event Hub: positions, owners, groups.

import { bodies, consumer, mark, producer, Receiving } from "./event_hub.mjs";
import { casesOf, equal, sleep } from "./harness.mjs";

const { test } = casesOf("@azure/event-hubs");

// So many events on this partition, as a consumer sees them, and the question for them.
async function sent(run, count, partition) {
  const { properties, mine } = mark(run);
  const client = producer(run);
  for (let number = 0; number < count; number += 1) {
    await client.sendBatch([{ body: Buffer.from(`${number}`), properties }], { partitionId: partition });
    await sleep(10); // so that no two have the same time
  }
  return { events: await new Receiving(run, { partition }).until(count, mine), mine, properties };
}

const from = async (run, partition, position, mine, count) =>
  bodies(await new Receiving(run, { partition, position }).until(count, mine));

test("from the start", async (run) => {
  const { mine } = await sent(run, 3, "0");
  const receiving = new Receiving(run, { partition: "0" });
  await receiving.until(3, mine);
  equal(
    receiving.events.map(({ sequenceNumber }) => sequenceNumber),
    [...receiving.events.keys()],
  );
});

test("from the end", async (run) => {
  const { mine, properties } = await sent(run, 3, "0");
  const receiving = await new Receiving(run, { partition: "0", position: { offset: "@latest" } }).attached();
  await producer(run).sendBatch([{ body: Buffer.from("new"), properties }], { partitionId: "0" });
  equal(bodies(await receiving.until(1, mine)), ["new"]);
});

test("from an offset, without it or with it", async (run) => {
  const { events, mine } = await sent(run, 4, "1");
  const { offset } = events[1];
  equal(await from(run, "1", { offset }, mine, 2), ["2", "3"]);
  equal(await from(run, "1", { offset, isInclusive: true }, mine, 3), ["1", "2", "3"]);
});

test("from a sequence number, without it or with it", async (run) => {
  const { events, mine } = await sent(run, 4, "2");
  const { sequenceNumber } = events[1];
  equal(await from(run, "2", { sequenceNumber }, mine, 2), ["2", "3"]);
  equal(await from(run, "2", { sequenceNumber, isInclusive: true }, mine, 3), ["1", "2", "3"]);
});

test("from a time", async (run) => {
  const { events, mine } = await sent(run, 4, "3");
  equal(await from(run, "3", { enqueuedOn: events[1].enqueuedTimeUtc }, mine, 2), ["2", "3"]);
  const before = new Date(events[0].enqueuedTimeUtc.getTime() - 1000);
  equal(await from(run, "3", { enqueuedOn: before }, mine, 4), ["0", "1", "2", "3"]);
});

test("all partitions of a hub at once", async (run) => {
  const { properties, mine } = mark(run);
  const client = producer(run);
  const partitions = await client.getPartitionIds();
  for (const partitionId of partitions)
    await client.sendBatch([{ body: Buffer.from(partitionId), properties }], { partitionId });
  const found = (await new Receiving(run).until(4, mine)).map(({ partitionId, body }) => [
    partitionId,
    body.toString(),
  ]);
  equal(
    found.toSorted(),
    partitions.map((partition) => [partition, partition]),
  );
});

test("a higher owner level takes a partition over", async (run) => {
  const { mine } = await sent(run, 1, "0");
  const weak = new Receiving(run, { partition: "0", ownerLevel: 1 });
  await weak.until(1, mine);
  const strong = new Receiving(run, { partition: "0", ownerLevel: 2 });
  await strong.until(1, mine);
  equal((await weak.failed()).code, "ReceiverDisconnectedError");
  equal((await new Receiving(run, { partition: "0", ownerLevel: 1 }).failed()).code, "ReceiverDisconnectedError");
  equal((await new Receiving(run, { partition: "0" }).failed()).code, "ReceiverDisconnectedError");
  equal(strong.error, undefined);
});

test("consumer groups read for themselves", async (run) => {
  const { mine } = await sent(run, 2, "1");
  const owner = new Receiving(run, { partition: "1", ownerLevel: 7 });
  await owner.until(2, mine);
  const other = new Receiving(run, { partition: "1", ownerLevel: 1, client: consumer(run, "second") });
  await other.until(2, mine);
  equal([owner.error, other.error], [undefined, undefined]);
});

test("an unknown consumer group is refused", async (run) => {
  const error = await new Receiving(run, { partition: "1", client: consumer(run, "nobody") }).failed();
  equal(error.code, "MessagingEntityNotFoundError");
});

test("an event tells of the last one in its partition", async (run) => {
  const { events, mine } = await sent(run, 3, "2");
  const receiving = new Receiving(run, { partition: "2", trackLastEnqueuedEventProperties: true });
  await receiving.until(3, mine);
  const { sequenceNumber, offset, enqueuedOn } = receiving.context.lastEnqueuedEventProperties;
  const last = events.at(-1);
  equal([sequenceNumber, offset, enqueuedOn], [last.sequenceNumber, last.offset, last.enqueuedTimeUtc]);
});

test(
  "a link that is refused is asked for again",
  async (run) => {
    const retryOptions = { maxRetries: 3, retryDelayInMs: 100, timeoutInMs: 5000 };
    const { mine } = await sent(run, 1, "3");
    await run.fault({ stage: "amqp_link", action: "refuse", times: 1 });
    await new Receiving(run, { partition: "3", client: consumer(run, "$Default", { retryOptions }) }).until(1, mine);
    await run.fault({ stage: "amqp_link", action: "refuse", times: 1 });
    await producer(run, { retryOptions }).sendBatch([{ body: "through" }], { partitionId: "3" });
  },
  { alone: true },
);
