// One Event Hub of the simulator that only the Node cases use.

import { EventHubConsumerClient, EventHubProducerClient } from "@azure/event-hubs";
import assert from "node:assert/strict";

import { HOST, PATIENCE_MS, plain, sleep } from "./harness.mjs";

export const NAME = "parked-uplinks";
const QUICK = { retryOptions: { maxRetries: 0, timeoutInMs: 5000 } };

function closing(run, client) {
  run.after(() => client.close());
  return client;
}

export const producer = (run, { hub = NAME, ...options } = {}) =>
  closing(run, new EventHubProducerClient(run.world.eventsConnectionString(), hub, { ...QUICK, ...options }));

export const producerBy = (run, credential) => closing(run, new EventHubProducerClient(HOST, NAME, credential, QUICK));

export const consumer = (run, group = "$Default", options = {}) =>
  closing(run, new EventHubConsumerClient(group, run.world.eventsConnectionString(), NAME, { ...QUICK, ...options }));

// A consumer at work in the background. It takes the events of one partition, or of all of them.
export class Receiving {
  events = [];
  #attached = false;

  constructor(run, { partition, position = { offset: "-1" }, client = consumer(run), ...options } = {}) {
    const handlers = {
      processEvents: async (events, context) => {
        this.#attached = true;
        this.context = context;
        this.events.push(...events.map((event) => ({ partitionId: context.partitionId, ...plain(event) })));
      },
      processError: async (error) => {
        this.error ??= error;
      },
    };
    const settings = { startPosition: position, skipParsingBodyAsJson: true, maxWaitTimeInSeconds: 0.2, ...options };
    const subscription =
      partition === undefined ? client.subscribe(handlers, settings) : client.subscribe(partition, handlers, settings);
    run.after(() => subscription.close());
  }

  async #until(done) {
    const deadline = Date.now() + PATIENCE_MS;
    while (!done() && !this.error && Date.now() < deadline) await sleep(20);
  }

  // Waits until it was called back for the first time, with events or without.
  async attached() {
    await this.#until(() => this.#attached);
    assert(this.#attached, `not attached: ${this.error}`);
    return this;
  }

  // Waits for the error that ends it.
  async failed() {
    await this.#until(() => false);
    assert(this.error, `no error, but ${this.events.length} events`);
    return this.error;
  }

  // Waits for so many wanted events.
  async until(count, wanted = () => true) {
    const found = () => this.events.filter(wanted);
    await this.#until(() => found().length >= count);
    assert(found().length >= count, `${found().length} of ${count} events; ${this.error ?? "no error"}`);
    return found();
  }
}

// A property that tells the events of a case from all others, and the question for it.
export function mark(run) {
  const marker = run.newId();
  return { properties: { case: marker }, mine: ({ properties }) => properties?.case === marker };
}

export const bodies = (events) => events.map(({ body }) => body.toString());
