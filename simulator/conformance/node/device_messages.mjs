// What the hub sends to a device: messages and direct methods.

import { Message, casesOf, equal, eventually } from "./harness.mjs";

const { test } = casesOf("azure-iot-device-mqtt");

// A client that keeps what it gets, and completes it.
async function receiving(run, device) {
  const received = [];
  const client = await run.connected(device);
  client.on("message", (message) => {
    received.push(message);
    client.complete(message);
  });
  return { client, received };
}

const bodies = (messages) => messages.map((message) => message.data.toString());

test("a cloud-to-device message arrives with its properties", async (run) => {
  const device = await run.device();
  const { received } = await receiving(run, device);
  const message = new Message("grün");
  Object.assign(message, {
    messageId: "m-1",
    correlationId: "c-1",
    contentType: "text/plain",
    contentEncoding: "utf-8",
  });
  message.properties.add("room", "a/b &=");
  await (await run.service()).send(device.id, message);
  const [found] = await eventually(() => received.length && received);
  equal(found.data.toString(), "grün");
  equal([found.messageId, found.correlationId], ["m-1", "c-1"]);
  equal([found.contentType, found.contentEncoding], ["text/plain", "utf-8"]);
  equal(found.properties.getItem(0), { key: "room", value: "a/b &=" });
});

test("cloud-to-device messages wait for the device, in order", async (run) => {
  const device = await run.device();
  await (await run.connected(device)).close();
  const service = await run.service();
  for (const number of ["0", "1", "2", "3", "4"]) await service.send(device.id, number);
  const { received } = await receiving(run, device);
  await eventually(() => received.length === 5);
  equal(bodies(received), ["0", "1", "2", "3", "4"]);
});

test("a cloud-to-device message is delivered once", async (run) => {
  const device = await run.device();
  const first = await receiving(run, device);
  const service = await run.service();
  await service.send(device.id, "first");
  await eventually(() => first.received.length);
  await first.client.close();
  await service.send(device.id, "second");
  const again = await receiving(run, device);
  await eventually(() => again.received.length);
  equal(bodies(again.received), ["second"]);
});

test("a direct method is answered", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  client.onDeviceMethod("open", (request, response) => response.send(207, { echo: request.payload }));
  const call = { methodName: "open", payload: { percent: 40 }, connectTimeoutInSeconds: 10 };
  const { result } = await (await run.service()).invokeDeviceMethod(device.id, call);
  equal(result, { status: 207, payload: { echo: { percent: 40 } } });
});
