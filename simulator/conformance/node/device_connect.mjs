// Who may connect, and what ends a connection.

import assert from "node:assert/strict";

import {
  AuthenticationType,
  DeviceClient,
  ExponentialBackOffWithJitter,
  HOST,
  Message,
  Mqtt,
  SharedAccessSignature,
  casesOf,
  equal,
  eventually,
  newKey,
  refused,
  sasToken,
  sleep,
} from "./harness.mjs";

const { test } = casesOf("azure-iot-device-mqtt");

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
const policyKey = (run, policy) => Buffer.from(run.world.policies[policy], "base64");
const clientOfToken = (run, token) => run.own(DeviceClient.fromSharedAccessSignature(`${token}`, Mqtt));

function disconnects(client) {
  const errors = [];
  client.on("disconnect", (error) => errors.push(error));
  return errors;
}

test("connects with the primary key", async (run) => {
  await run.connected(await run.device());
});

test("connects with the secondary key", async (run) => {
  const device = await run.device();
  await run.client(device, device.secondaryKey).open();
});

test("connects with a policy's token for this device", async (run) => {
  const { id } = await run.device();
  await clientOfToken(run, sasToken(`${HOST}/devices/${id}`, policyKey(run, "device"), "device")).open();
});

test("connects with a policy's token for all devices", async (run) => {
  const { id: deviceId } = await run.device();
  const sharedAccessSignature = sasToken(`${HOST}/devices`, policyKey(run, "device"), "device");
  const credentials = { host: HOST, deviceId, sharedAccessSignature };
  const provider = {
    type: AuthenticationType.Token,
    getDeviceCredentials: (done) => done(null, credentials),
    on() {},
    removeListener() {},
    stop() {},
  };
  await run.own(DeviceClient.fromAuthenticationProvider(provider, Mqtt)).open();
});

test("a wrong key is refused", async (run) => {
  await refused(run.client(await run.device(), newKey()).open(), "UnauthorizedError");
});

test("a policy without the right to connect is refused", async (run) => {
  const { id } = await run.device();
  const token = sasToken(`${HOST}/devices/${id}`, policyKey(run, "service"), "service");
  await refused(clientOfToken(run, token).open(), "UnauthorizedError");
});

test("an expired token is refused", async (run) => {
  const { id, primaryKey } = await run.device();
  const token = SharedAccessSignature.create(HOST, id, primaryKey, inSeconds(-60));
  await refused(clientOfToken(run, token).open(), "UnauthorizedError");
});

test("the session ends with its token", async (run) => {
  const { id, primaryKey } = await run.device();
  const client = clientOfToken(run, SharedAccessSignature.create(HOST, id, primaryKey, inSeconds(3)));
  const ends = disconnects(client);
  await client.open();
  await eventually(() => ends.length);
});

test("the client renews its token and goes on", async (run) => {
  const device = await run.device();
  const tokenRenewal = { tokenValidTimeInSeconds: 4, tokenRenewalMarginInSeconds: 2 };
  const client = run.client(device, undefined, { tokenRenewal });
  const ends = disconnects(client);
  await client.open();
  await sleep(6000);
  await client.sendEvent(new Message("with the second token or the third"));
  await run.events(device);
  equal(ends, []);
});

test("a disabled device is refused", async (run) => {
  await refused(run.client(await run.device("disabled")).open(), "UnauthorizedError");
});

test("an unknown device is refused", async (run) => {
  await refused(run.client({ id: run.newId(), primaryKey: newKey() }).open(), "UnauthorizedError");
});

test("a device that gets disabled is dropped", async (run) => {
  const device = await run.device();
  const client = await run.connected(device);
  const ends = disconnects(client);
  const { id: deviceId, primaryKey, secondaryKey } = device;
  const authentication = { symmetricKey: { primaryKey, secondaryKey } };
  await run.registry().update({ deviceId, status: "disabled", authentication });
  await eventually(() => ends.length);
  await refused(run.client(device).open(), "UnauthorizedError");
});

test("a second client takes the device over", async (run) => {
  const device = await run.device();
  const first = await run.connected(device);
  const ends = disconnects(first);
  const second = await run.connected(device);
  await eventually(() => ends.length);
  await second.sendEvent(new Message("still here"));
  await run.events(device);
});

test("an idle connection is kept alive", async (run) => {
  const client = run.client(await run.device(), undefined, { keepalive: 1 });
  const ends = disconnects(client);
  await client.open();
  await sleep(4000); // the hub closes after 1.5 s of silence
  equal(ends, []);
  await client.getTwin();
});

test("the client reconnects after the hub closed the connection", async (run) => {
  const device = await run.device();
  const client = run.client(device);
  client.setRetryPolicy(new ExponentialBackOffWithJitter());
  let opened = 0;
  client.on("connect", () => (opened += 1));
  // The package reconnects by itself for those who listen.
  client.on("message", () => {});
  await client.open();
  await run.world.control("POST", `/sim/devices/${device.id}/takeover`);
  await eventually(() => opened > 1);
  await client.sendEvent(new Message("back again"));
  assert((await run.events(device)).length > 0);
});
