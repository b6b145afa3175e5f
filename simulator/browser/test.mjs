// Opens the page and uses it as a person would: what must show is waited for, never slept for.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { DEVICES, SOIL, VALVE, tags } from "./devices.mjs";
import { PATIENCE_MS, start, until } from "./world.mjs";

const { ROOT: root, BIN: bin, CHROMIUM: executablePath } = process.env;
const { values: options } = parseArgs({ options: { screenshot: { type: "string" } } });
const LAPTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
const HOSTILE = { note: "<img src=x onerror=\"document.title='broken'\">", tag: "<script>document.title='broken'</script>" };

const say = (text) => console.log(`  ✓ ${text}`);

/** A page that keeps what must not happen. */
async function open(browser, base, viewport, more = {}) {
  const context = await browser.newContext({ viewport, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  const faults = [];
  // The browser reports a refused call itself; the test asks for one, by desired properties that break a rule.
  const isWanted = (message) => message.location().url.endsWith("/desired") && message.text().includes("400");
  page.on("console", (message) => message.type() === "error" && !isWanted(message) && faults.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`error: ${error}`));
  page.on("dialog", (dialog) => faults.push(`dialog: ${dialog.message()}`));
  page.on("request", (request) => new URL(request.url()).host === new URL(base).host || faults.push(`request to ${request.url()}`));
  await page.goto(base);
  await page.locator("#live[data-tone=ok]").waitFor();
  return { page, faults };
}

/** A row of the feed that is newer than `after`, a number that `newest` gave before the act. */
async function newRow(page, after, kind, ...texts) {
  const find = ([after, kind, texts]) =>
    [...document.querySelectorAll(`#feed li[data-kind="${kind}"]`)].find((row) =>
      Number(row.dataset.seq) > after && texts.every((text) => row.textContent.includes(text)))?.dataset.seq;
  const found = await page.waitForFunction(find, [after, kind, texts]);
  return page.locator(`#feed li[data-seq="${await found.jsonValue()}"]`);
}

/** The number of the newest happening. */
const newest = async (world) => (await world.state()).newest_seq;

async function seed(world) {
  await Promise.all(DEVICES.map(([id], number) => world.createDevice(id, tags(number + 1))));
  await until("all devices registered in The Things Stack", async () => {
    const { hub } = await world.state();
    return hub.devices.length === DEVICES.length && hub.devices.every((one) => one.tags.stack?.registration?.state === "registered");
  });
  for (let round = 0; round < 2; round++) {
    for (const [id, port, payload] of DEVICES) {
      const answer = await world.uplink(id, port, payload(round));
      assert.equal(answer.status, 200, `${id}: ${JSON.stringify(answer)}`);
    }
  }
  say(`${DEVICES.length} devices registered, joined and heard`);
}

async function choose(page, id) {
  await page.locator(`#list button[data-id="${id}"]`).click();
  await page.locator("#device-title", { hasText: id }).waitFor();
}

async function uplinkArrives(page, world) {
  await choose(page, SOIL);
  await page.locator("#uplink-device").fill(SOIL);
  await page.locator("#uplink-payload").fill('{"ec": 0.77, "battery": 42}');
  const before = await newest(world);
  await page.getByRole("button", { name: "Send uplink" }).click();
  await page.locator("#uplink-note[data-tone=ok]", { hasText: "delivered" }).waitFor();
  await newRow(page, before, "uplink", SOIL, "ec 0.77");
  await newRow(page, before, "telemetry", SOIL, "stored");
  await page.locator("#reported .leaf", { hasText: /^0\.77$/ }).waitFor();
  say("an uplink sent by the page arrives in the messages and in the twin");
}

async function hostileTextStaysText(page, world) {
  const device = "evil-twin-01";
  const before = await newest(world);
  await world.uplink(device, 1, HOSTILE);
  await choose(page, device);
  await page.locator("#reported .leaf", { hasText: HOSTILE.note }).waitFor();
  await page.locator("#reported .leaf", { hasText: HOSTILE.tag }).waitFor();
  const row = await newRow(page, before, "uplink", device, "<img src=x");
  await row.locator("summary").click();
  await row.locator("pre").waitFor();
  assert.equal(await page.locator("main img, main script").count(), 0, "a payload became markup");
  assert.equal(await page.title(), "IoT Hub simulator", "a payload ran");
  say("a payload of markup is shown as text");
}

async function write(page, desired) {
  await page.locator("#desired").fill(JSON.stringify(desired, null, 2));
  await page.getByRole("button", { name: "Write desired" }).click();
}

async function downlinkAndItsOutcome(page) {
  await choose(page, VALVE);
  const latest = page.locator(`#downlink-list li[data-device="${VALVE}"]`).first();
  await write(page, { decodedPayload: { valve: "open", interval: 300 } });
  await page.locator("#desired-note[data-tone=ok]").waitFor();
  await latest.locator(".step", { hasText: "queued" }).waitFor();
  await latest.getByText("desired version 2").waitFor();
  await page.getByRole("button", { name: "Deliver" }).click();
  await latest.locator(".step", { hasText: "sent" }).waitFor();
  await page.locator("#reported .leaf", { hasText: /^sent$/ }).waitFor();
  say("a desired property becomes a downlink: queued, sent, and so says the twin");

  await write(page, { rawDownlink: { fPort: 15, framePayload: "BEEF", confirmed: true } });
  await latest.getByText("desired version 3").waitFor();
  await page.getByRole("button", { name: "Deliver" }).click();
  await latest.locator(".step", { hasText: "acknowledged" }).waitFor();
  await page.locator("#reported .leaf", { hasText: /^acknowledged$/ }).waitFor();
  say("a confirmed downlink: queued, sent, acknowledged");
}

async function refusalsAreTold(page) {
  await choose(page, "tank-diesel-2");
  await write(page, { "level.max": 1 });
  await page.locator("#desired-note[data-tone=bad]", { hasText: "ArgumentInvalid" }).waitFor();
  await page.getByRole("button", { name: "Revert" }).click();
  await page.locator("#desired").fill("{");
  await page.getByRole("button", { name: "Write desired" }).click();
  await page.locator("#desired-note[data-tone=bad]").waitFor();
  await page.getByRole("button", { name: "Revert" }).click();
  await write(page, { limit: 80, unit: "l" });
  await page.locator("#desired-version", { hasText: "version 2" }).waitFor();
  await write(page, { unit: null });
  await page.locator("#desired-version", { hasText: "version 3" }).waitFor();
  await page.waitForFunction(() => !document.getElementById("desired").value.includes("unit"));
  say("the hub's refusal is told; null deletes a desired property");
}

async function faults(page, world) {
  const silent = page.getByRole("button", { name: "Hub silent" });
  await silent.click();
  await page.locator("[data-fault=silent][aria-pressed=true]").waitFor();
  const device = "air-greenhouse-01";
  const parked = (count) => page.locator("#meters div", { hasText: "Parked" }).locator("dd", { hasText: count }).waitFor();
  await choose(page, device);
  let before = await newest(world);
  const answer = await world.uplink(device, 2, { temperature: 24.9, humidity: 58 });
  assert.equal(answer.body.outcome, "parked");
  await newRow(page, before, "parked", device, "uplink parked");
  await parked(/^[1-9]/);
  before = await newest(world);
  await page.getByRole("button", { name: "Clear all faults" }).click();
  await page.locator("[data-fault=silent][aria-pressed=false]").waitFor();
  await newRow(page, before, "telemetry", device);
  await page.locator("#reported .leaf", { hasText: /^24\.9$/ }).waitFor();
  await parked(/^0$/);
  say("a silent hub parks an uplink, which is delivered when the fault is cleared");

  await choose(page, "parking-bay-17");
  await page.getByRole("button", { name: "Disable" }).click();
  await page.locator("#device-state", { hasText: "disabled" }).waitFor();
  before = await newest(world);
  await world.uplink("parking-bay-17", 1, { occupied: true });
  await newRow(page, before, "dead_letter", "parking-bay-17", "dead letter");
  say("an uplink of a disabled device shows as a dead letter with its reason");
}

async function search(page) {
  await page.locator("#search").fill("valve");
  await page.locator("#count", { hasText: /^1$/ }).waitFor();
  await page.locator("#search").fill("");
  await page.locator(`#list button[data-id="${SOIL}"]`).waitFor();
  say("search narrows the list");
}

/** Events and refreshes come at any moment: also while a button is held, or a call is under way. */
async function refreshesDisturbNobody(page, world) {
  await choose(page, SOIL);
  await page.locator(`#list button[data-id="${VALVE}"]`).hover();
  await page.mouse.down();
  await world.uplink("leaf-vineyard-07", 9, { wetness: 99 });
  await page.locator('#list button[data-id="leaf-vineyard-07"]', { hasText: "wetness 99" }).waitFor();
  await page.mouse.up();
  await page.locator("#device-title", { hasText: VALVE }).waitFor();
  say("a press goes through although the list is refreshed meanwhile");

  await choose(page, "door-cold-store");
  let goOn;
  const held = new Promise((done) => (goOn = done));
  await page.route("**/desired", async (route) => {
    await held;
    await route.continue();
  });
  await write(page, { alarm: 1 });
  await page.locator("#desired").fill('{"alarm": 2}');
  goOn();
  await page.locator("#desired-version", { hasText: "version 2" }).waitFor();
  await page.unroute("**/desired");
  assert.equal(await page.locator("#desired").inputValue(), '{"alarm": 2}', "an edit was lost");
  await page.getByRole("button", { name: "Revert" }).click();
  say("an edit made while another is written stays");
}

async function anUnknownDeviceIsTold(page) {
  await page.locator("#device-title", { hasText: "no-such-device" }).waitFor();
  await page.locator("#device-state", { hasText: "no such device" }).waitFor();
  assert.ok(await page.getByRole("button", { name: "Take over" }).isDisabled());
  say("a device that the hub does not have is told, and no other one is taken for it");
}

async function handlerIsKilled(page, world) {
  const { handler: { pid: before }, newest_seq: after } = await world.state();
  await page.getByRole("button", { name: "Kill handler" }).click();
  await newRow(page, after, "handler", "handler killed");
  await until("another handler", async () => {
    const { state, pid } = (await world.state()).handler;
    return state === "running" && pid !== before;
  });
  say("a killed handler comes back");
}

/** What the picture shows: messages of several devices, and a downlink that waits. */
async function aBusyMoment(page, world) {
  for (const [id, port, payload] of DEVICES.slice(-4)) await world.uplink(id, port, payload(2));
  await choose(page, VALVE);
  await page.locator("#uplink-payload").fill('{"valve": "open", "pressure_bar": 2.4}');
  await page.getByRole("button", { name: "Send uplink" }).click();
  await page.locator("#uplink-note[data-tone=ok]").waitFor();
  const before = await newest(world);
  await write(page, { rawDownlink: { framePayload: "0A1E" } });
  await page.locator("#queue-text", { hasText: "1 downlink waits" }).waitFor();
  await page.locator("#desired-version", { hasText: "version 4" }).waitFor();
  await newRow(page, before, "downlink", VALVE, "queued");
}

/** Nothing wider than the screen, everything to press large enough. */
async function fitsThePhone(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls sideways");
  const small = await page.locator("button:visible").evaluateAll((buttons) =>
    buttons.filter((button) => button.getBoundingClientRect().height < 40).map((button) => button.textContent));
  assert.deepEqual(small, [], "too small for a finger");
  const names = await page.locator("input:visible, textarea:visible").evaluateAll((fields) =>
    fields.filter((field) => !field.labels?.length).map((field) => field.id));
  assert.deepEqual(names, [], "fields without a label");
  say("on a phone nothing is cut off and every button is large enough");
}

const shots = join(root, "target");
const world = await start({ root, bin });
const browser = await chromium.launch({ executablePath, chromiumSandbox: process.getuid() !== 0 });
try {
  await seed(world);
  const laptop = await open(browser, world.base, LAPTOP);
  await uplinkArrives(laptop.page, world);
  await downlinkAndItsOutcome(laptop.page);
  await refusalsAreTold(laptop.page);
  await search(laptop.page);
  await refreshesDisturbNobody(laptop.page, world);
  const lost = await open(browser, `${world.base}#d=no-such-device`, LAPTOP);
  await anUnknownDeviceIsTold(lost.page);
  await faults(laptop.page, world);
  await aBusyMoment(laptop.page, world);
  const pictures = options.screenshot ? resolve(options.screenshot) : join(shots, "simulator.png");
  await laptop.page.screenshot({ path: pictures });
  const dark = await open(browser, `${world.base}#d=${VALVE}`, LAPTOP, { colorScheme: "dark" });
  await dark.page.locator("#reported .leaf").first().waitFor();
  await dark.page.screenshot({ path: join(shots, "simulator-dark.png") });
  const phone = await open(browser, `${world.base}#d=${VALVE}`, PHONE, { deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await phone.page.locator("#reported .leaf").first().waitFor();
  await fitsThePhone(phone.page);
  await phone.page.screenshot({ path: pictures.replace(/\.png$/, "-phone.png") });
  await phone.page.screenshot({ path: join(shots, "simulator-phone-whole.png"), fullPage: true });
  await hostileTextStaysText(laptop.page, world);
  await handlerIsKilled(laptop.page, world);
  assert.deepEqual([...laptop.faults, ...lost.faults, ...dark.faults, ...phone.faults], [], "errors, dialogs or requests elsewhere");
  say("no error on the console, no request to another host");
  console.log(`the page works; pictures: ${pictures}, ${shots}`);
} catch (error) {
  writeFileSync(join(shots, "browser", "simulator.log"), world.log());
  console.error(error);
  console.error(`the simulator's last lines: ${join(shots, "browser", "simulator.log")}`);
  process.exitCode = 1;
} finally {
  await browser.close();
  await world.stop();
}
