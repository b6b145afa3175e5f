// The device's side of its twin.

import assert from "node:assert/strict";

import { called, casesOf, equal, eventually, refused } from "./harness.mjs";

const { test } = casesOf("azure-iot-device-mqtt");

// What a service does: a change of the desired properties.
const change = (run, device, desired) => run.registry().updateTwin(device.id, { properties: { desired } }, "*");

// The reported properties as a service sees them, without what the hub adds.
async function reported(run, device) {
  const { $version: _version, $metadata: _metadata, ...rest } = (await serviceTwin(run, device)).properties.reported;
  return rest;
}

const serviceTwin = async (run, device) => (await run.registry().getTwin(device.id)).responseBody;

async function twinOf(run, device) {
  return (await run.connected(device)).getTwin();
}

const patch = (twin, properties) => called((done) => twin.properties.reported.update(properties, done));

test("reads both sections of the twin with their versions", async (run) => {
  const device = await run.device();
  await change(run, device, { interval: 60, list: [1, 1.5, "a", true] });
  const twin = await twinOf(run, device);
  await patch(twin, { battery: { volt: 3.1 } });
  await twin.get();
  equal(twin.properties.desired, { interval: 60, list: [1, 1.5, "a", true], $version: 2 });
  const { update: _update, ...properties } = twin.properties.reported;
  equal(properties, { battery: { volt: 3.1 }, $version: 2 });
});

test("a reported patch is merged and raises the version", async (run) => {
  const device = await run.device();
  const twin = await twinOf(run, device);
  await patch(twin, { a: 1, deep: { x: 1, y: 2 } });
  await patch(twin, { b: "zwei", deep: { y: 3 } });
  equal(await reported(run, device), { a: 1, b: "zwei", deep: { x: 1, y: 3 } });
  await twin.get();
  equal(twin.properties.reported.$version, 3);
  const { deep } = (await serviceTwin(run, device)).properties.reported.$metadata;
  assert(deep.y.$lastUpdated > deep.x.$lastUpdated, JSON.stringify(deep));
});

test("null deletes a reported property", async (run) => {
  const device = await run.device();
  const twin = await twinOf(run, device);
  await patch(twin, { keep: 1, drop: 2, deep: { keep: 1, drop: 2 }, last: { one: 1 } });
  await patch(twin, { drop: null, absent: null, deep: { drop: null }, last: { one: null } });
  equal(await reported(run, device), { keep: 1, deep: { keep: 1 }, last: {} });
});

async function refuses(run, patches) {
  const device = await run.device();
  const twin = await twinOf(run, device);
  await patch(twin, { before: true });
  // The package keeps the hub's words, not its status.
  for (const bad of patches) await refused(patch(twin, { good: 1, ...bad }), "Error");
  equal(await reported(run, device), { before: true });
  await twin.get();
  equal(twin.properties.reported.$version, 2);
}

test("a bad key refuses the whole patch", (run) =>
  refuses(run, [
    { "gateway.id": 1 },
    { "a b": 1 },
    { a$: 1 },
    { "#": 1 },
    { deep: { "x.y": 1 } },
    { ["k".repeat(1025)]: 1 },
    { $version: 7 },
  ]));

test("a value out of bounds refuses the whole patch", (run) => {
  let deep = { leaf: 1 };
  for (let level = 0; level < 11; level += 1) deep = { d: deep };
  return refuses(run, [{ s: "x".repeat(4097) }, { i: 2 ** 52 }, { i: -(2 ** 52) - 1 }, { deep }, { list: [1, null] }]);
});

test("a twin that would grow too large is refused", async (run) => {
  const device = await run.device();
  const twin = await twinOf(run, device);
  await patch(twin, Object.fromEntries(Array.from(Array(8).keys(), (number) => [`k${number}`, "x".repeat(4000)])));
  await refused(patch(twin, { "one-more": "x".repeat(1000) }));
  equal(Object.keys(await reported(run, device)).length, 8);
});

test("a change of desired properties is announced", async (run) => {
  const device = await run.device();
  const twin = await twinOf(run, device);
  const patches = [];
  // The first call is the twin as it stands.
  twin.on("properties.desired", (properties) => patches.push(structuredClone(properties)));
  await eventually(() => patches.length === 1);
  await twin.get(); // the subscription was made before this answer
  patches.length = 0;
  await change(run, device, { interval: 60, deep: { a: 1, b: 2 } });
  await eventually(() => patches.length === 1);
  await change(run, device, { interval: null, deep: { b: 3 } });
  await eventually(() => patches.length === 2);
  equal(patches[0], { interval: 60, deep: { a: 1, b: 2 }, $version: 2 });
  equal(patches[1], { interval: null, deep: { b: 3 }, $version: 3 });
  equal(twin.properties.desired, { deep: { a: 1, b: 3 }, $version: 3 });
});

test("a throttled patch answers 429 and works the next time", async (run) => {
  const device = await run.device();
  const twin = await twinOf(run, device);
  await run.fault({ stage: "twin_answer", action: "throttle", device: device.id, times: 1 });
  await refused(patch(twin, { a: 1 }), "Error"); // the package does not tell the status
  await patch(twin, { a: 2 });
  equal(await reported(run, device), { a: 2 });
});
