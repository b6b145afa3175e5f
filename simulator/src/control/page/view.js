// Helpers of the page. Whatever devices sent is set as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties, `data-…` and `aria-…` attributes, and children; strings become text. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets the text of a node, which is left alone if it has it. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** A value as nested lines; those that differ from `before` are marked. */
export function tree(value, before, depth = 0) {
  if (!isObject(value)) return leaf(value, before);
  const members = Object.entries(value);
  if (members.length === 0) return el("p", { className: "muted" }, depth ? "{}" : "nothing yet");
  const list = el("dl");
  for (const [name, member] of members) {
    const old = isObject(before) ? before[name] : undefined;
    const nested = isObject(member) && Object.keys(member).length > 0;
    list.append(el("div", { className: nested ? "nested" : "" }, el("dt", {}, name), el("dd", {}, tree(member, old, depth + 1))));
  }
  return list;
}

function leaf(value, before) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  const changed = before !== undefined && JSON.stringify(before) !== JSON.stringify(value);
  return el("span", { className: `leaf ${typeof value}${changed ? " changed" : ""}` }, text);
}

/** The first few plain members of a payload, in a line. */
export function summary(payload, most = 3) {
  if (!isObject(payload)) return payload === null || payload === undefined ? "" : String(payload);
  const plain = [];
  const walk = (members, prefix) => {
    for (const [name, value] of Object.entries(members)) {
      if (plain.length >= most) return;
      if (isObject(value)) walk(value, name);
      else if (!Array.isArray(value)) plain.push(`${prefix ? `${prefix}.` : ""}${name} ${value}`);
    }
  };
  walk(payload, "");
  return plain.join(" · ");
}

/** The bytes of a base64 text. */
export const hex = (base64) => [...atob(base64 ?? "")].map((char) => char.charCodeAt(0).toString(16).padStart(2, "0")).join(" ").toUpperCase() || "empty";

export const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });

export function ago(at) {
  const seconds = Math.max(0, Math.round((Date.now() - new Date(at)) / 1000));
  if (new Date(at).getUTCFullYear() < 2000) return "never seen";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** Calls the control API. Throws what its answer says is wrong. */
export async function call(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = typeof body === "string" ? body : JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the simulator does not answer");
  }
  const text = await answer.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // An answer without JSON is told by its status.
  }
  if (!answer.ok) throw new Error(json?.error ?? `the simulator answered ${answer.status}`);
  return json;
}
