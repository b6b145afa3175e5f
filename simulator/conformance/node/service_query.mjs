// The query language over twins.

import assert from "node:assert/strict";

import { called, casesOf, equal, eventually, refused } from "./harness.mjs";

const { test } = casesOf("azure-iothub");

const rows = async (run, text) => (await run.registry().createQuery(text).next()).result;

// Devices of a site of their own, numbered.
async function fleet(run, size) {
  const site = run.newId();
  const devices = [];
  for (let number = 0; number < size; number += 1) {
    const device = await run.device();
    const tags = { site, number, even: number % 2 === 0 };
    await run.registry().updateTwin(device.id, { tags, properties: { desired: { interval: number * 10 } } }, "*");
    devices.push(device);
  }
  return { site, devices };
}

// The index of a real hub lags; give it a moment.
async function finds(run, text, devices) {
  const expected = devices.map(({ id }) => id).toSorted();
  await eventually(async () => {
    const found = (await rows(run, text)).map(({ deviceId }) => deviceId).toSorted();
    return JSON.stringify(found) === JSON.stringify(expected);
  }, 5000);
}

test("finds devices by tags and properties", async (run) => {
  const { site, devices } = await fleet(run, 6);
  const twin = await (await run.connected(devices[3])).getTwin();
  await called((done) => twin.properties.reported.update({ firmware: { version: "1.2" } }, done));
  const select = `SELECT * FROM devices WHERE tags.site = '${site}'`;
  const [first, second] = devices;
  await finds(run, select, devices);
  await finds(
    run,
    `${select} AND tags.even = true`,
    devices.filter((_, number) => number % 2 === 0),
  );
  await finds(run, `${select} AND (tags.number < 2 OR tags.number >= 5)`, [first, second, devices[5]]);
  await finds(run, `${select} AND properties.desired.interval > 30`, devices.slice(4));
  await finds(run, `${select} AND properties.reported.firmware.version = '1.2'`, [devices[3]]);
  await finds(run, `${select} AND NOT is_defined(properties.reported.firmware)`, devices.toSpliced(3, 1));
  await finds(run, `${select} AND deviceId IN ['${first.id}', '${second.id}', 'nobody']`, [first, second]);
  await finds(run, `${select} AND connectionState = 'Connected'`, [devices[3]]);
  await finds(run, `${select} AND status = 'disabled'`, []);
});

test("pages with a continuation token", async (run) => {
  const { site, devices } = await fleet(run, 7);
  const text = `SELECT * FROM devices WHERE tags.site = '${site}'`;
  await finds(run, text, devices);
  const query = run.registry().createQuery(text, 3);
  const pages = [];
  while (query.hasMoreResults) pages.push((await query.nextAsTwin()).result);
  equal(
    pages.map((page) => page.length),
    [3, 3, 1],
  );
  equal(
    pages
      .flat()
      .map(({ deviceId }) => deviceId)
      .toSorted(),
    devices.map(({ id }) => id).toSorted(),
  );
});

test("selects single members", async (run) => {
  const { site, devices } = await fleet(run, 1);
  const text = `SELECT deviceId, tags FROM devices WHERE tags.site = '${site}'`;
  await finds(run, text, devices);
  equal(await rows(run, text), [{ deviceId: devices[0].id, tags: { site, number: 0, even: true } }]);
});

test("counts with an aggregate", async (run) => {
  const { site, devices } = await fleet(run, 3);
  await finds(run, `SELECT * FROM devices WHERE tags.site = '${site}'`, devices);
  const found = await rows(run, `SELECT COUNT() AS total FROM devices WHERE tags.site = '${site}'`);
  equal(found, [{ total: 3 }]);
});

test("a query that cannot be read is refused", async (run) => {
  const error = await refused(rows(run, "SELECT FROM WHERE"), "ArgumentError");
  assert(error.message, error);
});
