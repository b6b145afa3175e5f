// The page: what there is comes from /sim/state, what happens from /sim/events.

import { ago, byId, call, clock, el, hex, setText, summary, tree } from "/view.js";

const MOST_ROWS = 200;
const REFRESH_MS = 400;
const RETRY_MS = 2000;

// Each kind of happening: its mark and word, and the filter that shows it.
const KINDS = {
  uplink: ["↑", "uplink", "messages"],
  telemetry: ["⇡", "telemetry", "messages"],
  twin: ["≡", "reported", "twins"],
  desired: ["✎", "desired", "twins"],
  downlink: ["↓", "downlink", "downlinks"],
  event: ["⇢", "event", "events"],
  identity: ["+", "device", "events"],
  connection: ["⌁", "connection", "events"],
  parked: ["Ⅱ", "parked", "trouble"],
  dead_letter: ["✕", "dead letter", "trouble"],
  handler: ["⚙", "handler", "system"],
  refused: ["⊘", "refused", "trouble"],
  fault: ["⚡", "fault", "system"],
};
const FILTERS = { all: "All", messages: "Messages", twins: "Twins", downlinks: "Downlinks", events: "Events", trouble: "Parked and dead", system: "Handler" };
const STEPS = ["queued", "sent", "not_acknowledged", "acknowledged", "failed", "invalidated"];
const MARKS = { queued: "…", sent: "→", acknowledged: "✓", not_acknowledged: "↻", failed: "✕", invalidated: "✕" };

let state = null;
let selected = decodeURIComponent(location.hash.match(/^#d=(.*)$/)?.[1] ?? "");
let shown = { id: null, reported: null, desired: null };
let filter = "all";
let happenings = [];
let downlinks = new Map();

// ---- the state ------------------------------------------------------------------------------------------------------

let refreshing = false;
let again = false;

/** Asks for the state, at most once per REFRESH_MS however often it is called. */
async function refresh() {
  if (refreshing) return void (again = true);
  refreshing = true;
  try {
    const asked = selected;
    const query = new URLSearchParams({ q: byId("search").value.trim(), device: asked });
    state = { ...(await call("GET", `/sim/state?${query}`)), asked };
    render();
  } catch (error) {
    toast(error.message);
  }
  setTimeout(() => {
    refreshing = false;
    if (again) {
      again = false;
      refresh();
    }
  }, REFRESH_MS);
}

/** The fault rule that a button has added, if it is at work. */
const ruleOf = ({ dataset: { stage, action } }) =>
  state.faults.find(({ rule }) => rule.stage === stage && rule.action === action && !rule.device && !rule.times && !rule.share);

const device = () => state && [...state.hub.devices, state.hub.device].find((one) => one?.id === selected);

/** Whether the hub was asked for the chosen device and has none of this id. */
const isMissing = () => state.asked === selected && selected !== "" && !device();

function render() {
  if (!selected && !byId("search").value) selected = state.hub.devices[0]?.id ?? "";
  renderMeters();
  renderDevices();
  renderDevice();
  renderQueue();
  for (const button of document.querySelectorAll("[data-fault]")) {
    button.setAttribute("aria-pressed", state.switches[button.dataset.service] === button.dataset.fault);
  }
  for (const button of document.querySelectorAll("[data-stage]")) {
    button.setAttribute("aria-pressed", ruleOf(button) !== undefined);
  }
  byId("clear").disabled = state.faults.length === 0 && state.clock_skew_s === 0 && Object.values(state.switches).every((fault) => fault === "none");
}

function renderMeters() {
  const { meters, event_hubs: hubs, stack, handler, clock_skew_s: skew } = state;
  const parked = hubs["parked-uplinks"] ?? {};
  const rows = [
    ["Messages", meters.messages],
    ["Billed", meters.billed.total],
    ["Connects", meters.connects],
    ["Twin writes", meters.twin_writes],
    ["Downlinks", stack.downlinks_queued],
    ["Parked", parked.lag ?? 0, parked.lag > 0 ? "warn" : ""],
    ["Dead letters", hubs["dead-letters"]?.events ?? 0, hubs["dead-letters"]?.events > 0 ? "bad" : ""],
    ["Handler", handler.state, handler.state === "running" ? "ok" : "bad"],
  ];
  if (meters.billed.quota !== null) rows.push(["Today", `${meters.billed.today} of ${meters.billed.quota}`]);
  if (skew !== 0) rows.push(["Hub's clock", `${skew > 0 ? "+" : ""}${skew} s`, "warn"]);
  byId("meters").replaceChildren(
    ...rows.map(([name, value, tone]) => el("div", { "data-tone": tone ?? "" }, el("dt", {}, name), el("dd", {}, String(value)))),
  );
}

function condition(one) {
  if (one.status !== "enabled") return ["bad", "⊘", "disabled"];
  return one.connection === "Connected" ? ["ok", "●", "connected"] : ["", "○", "idle"];
}

/** The row of a device. It stays as long as the device is listed, so that a press or the focus on it outlasts a refresh. */
function deviceRow(id) {
  const button = el("button", { className: "device", "data-id": id },
    el("span", { className: "mark", "aria-hidden": "true" }),
    el("span", { className: "mono name" }, id),
    el("span", { className: "muted when" }),
    el("span", { className: "muted sum" }));
  button.onclick = () => select(id);
  return el("li", { "data-device": id }, button);
}

function fillDeviceRow(item, one) {
  const [tone, mark, word] = condition(one);
  const button = item.firstChild;
  const [sign, , when, sum] = button.children;
  button.setAttribute("aria-pressed", one.id === selected);
  sign.dataset.tone = tone;
  sign.title = word;
  setText(sign, mark);
  setText(when, word === "idle" ? ago(one.last_activity) : word);
  setText(sum, summary(one.reported.decodedPayload) || "no payload yet");
}

function renderDevices() {
  const { devices, total } = state.hub;
  setText(byId("count"), total > devices.length ? `${devices.length} of ${total}` : String(total));
  const list = byId("list");
  const listed = new Set(devices.map((one) => one.id));
  const rows = new Map();
  for (const item of [...list.children]) {
    if (listed.has(item.dataset.device)) rows.set(item.dataset.device, item);
    else item.remove();
  }
  // Both are in the order of ids: only new rows are put in, none is moved.
  devices.forEach((one, index) => {
    const item = rows.get(one.id) ?? deviceRow(one.id);
    fillDeviceRow(item, one);
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
}

function select(id) {
  selected = id;
  history.replaceState(null, "", `#d=${encodeURIComponent(id)}`);
  render();
  renderFeed();
  // A device that is not in the list is asked for.
  if (!device()) refresh();
}

const isDirty = () => shown.id !== null && byId("desired").value !== shown.text;

function renderDevice() {
  const one = device();
  for (const id of ["toggle", "takeover", "save", "desired"]) byId(id).disabled = !one;
  byId("device-title").textContent = selected || (state.hub.total ? "No device chosen" : "No device yet");
  if (!one) {
    for (const id of ["reported", "tags", "reported-version", "desired-version", "bridge"]) byId(id).replaceChildren();
    byId("device-state").dataset.tone = isMissing() ? "bad" : "";
    byId("device-state").textContent = isMissing() ? "✕ the hub has no such device" : "";
    shown = { id: null };
    byId("desired").value = "";
    return;
  }
  const [tone, mark, word] = condition(one);
  const pill = byId("device-state");
  pill.dataset.tone = tone;
  pill.textContent = `${mark} ${word}, ${ago(one.last_activity)}`;
  byId("toggle").textContent = one.status === "enabled" ? "Disable" : "Enable";
  const other = shown.id !== one.id;
  const versions = `${one.versions.reported} ${one.id}`;
  if (other || shown.versions !== versions) {
    byId("reported").replaceChildren(tree(one.reported, other ? undefined : shown.reported));
  }
  byId("tags").replaceChildren(tree(one.tags));
  byId("reported-version").textContent = `version ${one.versions.reported}`;
  byId("desired-version").textContent = `version ${one.versions.desired}`;
  const text = JSON.stringify(one.desired, null, 2);
  if (other) note("desired-note", "");
  if (other || !isDirty()) byId("desired").value = text;
  shown = { id: one.id, reported: one.reported, versions, text };
  byId("revert").hidden = !isDirty();
  const bridge = one.tags.stack?.downlink;
  byId("bridge").textContent = bridge ? `Bridge: downlink of version ${bridge.version} is ${bridge.state}${bridge.error ? `: ${bridge.error}` : ""}` : "";
  if (document.activeElement !== byId("uplink-device") && (other || !byId("uplink-device").value)) byId("uplink-device").value = one.id;
}

function renderQueue() {
  const waiting = state.stack.queues[selected] ?? 0;
  byId("queue").hidden = waiting === 0;
  byId("queue-text").textContent = waiting === 1 ? "1 downlink waits for its device" : `${waiting} downlinks wait for their device`;
}

// ---- what happens ---------------------------------------------------------------------------------------------------

let waiting = [];

/** Takes happenings together, frame by frame. */
function arrived(happening) {
  waiting.push(happening);
  if (waiting.length > 1) return;
  setTimeout(() => {
    const batch = waiting;
    waiting = [];
    happenings = happenings.concat(batch).slice(-MOST_ROWS * 3);
    batch.filter((one) => one.kind === "downlink").forEach(follow);
    renderFeed(batch);
    renderDownlinks();
    refresh();
  }, 30);
}

const isShown = (one) =>
  (filter === "all" || KINDS[one.kind]?.[2] === filter) && (!byId("only-device").checked || one.device === selected);

/** Puts new rows on top; without a batch, all anew. */
function renderFeed(batch) {
  const feed = byId("feed");
  if (!batch) feed.replaceChildren();
  for (const one of (batch ?? happenings).filter(isShown)) feed.prepend(row(one));
  while (feed.children.length > MOST_ROWS) feed.lastChild.remove();
  byId("feed-empty").hidden = feed.children.length > 0;
}

function tone(one) {
  const { detail } = one;
  if (["dead_letter", "refused"].includes(one.kind) || detail?.state === "failed" || detail?.accepted === false) return "bad";
  if (one.kind === "uplink" && !(detail?.status >= 200 && detail?.status < 300)) return "bad";
  if (["failure", "kill", "exit", "stop", "refused"].includes(detail?.what)) return "bad";
  if (["parked", "fault"].includes(one.kind) || detail?.outcome === "parked" || detail?.outcome === "dead_lettered") return "warn";
  return one.kind === "uplink" || detail?.state === "acknowledged" ? "ok" : "";
}

function row(one) {
  const [mark, word] = KINDS[one.kind] ?? ["·", one.kind];
  const payload = summary(one.detail?.message?.decoded_payload ?? one.detail?.patch?.decodedPayload);
  const head = el("summary", {},
    el("span", { className: "mark", "data-tone": tone(one), "aria-hidden": "true" }, mark),
    el("time", { className: "muted", dateTime: one.at }, clock(one.at)),
    el("span", { className: "kind" }, word),
    el("span", { className: "mono name" }, one.device ?? ""),
    el("span", { className: "title" }, one.title),
    payload ? el("span", { className: "muted sum" }, payload) : null);
  const item = el("li", { "data-kind": one.kind, "data-seq": one.seq });
  const more = el("details", {}, head);
  // The detail is made when it is opened.
  more.ontoggle = () => more.open && more.children.length === 1 && more.append(el("pre", { tabIndex: 0 }, JSON.stringify(one.detail ?? {}, null, 2)));
  item.append(more);
  return item;
}

/** Notes what became of a downlink, under the id that The Things Stack gave it. */
function follow(one) {
  const ids = one.detail.correlation_ids ?? [];
  const key = ids.find((id) => id.startsWith("as:downlink:")) ?? `${one.device} ${one.seq}`;
  const known = downlinks.get(key) ?? { device: one.device, steps: [], version: null, what: "" };
  downlinks.delete(key);
  known.at = one.at;
  known.version ??= ids.map((id) => id.match(/^iothub:.*:desired:(\d+)$/)?.[1]).find(Boolean) ?? null;
  known.what = summary(one.detail.decoded_payload) || known.what || `port ${one.detail.f_port ?? "?"}: ${hex(one.detail.frm_payload)}`;
  known.error = one.detail.error ?? known.error;
  if (STEPS.includes(one.detail.state)) known.steps.push(one.detail.state);
  known.steps = known.steps.slice(-8);
  downlinks.set(key, known);
  if (downlinks.size > MOST_ROWS) downlinks.delete(downlinks.keys().next().value);
}

function renderDownlinks() {
  const rows = [...downlinks.values()].reverse().slice(0, 30);
  const steps = (one) => one.steps.flatMap((step, index) => {
    const bad = step === "failed" || step === "invalidated";
    const chip = el("span", { className: "step", "data-tone": bad ? "bad" : step === "acknowledged" ? "ok" : "" }, `${MARKS[step]} ${step.replace("_", " ")}`);
    return index ? [" ", chip] : [chip];
  });
  byId("downlink-list").replaceChildren(
    ...(rows.length ? [] : [el("li", { className: "muted" }, "None yet. Write decodedPayload or rawDownlink into the desired properties.")]),
    ...rows.map((one) => el("li", { "data-device": one.device },
      el("span", { className: "mono name" }, one.device),
      el("span", { className: "muted" }, one.version ? `desired version ${one.version}` : "not from desired"),
      el("time", { className: "muted", dateTime: one.at }, clock(one.at)),
      el("span", { className: "sum muted" }, one.what),
      el("span", { className: "steps" }, ...steps(one)),
      one.error ? el("span", { className: "error" }, one.error) : null)),
  );
}

function live(tone, text) {
  byId("live").dataset.tone = tone;
  byId("live").textContent = text;
}

let events = null;
let retryTimer;
let lastId = "";

/** Opens the stream after the last happening that was seen. */
function listen() {
  clearTimeout(retryTimer);
  events?.close();
  events = new EventSource(`/sim/events${lastId ? `?after=${encodeURIComponent(lastId)}` : ""}`);
  events.onopen = () => {
    live("ok", "● live");
    refresh();
  };
  events.onerror = () => {
    live("bad", "○ not connected, trying again");
    // After an answer that is no stream the browser gives up by itself.
    if (events?.readyState === EventSource.CLOSED) retryTimer = setTimeout(listen, RETRY_MS);
  };
  events.addEventListener("happening", (event) => {
    lastId = event.lastEventId;
    arrived(JSON.parse(event.data));
  });
  events.addEventListener("fresh", () => {
    // Another run, or too much was missed.
    happenings = [];
    downlinks = new Map();
    renderFeed();
    renderDownlinks();
    refresh();
  });
}

/** A hidden page holds no stream: there are only so many of them. */
function pause() {
  clearTimeout(retryTimer);
  events?.close();
  events = null;
}

// ---- what the user does ---------------------------------------------------------------------------------------------

let toastTimer;

function toast(text) {
  byId("toast").textContent = text;
  byId("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (byId("toast").hidden = true), 6000);
}

function note(id, text, tone = "") {
  byId(id).textContent = text;
  byId(id).dataset.tone = tone;
}

/** Runs an action of a button; what is wrong shows at the bottom. */
const act = (method, path, body) => async () => {
  try {
    await call(method, typeof path === "function" ? path() : path, typeof body === "function" ? body() : body);
  } catch (error) {
    toast(error.message);
  }
  refresh();
};

const ofDevice = (what) => () => `/sim/devices/${encodeURIComponent(selected)}/${what}`;
byId("toggle").onclick = () => act("POST", ofDevice(device()?.status === "enabled" ? "disable" : "enable"))();
byId("takeover").onclick = act("POST", ofDevice("takeover"));
byId("kill").onclick = act("POST", "/sim/handler/kill");
byId("clear").onclick = act("DELETE", "/sim/switches");
for (const button of document.querySelectorAll("[data-fault]")) {
  const { service, fault } = button.dataset;
  button.onclick = act("PUT", "/sim/switches", () => ({ [service]: button.getAttribute("aria-pressed") === "true" ? "none" : fault }));
}
for (const button of document.querySelectorAll("[data-stage]")) {
  const { stage, action } = button.dataset;
  button.onclick = () => {
    const rule = ruleOf(button);
    return (rule ? act("DELETE", `/sim/faults/${rule.id}`) : act("POST", "/sim/faults", { stage, action }))();
  };
}
for (const button of document.querySelectorAll("[data-outcome]")) {
  button.onclick = act("POST", "/sim/stack/transmit", () => ({ device: selected, outcome: button.dataset.outcome }));
}

byId("desired").oninput = () => {
  byId("revert").hidden = !isDirty();
  note("desired-note", "");
};
byId("revert").onclick = () => {
  byId("desired").value = shown.text;
  byId("revert").hidden = true;
  note("desired-note", "");
};
byId("desired-form").onsubmit = async (event) => {
  event.preventDefault();
  // What is edited, or which device is chosen, while the call is under way has no part in it.
  const id = selected;
  const text = byId("desired").value;
  try {
    JSON.parse(text);
    await call("PATCH", ofDevice("desired")(), text);
    if (shown.id === id) {
      shown.text = text;
      note("desired-note", "✓ written", "ok");
    }
  } catch (error) {
    if (shown.id === id) note("desired-note", `✕ ${error.message}`, "bad");
    else toast(`${id}: ${error.message}`);
  }
  refresh();
};

byId("uplink-form").onsubmit = async (event) => {
  event.preventDefault();
  const id = byId("uplink-device").value.trim();
  note("uplink-note", "sending…");
  try {
    const text = byId("uplink-payload").value.trim();
    const body = { device: id, f_port: Number(byId("uplink-port").value), join: byId("uplink-join").checked };
    if (text) body.decoded_payload = JSON.parse(text);
    const answer = await call("POST", "/sim/stack/uplink", body);
    const good = answer.status >= 200 && answer.status < 300;
    const outcome = answer.body?.outcome ?? answer.body?.error ?? answer.error ?? "";
    note("uplink-note", `${good ? "✓" : "✕"} ${answer.status ?? "no answer"} ${outcome}, ${answer.took_ms} ms`, good ? "ok" : "bad");
    if (good) select(id);
  } catch (error) {
    note("uplink-note", `✕ ${error.message}`, "bad");
  }
};

byId("search").oninput = refresh;
byId("only-device").onchange = () => renderFeed();
byId("filters").append(...Object.entries(FILTERS).map(([name, text]) => {
  const button = el("button", { "aria-pressed": name === filter, "data-filter": name }, text);
  button.onclick = () => {
    filter = name;
    for (const other of byId("filters").children) other.setAttribute("aria-pressed", other === button);
    renderFeed();
  };
  return button;
}));

renderFeed();
renderDownlinks();
document.onvisibilitychange = () => (document.hidden ? pause() : listen());
if (!document.hidden) listen();
setInterval(() => document.hidden || refresh(), 5000);
