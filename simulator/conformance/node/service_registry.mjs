// Device identities, as a service manages them.

import assert from "node:assert/strict";

import { casesOf, equal, eventually, HOST, iothub, newKey, refused } from "./harness.mjs";

const { test } = casesOf("azure-iothub");

const newAuthentication = () => ({ symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } });
const keysOf = ({ authentication }) => [
  authentication.symmetricKey.primaryKey,
  authentication.symmetricKey.secondaryKey,
];

// Runs after the case, whether or not it deleted the device itself.
const deleteAfter = (run, id) =>
  run.after(() =>
    run
      .registry()
      .delete(id)
      .catch(() => {}),
  );

async function get(run, id) {
  return (await run.registry().get(id)).responseBody;
}

// Raises the etag; gives the identity that is stale by then.
async function outdated(run) {
  const { id } = await run.device();
  const stale = await get(run, id);
  await run.registry().update({ deviceId: id, status: "enabled", authentication: newAuthentication() });
  return stale;
}

test("creates a device with the keys given", async (run) => {
  const [deviceId, authentication] = [run.newId(), newAuthentication()];
  deleteAfter(run, deviceId);
  const description = { deviceId, status: "enabled", statusReason: "because", authentication };
  const { responseBody: made } = await run.registry().create(description);
  const found = await get(run, deviceId);
  for (const identity of [made, found]) {
    equal([identity.deviceId, identity.status, identity.statusReason], [deviceId, "enabled", "because"]);
    equal(keysOf(identity), keysOf(description));
    equal([identity.connectionState, identity.cloudToDeviceMessageCount], ["Disconnected", 0]);
  }
  assert(made.generationId && made.etag, JSON.stringify(made));
  equal([found.etag, found.generationId], [made.etag, made.generationId]);
});

test("mints the keys that are not given", async (run) => {
  const deviceId = run.newId();
  deleteAfter(run, deviceId);
  const { responseBody: made } = await run.registry().create({ deviceId });
  const minted = keysOf(made);
  for (const key of minted) assert(Buffer.from(key, "base64").length >= 16, key);
  assert.notEqual(minted[0], minted[1]);
  equal(keysOf(await get(run, deviceId)), minted);
});

test("an existing device is a conflict", async (run) => {
  const device = await run.device();
  await refused(run.registry().create({ deviceId: device.id }), "DeviceAlreadyExistsError");
  equal(keysOf(await get(run, device.id)), [device.primaryKey, device.secondaryKey]);
});

test("updates status and keys of a device", async (run) => {
  const { id: deviceId } = await run.device();
  const before = await get(run, deviceId);
  const change = { deviceId, status: "disabled", statusReason: "lost", authentication: newAuthentication() };
  const { responseBody: after } = await run.registry().update(change);
  equal([after.status, after.statusReason, keysOf(after)], ["disabled", "lost", keysOf(change)]);
  equal(after.generationId, before.generationId);
  assert.notEqual(after.etag, before.etag);
  assert(after.statusUpdatedTime > before.statusUpdatedTime, after.statusUpdatedTime);
});

test("a stale etag refuses an update", async (run) => {
  // The package sends `*` for single updates; its bulk call takes the etag of each device.
  const stale = await outdated(run);
  const change = { ...stale, status: "disabled" };
  await refused(run.registry().updateDevices([change], false), undefined, "PreconditionFailed");
  equal((await get(run, stale.deviceId)).status, "enabled");
});

test("a stale etag refuses a deletion", async (run) => {
  const stale = await outdated(run);
  await refused(run.registry().removeDevices([stale], false), undefined, "PreconditionFailed");
  await get(run, stale.deviceId);
});

test("an unknown device is not found", async (run) => {
  const id = run.newId();
  await refused(get(run, id), "DeviceNotFoundError");
  await refused(run.registry().delete(id), "DeviceNotFoundError");
  await refused(run.registry().update({ deviceId: id, status: "enabled" }), "DeviceNotFoundError");
});

test("a deleted device is gone, a new one of its name is another", async (run) => {
  const deviceId = run.newId();
  deleteAfter(run, deviceId);
  const { responseBody: first } = await run.registry().create({ deviceId });
  await run.registry().delete(deviceId);
  await refused(get(run, deviceId), "DeviceNotFoundError");
  const { responseBody: second } = await run.registry().create({ deviceId });
  assert.notEqual(second.generationId, first.generationId);
});

test("a name that is not allowed is refused", async (run) => {
  await refused(run.registry().create({ deviceId: "a".repeat(129) }), "ArgumentError");
});

test("lists devices", async (run) => {
  const mine = [(await run.device()).id, (await run.device()).id];
  const found = (await run.registry().list()).responseBody.map(({ deviceId }) => deviceId);
  for (const id of mine) assert(found.includes(id), `${id} is not among ${found}`);
});

test("creates, updates and deletes many devices at once", async (run) => {
  const registry = run.registry();
  const devices = Array.from(Array(20), () => ({
    deviceId: run.newId(),
    status: "enabled",
    authentication: newAuthentication(),
  }));
  for (const { deviceId } of devices) deleteAfter(run, deviceId);
  equal((await registry.addDevices(devices)).responseBody, { isSuccessful: true, errors: [], warnings: [] });
  equal(keysOf(await get(run, devices[7].deviceId)), keysOf(devices[7]));
  const disabled = devices.map((device) => ({ ...device, status: "disabled" }));
  equal((await registry.updateDevices(disabled, true)).responseBody.isSuccessful, true);
  equal((await get(run, devices[19].deviceId)).status, "disabled");
  equal((await registry.removeDevices(devices, true)).responseBody.isSuccessful, true);
  for (const { deviceId } of devices) await refused(get(run, deviceId), "DeviceNotFoundError");
});

test("a partial failure names the devices that failed", async (run) => {
  const [there, fresh] = [(await run.device()).id, run.newId()];
  deleteAfter(run, fresh);
  const devices = [there, fresh].map((deviceId) => ({ deviceId, authentication: newAuthentication() }));
  const error = await refused(run.registry().addDevices(devices), "ArgumentError");
  const { isSuccessful, errors } = JSON.parse(error.responseBody);
  equal(
    [isSuccessful, errors.length, errors[0].deviceId, errors[0].errorCode],
    [false, 1, there, "DeviceAlreadyExists"],
  );
  await get(run, fresh);
});

test("counts devices", async (run) => {
  await run.device("disabled");
  const device = await run.device();
  const client = await run.connected(device);
  await eventually(async () => {
    const { totalDeviceCount, enabledDeviceCount, disabledDeviceCount } = (await run.registry().getRegistryStatistics())
      .responseBody;
    return disabledDeviceCount && enabledDeviceCount && totalDeviceCount === enabledDeviceCount + disabledDeviceCount;
  });
  equal((await get(run, device.id)).connectionState, "Connected");
  await client.close();
  await eventually(async () => (await get(run, device.id)).connectionState === "Disconnected");
});

test("a policy without the right is refused", async (run) => {
  const { id } = await run.device();
  const reader = run.registry("registryRead");
  equal((await reader.get(id)).responseBody.deviceId, id);
  await refused(reader.delete(id), "UnauthorizedError");
  await refused(run.registry("registryReadWrite").getTwin(id), "UnauthorizedError");
  await refused(run.registry("service").get(id), "UnauthorizedError");
});

test("a wrong key is refused", async (run) => {
  await refused(run.registry("iothubowner", newKey()).list(), "UnauthorizedError");
});

test("a token credential is accepted", async (run) => {
  const { id } = await run.device();
  const registry = iothub.Registry.fromTokenCredential(HOST, run.world.entraCredential());
  equal((await registry.get(id)).responseBody.deviceId, id);
  equal((await registry.getTwin(id)).responseBody.deviceId, id);
});

test("a token for something else is refused", async (run) => {
  const credential = run.world.entraCredential("https://eventhubs.azure.net");
  await refused(iothub.Registry.fromTokenCredential(HOST, credential).list(), "UnauthorizedError");
});
