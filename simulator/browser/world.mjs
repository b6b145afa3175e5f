// A simulator for the test, what an operator does to it, and a wait that asks until it holds.

import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const PATIENCE_MS = 60_000;

/** Asks until the answer is truthy. */
export async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`in vain waited for: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Starts simulator and handler on free ports. */
export async function start({ root, bin }) {
  const folder = mkdtempSync(join(tmpdir(), "simulator-browser-"));
  const file = join(folder, "world.json");
  const ports = ["mqtt", "hub-https", "stack", "event-hubs", "functions", "control"].flatMap((name) => [`--${name}-port`, "0"]);
  const program = spawn(join(bin, "simulator"), ["run", ...ports, "--json", file, "--handler", join(bin, "tts-iot-hub")], {
    cwd: root,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  program.stderr.on("data", (bytes) => (log = (log + bytes).slice(-20_000)));
  const ended = new Promise((done) => program.once("exit", done));
  const written = () => {
    if (program.exitCode !== null) throw new Error(`the simulator ended:\n${log}`);
    return existsSync(file) && readFileSync(file, "utf8").trimEnd().endsWith("}");
  };
  await until("the simulator's description", written);
  const description = JSON.parse(readFileSync(file, "utf8"));
  const stop = async () => {
    program.kill("SIGTERM");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...api(description), description, stop, log: () => log };
}

function api(description) {
  const base = description.control.base_url;
  const sim = async (method, path, body) => {
    const options = { method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body) };
    const answer = await fetch(new URL(path, base), options);
    const json = await answer.json();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${json.error}`);
    return json;
  };
  const policy = description.policies.find((one) => one.name === "iothubowner");
  const ca = readFileSync(description.ca_file);
  const hub = (method, path, body) => callHub(description, policy, ca, method, path, body);
  return {
    base,
    state: () => sim("GET", "/sim/state"),
    uplink: (device, f_port, decoded_payload) => sim("POST", "/sim/stack/uplink", { device, f_port, decoded_payload, join: true }),
    async createDevice(id, tags) {
      await hub("PUT", `/devices/${id}`, { deviceId: id, status: "enabled", authentication: { type: "sas" } });
      await hub("PATCH", `/twins/${id}`, { tags });
    },
    sim,
  };
}

function token(host, policy) {
  const resource = encodeURIComponent(host);
  const expiry = Math.floor(Date.now() / 1000) + 3600;
  const signature = createHmac("sha256", Buffer.from(policy.key, "base64")).update(`${resource}\n${expiry}`).digest("base64");
  return `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=${expiry}&skn=${policy.name}`;
}

function callHub(description, policy, ca, method, path, body) {
  const headers = { Authorization: token(description.hub_host_name, policy), "Content-Type": "application/json" };
  const { host, port } = description.hub_https;
  return new Promise((done, fail) => {
    const call = request({ host, port, ca, method, path: `${path}?api-version=2021-04-12`, headers }, (answer) => {
      let text = "";
      answer.on("data", (bytes) => (text += bytes));
      answer.on("end", () => (answer.statusCode < 300 ? done(text) : fail(new Error(`${method} ${path}: ${answer.statusCode} ${text}`))));
    });
    call.on("error", fail);
    call.end(JSON.stringify(body));
  });
}
