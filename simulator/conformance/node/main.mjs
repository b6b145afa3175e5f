// Plays the Node cases: main.mjs WORLD together|alone [TEXT]; a line of JSON per case on standard output.

import { writeSync } from "node:fs";

import { cases, play, World } from "./harness.mjs";

const TOPICS = [
  "device_connect",
  "device_telemetry",
  "device_twin",
  "device_messages",
  "device_faults",
  "service_registry",
  "service_twin",
  "service_query",
  "service_messages",
  "events_send",
  "events_receive",
  "events_access",
];

// A library that fails in the background must not end the run; the case that waits for it will tell.
process.on("uncaughtException", (error) => console.error("in the background:", error));
process.on("unhandledRejection", (error) => console.error("in the background:", error));

for (const topic of TOPICS) await import(`./${topic}.mjs`);
const [, , path, phase, text = ""] = process.argv;
const world = new World(path);
const isWanted = ({ package: pkg, title, alone }) =>
  alone === (phase === "alone") && `${pkg} ${title}`.toLowerCase().includes(text.toLowerCase());
for (const one of cases.filter(isWanted)) {
  console.error(`--- ${one.package}: ${one.title}`);
  writeSync(1, `${JSON.stringify(await play(one, world))}\n`);
}
process.exit(0);
