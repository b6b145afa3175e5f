// Things that go wrong between the hub and a device.

import { ExponentialBackOffWithJitter, Message, casesOf, equal, eventually, refused } from "./harness.mjs";

const { test, cannot } = casesOf("azure-iot-device-mqtt");

function faultMessage(operation, reason) {
  const message = new Message("fault");
  message.properties.add("AzIoTHub_FaultOperationType", operation);
  message.properties.add("AzIoTHub_FaultOperationCloseReason", reason);
  message.properties.add("AzIoTHub_FaultOperationDelayInSecs", "0");
  return message;
}

async function falls(run, operation, reason) {
  const device = await run.device();
  const client = await run.connected(device);
  const ends = [];
  client.on("disconnect", (error) => ends.push(error));
  await refused(client.sendEvent(faultMessage(operation, reason)));
  await eventually(() => ends.length);
  await (await run.connected(device)).sendEvent(new Message("after the fault"));
  await eventually(async () => (await run.events(device)).some(({ body }) => body.toString() === "after the fault"));
}

test("Microsoft's fault KillTcp ends the connection", (run) => falls(run, "KillTcp", "boom"));

test("Microsoft's fault ShutDownMqtt ends the connection", (run) => falls(run, "ShutDownMqtt", "byebye"));

test("a message whose acknowledgement is lost is sent again", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  client.setRetryPolicy(new ExponentialBackOffWithJitter());
  await run.fault({ stage: "puback", action: "close", device: device.id, times: 1 });
  const message = new Message("once more");
  message.messageId = "m-1";
  await client.sendEvent(message);
  equal(new Set((await run.events(device, 2)).map(({ messageId }) => messageId)), new Set(["m-1"]));
});

cannot(
  "a connection that fails is tried again",
  "it takes a connection that closes before CONNACK for one not authorized",
);
