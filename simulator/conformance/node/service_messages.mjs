// What a service sends to devices: messages, their feedback, direct methods.

import { casesOf, equal, eventually, HOST, iothub, Message, newKey, refused, sleep } from "./harness.mjs";

const { test, cannot } = casesOf("azure-iothub");

async function receiving(run, device) {
  const received = [];
  const client = await run.connected(device);
  client.on("message", (message) => {
    received.push(message);
    client.complete(message);
  });
  return received;
}

const bodies = (messages) => messages.map(({ data }) => data.toString());

test("a message reaches the device", async (run) => {
  const device = await run.device();
  const received = await receiving(run, device);
  const message = new Message('{"open": true}');
  Object.assign(message, { messageId: "m-1", correlationId: "c-1", contentType: "application/json" });
  message.properties.add("kind", "test");
  await (await run.service()).send(device.id, message);
  const [found] = await eventually(() => received.length && received);
  equal([found.data.toString(), found.messageId, found.correlationId], ['{"open": true}', "m-1", "c-1"]);
  equal([found.contentType, found.properties.getValue("kind")], ["application/json", "test"]);
});

test("a message is sent with a token credential", async (run) => {
  const device = await run.device();
  const received = await receiving(run, device);
  const service = await run.opened(iothub.Client.fromTokenCredential(HOST, run.world.entraCredential()));
  await service.send(device.id, "by token");
  await eventually(() => received.length);
});

// The feedback records on this device's messages, as they arrive.
async function feedback(run, service, device) {
  const records = [];
  const { result: receiver } = await service.getFeedbackReceiver();
  receiver.on("message", (message) => {
    records.push(...JSON.parse(message.data).filter(({ deviceId }) => deviceId === device.id));
    receiver.complete(message, () => {});
  });
  return records;
}

function asking(body, messageId) {
  const message = new Message(body);
  Object.assign(message, { messageId, ack: "full" });
  return message;
}

test("feedback says that a message was delivered", async (run) => {
  const device = await run.device();
  const service = await run.service();
  const records = await feedback(run, service, device);
  const received = await receiving(run, device);
  await service.send(device.id, asking("x", "m-1"));
  await eventually(() => received.length);
  const [record] = await eventually(() => records.length && records);
  equal([record.originalMessageId, record.deviceId, record.statusCode], ["m-1", device.id, "Success"]);
  const { responseBody: identity } = await run.registry().get(device.id);
  equal([record.deviceGenerationId, record.description], [identity.generationId, "Success"]);
  equal(Math.abs(new Date(record.enqueuedTimeUtc) - Date.now()) < 60_000, true);
});

test("feedback says that a message expired", async (run) => {
  const device = await run.device();
  await (await run.connected(device)).close();
  const service = await run.service();
  const records = await feedback(run, service, device);
  const message = asking("late", "m-2");
  message.expiryTimeUtc = Date.now() + 1000;
  await service.send(device.id, message);
  const [record] = await eventually(() => records.length && records);
  equal([record.originalMessageId, record.statusCode], ["m-2", "Expired"]);
});

test("an expired message is not delivered", async (run) => {
  const device = await run.device();
  await (await run.connected(device)).close();
  const service = await run.service();
  const late = new Message("late");
  late.expiryTimeUtc = Date.now() + 1000;
  await service.send(device.id, late);
  await service.send(device.id, "in time");
  await sleep(1500);
  const received = await receiving(run, device);
  await eventually(() => received.length);
  equal(bodies(received), ["in time"]);
});

test("a message to an unknown device is refused", async (run) => {
  await refused((await run.service()).send(run.newId(), "nobody"), "DeviceNotFoundError");
});

test("a wrong key sends nothing", async (run) => {
  const device = await run.device();
  const client = iothub.Client.fromConnectionString(run.world.hubConnectionString("iothubowner", newKey()));
  const error = await refused(client.send(device.id, "no"));
  equal(error.amqpError.name, "UnauthorizedError");
  equal((await run.registry().get(device.id)).responseBody.cloudToDeviceMessageCount, 0);
});

test("a queue takes fifty messages and no more", async (run) => {
  const device = await run.device();
  await (await run.connected(device)).close();
  const service = await run.service();
  for (let number = 0; number < 50; number += 1) await service.send(device.id, `${number}`);
  await refused(service.send(device.id, "one too many"), "DeviceMaximumQueueDepthExceededError");
  equal((await run.registry().get(device.id)).responseBody.cloudToDeviceMessageCount, 50);
});

cannot("purges the messages of a device", "it has no call for that");

const method = async (run, device, call) => (await run.service()).invokeDeviceMethod(device.id, call);

test("a method of a device that is offline is not found", async (run) => {
  await refused(method(run, await run.device(), { methodName: "open" }), undefined, "404103");
});

test("a method is answered with the device's status and payload", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  client.onDeviceMethod("close-it", (_request, response) => response.send(404, ["no", { such: null }]));
  const { result } = await method(run, device, { methodName: "close-it", connectTimeoutInSeconds: 10 });
  equal(result, { status: 404, payload: ["no", { such: null }] });
});

test("a method that the device never answers times out", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  let calls = 0;
  client.onDeviceMethod("wait", () => (calls += 1));
  const call = { methodName: "wait", responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 10 };
  await refused(method(run, device, call), "GatewayTimeoutError");
  equal(calls, 1);
});
