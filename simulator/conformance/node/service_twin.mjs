// The service's side of a twin.

import assert from "node:assert/strict";

import { casesOf, equal, refused } from "./harness.mjs";

const { test, cannot } = casesOf("azure-iothub");

const plain = ({ $version: _version, $metadata: _metadata, ...rest }) => rest;
const get = async (run, id) => (await run.registry().getTwin(id)).responseBody;

// A patch of tags and desired properties.
async function patch(run, id, tags, desired, etag = "*") {
  return (await run.registry().updateTwin(id, { tags, properties: { desired } }, etag)).responseBody;
}

test("reads a twin", async (run) => {
  const { id } = await run.device();
  const twin = await get(run, id);
  equal([twin.deviceId, twin.tags], [id, {}]);
  for (const section of [twin.properties.desired, twin.properties.reported]) {
    equal([section.$version, Object.keys(section).toSorted()], [1, ["$metadata", "$version"]]);
  }
  assert(twin.etag);
});

test("patches tags and desired properties", async (run) => {
  const { id } = await run.device();
  const first = await patch(run, id, { site: { name: "roof", floor: 3 } }, { a: 1, deep: { x: 1, y: 2 } });
  const second = await patch(run, id, { site: { floor: 4 } }, { deep: { y: 3 } });
  equal(second.tags, { site: { name: "roof", floor: 4 } });
  equal(plain(second.properties.desired), { a: 1, deep: { x: 1, y: 3 } });
  equal([first.properties.desired.$version, second.properties.desired.$version], [2, 3]);
  const { deep } = second.properties.desired.$metadata;
  equal([deep.y.$lastUpdatedVersion, deep.x.$lastUpdatedVersion], [3, 2]);
  assert.notEqual(first.etag, second.etag);
});

test("null deletes a property", async (run) => {
  const { id } = await run.device();
  await patch(run, id, { keep: 1, drop: 2 }, { keep: 1, drop: 2, deep: { one: 1 } });
  const twin = await patch(run, id, { drop: null }, { drop: null, deep: { one: null }, absent: null });
  equal([twin.tags, plain(twin.properties.desired)], [{ keep: 1 }, { keep: 1, deep: {} }]);
});

cannot("replaces a twin", "its registry has no call that replaces");

test("a stale etag refuses a patch", async (run) => {
  const { id } = await run.device();
  const { etag: stale } = await get(run, id);
  await patch(run, id, { n: 1 }, undefined, stale);
  await refused(patch(run, id, { n: 2 }, undefined, stale), "InvalidEtagError");
  equal((await get(run, id)).tags, { n: 1 });
  equal((await patch(run, id, { n: 4 })).tags, { n: 4 });
});

test("a bad key or value refuses the whole patch", async (run) => {
  const { id } = await run.device();
  const before = await get(run, id);
  for (const bad of [
    { "a.b": 1 },
    { "a b": 1 },
    { a$b: 1 },
    { s: "x".repeat(4097) },
    { i: 2 ** 52 },
    { list: [null] },
  ]) {
    await refused(patch(run, id, { good: 1 }, { good: 1, ...bad }), "ArgumentError");
  }
  const after = await get(run, id);
  equal([after.etag, after.tags, plain(after.properties.desired)], [before.etag, {}, {}]);
});

test("the twin of an unknown device is not found", async (run) => {
  await refused(get(run, run.newId()), "DeviceNotFoundError");
  await refused(patch(run, run.newId(), { a: 1 }), "DeviceNotFoundError");
});
