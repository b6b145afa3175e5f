// What every case written for Node shares: registering, running, and the way to the simulator.

import assert from "node:assert/strict";
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { EventHubConsumerClient } from "@azure/event-hubs";
// These are CommonJS packages: Node sees only some of their names.
import common from "azure-iot-common";
import device from "azure-iot-device";
import mqtt from "azure-iot-device-mqtt";
import iothub from "azure-iothub";

export { iothub, sleep };
export const { AuthenticationType, ExponentialBackOffWithJitter, Message, NoRetry } = common;
export const { Client: DeviceClient, SharedAccessSignature } = device;
export const { Mqtt } = mqtt;
export const HOST = "localhost";
export const PATIENCE_MS = 20_000;
const CASE_MS = 45_000;
export const cases = [];

// Two ways to enter a case of this package: a function that proves it, or the reason why the package cannot.
// A case that disturbs others says that it must be alone.
export function casesOf(pkg) {
  return {
    test: (title, prove, { alone = false } = {}) => cases.push({ package: pkg, title, prove, alone }),
    cannot: (title, why) => cases.push({ package: pkg, title, notSupported: why, alone: false }),
  };
}

// What is promised

export const equal = (actual, expected) => assert.deepEqual(actual, expected);

// The promise must be refused by an error of this name (any, if none is given); words must be in its text.
export async function refused(promise, name, ...words) {
  let error;
  await Promise.resolve(promise).catch((caught) => (error = caught));
  assert(error, `nobody refused, ${name ?? "an error"} was expected`);
  if (name) equal(error.name, name);
  const text = `${error.message} ${error.responseBody ?? ""} ${error.cause?.message ?? ""}`;
  for (const word of words) assert(text.includes(word), `refused, but without ${word}: ${text}`);
  return error;
}

// The first true answer.
export async function eventually(question, limit = PATIENCE_MS) {
  const deadline = Date.now() + limit;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    assert(Date.now() < deadline, `not within ${limit / 1000} s: ${question}`);
    await sleep(50);
  }
}

export const newKey = () => randomBytes(32).toString("base64");

// A function that takes a callback as its last argument, as a promise.
export const called = (take) =>
  new Promise((resolve, reject) => take((error, value) => (error ? reject(error) : resolve(value))));

// The way to the simulator

export function sasToken(resource, key, policy, expiry = Math.floor(Date.now() / 1000) + 3600) {
  const sr = encodeURIComponent(resource);
  const signature = createHmac("sha256", key).update(`${sr}\n${expiry}`).digest("base64");
  const token = `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(signature)}&se=${expiry}`;
  return policy ? `${token}&skn=${policy}` : token;
}

export class World {
  constructor(path) {
    this.description = JSON.parse(readFileSync(path, "utf8"));
    this.ca = readFileSync(this.description.ca_file, "utf8");
    this.policies = Object.fromEntries(this.description.policies.map(({ name, key }) => [name, key]));
    const hubs = this.description.event_hubs;
    const emulator = Object.fromEntries(hubs.connection_string.split(";").map((part) => part.split(/=(.*)/s)));
    this.eventsKeyName = emulator.SharedAccessKeyName;
    this.eventsKey = emulator.SharedAccessKey;
    this.builtIn = new BuiltInEndpoint(this, hubs.built_in_endpoint);
  }

  hubConnectionString(policy = "iothubowner", key = this.policies[policy]) {
    return `HostName=${HOST};SharedAccessKeyName=${policy};SharedAccessKey=${key}`;
  }

  eventsConnectionString() {
    return `Endpoint=sb://${HOST};SharedAccessKeyName=${this.eventsKeyName};SharedAccessKey=${this.eventsKey}`;
  }

  // Asks the simulator's own control API.
  async control(method, path, body) {
    const headers = { "Content-Type": "application/json" };
    const url = this.description.control.base_url.replace(/\/$/, "") + path;
    const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
    const text = await answer.text();
    assert(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  // What @azure/identity would be: a credential whose tokens the simulator mints.
  entraCredential(resource) {
    return {
      getToken: async (scopes) => {
        const wanted = resource ?? [scopes].flat()[0].replace(/\/*\.default$/, "");
        const answer = await this.control("GET", `/sim/token?resource=${encodeURIComponent(wanted)}`);
        return { token: answer.access_token, expiresOnTimestamp: answer.expires_on * 1000 };
      },
    };
  }
}

// Reads all of the hub's built-in endpoint from its start, in the background, with @azure/event-hubs.
class BuiltInEndpoint {
  #events = new Map();
  #error;
  #client;

  constructor(world, name) {
    this.start = () => {
      this.#client ??= new EventHubConsumerClient("$Default", world.eventsConnectionString(), name);
      const handlers = {
        processEvents: (events, context) => this.#take(events, context),
        processError: (error) => this.#fail(error),
      };
      const options = { startPosition: { offset: "-1" }, skipParsingBodyAsJson: true, maxWaitTimeInSeconds: 1 };
      this.#client.subscribe(handlers, options);
      this.start = () => {};
    };
  }

  async #take(events, { partitionId }) {
    for (const event of events) {
      const device = event.systemProperties["iothub-connection-device-id"];
      this.#events.set(device, [...(this.#events.get(device) ?? []), { partitionId, ...plain(event) }]);
    }
  }

  async #fail(error) {
    this.#error ??= error;
  }

  // The events of this device, as soon as there are so many.
  async of(device, count = 1) {
    this.start();
    const found = () => this.#events.get(device.id) ?? [];
    const deadline = Date.now() + PATIENCE_MS;
    while (found().length < count && !this.#error && Date.now() < deadline) await sleep(20);
    assert(found().length >= count, `${found().length} of ${count} events arrived; ${this.#error ?? "no error"}`);
    return found();
  }
}

// An event with its annotations and AMQP properties beside its own members.
export function plain(event) {
  const { messageAnnotations: annotations, properties: amqp = {} } = event.getRawAmqpMessage();
  return { ...event, annotations, amqp };
}

// The package copies the bytes of properties into plain objects.
export const bytesOf = (value) => Buffer.from(value.data ?? Object.values(value));

// What one case has: the world, devices of its own, clients. All of it is cleared away when the case ends.
export class Run {
  #after = [];

  constructor(world) {
    this.world = world;
  }

  after(clear) {
    this.#after.push(clear);
  }

  async clear() {
    for (const clear of this.#after.reverse()) await clear();
  }

  newId() {
    return `js-${randomUUID().slice(-12)}`;
  }

  registry(policy, key) {
    return iothub.Registry.fromConnectionString(this.world.hubConnectionString(policy, key));
  }

  async service(policy, key) {
    return this.opened(iothub.Client.fromConnectionString(this.world.hubConnectionString(policy, key)));
  }

  async opened(client) {
    await client.open();
    this.after(() => client.close());
    return client;
  }

  async device(status = "enabled") {
    const [id, primaryKey, secondaryKey] = [this.newId(), newKey(), newKey()];
    await this.registry().create({
      deviceId: id,
      status,
      authentication: { symmetricKey: { primaryKey, secondaryKey } },
    });
    this.after(() => this.registry().delete(id));
    return { id, primaryKey, secondaryKey };
  }

  // Sets a device client up as an application does, but without patience, and closes it when the case ends.
  own(client, options = {}) {
    client.setOptions({ ca: this.world.ca, ...options });
    client.setRetryPolicy(new NoRetry());
    client.on("error", () => {});
    this.after(() => client.close().catch(() => {}));
    return client;
  }

  client({ id, primaryKey }, key = primaryKey, options) {
    return this.own(
      DeviceClient.fromConnectionString(`HostName=${HOST};DeviceId=${id};SharedAccessKey=${key}`, Mqtt),
      options,
    );
  }

  async connected(device, options) {
    const client = this.client(device, undefined, options);
    await client.open();
    return client;
  }

  events(device, count) {
    return this.world.builtIn.of(device, count);
  }

  async fault(rule) {
    const { id } = await this.world.control("POST", "/sim/faults", rule);
    this.after(() => this.world.control("DELETE", `/sim/faults/${id}`).catch(() => {})); // used up and gone
  }
}

// Running

// The case's row of the table.
export async function play(one, world) {
  const row = { package: one.package, title: one.title };
  if (one.notSupported) return { ...row, result: "not supported", why: one.notSupported };
  const started = performance.now();
  const run = new Run(world);
  const why = (error) => `${error.name}: ${error.message}`.replace(/\s+/g, " ").slice(0, 300);
  const attempt = async () => {
    try {
      await one.prove(run);
    } finally {
      await run.clear();
    }
  };
  const limit = sleep(CASE_MS, `no end within ${CASE_MS / 1000} s`, { ref: false });
  const failure = await Promise.race([
    attempt().then(
      () => "",
      (error) => (console.error(error), why(error)),
    ),
    limit,
  ]);
  const seconds = Math.round((performance.now() - started) / 10) / 100;
  return { ...row, result: failure ? "failed" : "passed", why: failure, seconds };
}
