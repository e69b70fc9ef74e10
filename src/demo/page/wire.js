// The wire between the two people: the way of one command from the click to the events, each hop with
// its time, its bytes, and a line for a terminal. Browser times come from this page, the others from
// the payments service, which reads and writes every record.

import { $, element, duration, nameOf } from "./kit.js";

const HOPS = ["post", "command", "service", "reply", "response", "payer", "payee"];
/** What takes milliseconds is shown slowly enough to follow. */
const STEP_MS = 170;
const ARRIVALS_MAX = 200;

const arrivals = new Map(); // When an event came, and its bytes, by account and number.
let place; // Addresses of the demo.
let current = null;
let isBusy = null;

/** An event has arrived at a person. */
export function onArrival(account, event, data, id) {
  arrivals.set(`${account}#${event}`, { at: performance.now(), data, id });
  if (arrivals.size > ARRIVALS_MAX) arrivals.delete(arrivals.keys().next().value);
}

/** Draws the empty wire, which shows where a payment will go. */
export function drawWire(about) {
  place = about;
  for (const name of HOPS) {
    const button = element(
      "button",
      { type: "button", disabled: true },
      element("span", { className: "what" }, element("b"), element("small")),
      element("span", { className: "when" }),
    );
    const hop = element("li", {}, button);
    hop.dataset.hop = name;
    button.addEventListener("click", () => showBytes(name));
    $("hops").append(hop);
  }
  blank("ana", "/payments");
}

function set(name, { title, about, when, state, isOpen }) {
  const hop = $("hops").querySelector(`[data-hop="${name}"]`);
  if (title !== undefined) hop.querySelector("b").textContent = title;
  if (about !== undefined) hop.querySelector("small").textContent = about;
  if (when !== undefined) hop.querySelector(".when").textContent = when;
  if (state !== undefined) hop.dataset.state = state;
  if (isOpen !== undefined) hop.firstElementChild.disabled = !isOpen;
}

function blank(payer, path) {
  const payee = payer === "ana" ? "bo" : "ana";
  const empty = { when: "", state: "idle", isOpen: false };
  $("wire").dataset.payer = payer;
  set("post", { title: `POST /accounts/${payer}${path}`, about: `${nameOf(payer)} → gateway`, ...empty });
  set("command", { title: "payments-commands", about: "the request, as a record in Kafka", ...empty });
  set("service", { title: "payments service", about: "decides once, and remembers it", ...empty });
  set("reply", { title: "payments-replies", about: "its reply, as a record in Kafka", ...empty });
  set("response", { title: "the response", about: `gateway → ${nameOf(payer)}`, ...empty });
  set("payer", { title: `event at ${nameOf(payer)}`, about: "Kafka → gateway → stream", ...empty });
  set("payee", { title: `event at ${nameOf(payee)}`, about: "Kafka → gateway → stream", ...empty });
}

/** A command leaves. Returns what its sender reports to. */
export function begin({ payer, path, body, key, title, ifMatch }) {
  const mine = { payer, path, body, key, ifMatch, started: performance.now(), tries: 1, last: "", hops: {} };
  current = mine;
  clearTimeout(isBusy);
  blank(payer, path);
  Object.assign($("wire").dataset, { state: "sending", key, complete: "false", records: "" });
  delete $("wire").dataset.tries;
  $("wire-title").textContent = title;
  set("post", { state: "active", when: "0 ms" });
  const ticking = setInterval(() => {
    if (current !== mine) return clearInterval(ticking);
    set("post", { when: duration(performance.now() - mine.started) });
    const at = mine.last ? `try ${mine.tries}: ${mine.last}` : `${nameOf(payer)} → gateway`;
    set("post", { about: at });
  }, 100);
  return {
    retry({ attempts, why }) {
      mine.tries = attempts + 1;
      mine.last = why;
      $("wire").dataset.tries = mine.tries;
    },
    /** The response is here. Returns how long it took; `mine.traced` ends when all hops are shown. */
    end(answer) {
      clearInterval(ticking);
      mine.ended = performance.now();
      mine.answer = answer;
      mine.tries = answer.attempts;
      mine.traced = current === mine ? trace(mine) : Promise.resolve();
      return mine.ended - mine.started;
    },
    /** Resolves to the number of records under the command's key, once all hops are shown. */
    async records() {
      await mine.traced;
      return mine.records;
    },
    fail(error) {
      clearInterval(ticking);
      if (current !== mine) return;
      $("wire").dataset.state = "failed";
      set("post", { state: "failed", about: error.message });
    },
  };
}

/** Asks the demo which records the command has become, and shows the hops one after the other. */
async function trace(mine) {
  const asked = performance.now();
  const about = await fetch(`wire.json?key=${encodeURIComponent(mine.key)}`, { cache: "no-store" })
    .then((answer) => answer.json())
    .catch(() => ({ commands: [] }));
  const answered = performance.now();
  // The service's clock is this machine's, or it differs by more than this request took.
  const between = about.now_us / 1000 - performance.timeOrigin - (asked + answered) / 2;
  const offset = Math.abs(between) > answered - asked ? between : 0;
  const since = (us) => Math.max(0, us / 1000 - performance.timeOrigin - offset - mine.started);
  const [record] = about.commands;
  const { status } = mine.answer;
  const total = mine.ended - mine.started;
  mine.records = about.commands.length;
  mine.hops.post = { at: 0 };
  mine.hops.response = { at: total };
  const port = new URL(mine.answer.url).port;
  const shown = [
    ["post", { about: `${nameOf(mine.payer)} → gateway :${port}${mine.tries > 1 ? `, try ${mine.tries}` : ""}`, when: "0 ms" }],
  ];
  if (record) {
    const { partition, offset } = record;
    mine.record = record;
    shown.push(
      ["command", { title: `payments-commands[${partition}] @${offset}`, when: at("command", since(record.read_us)) }],
      ["service", { when: at("service", since(record.journalled_us ?? record.read_us)) }],
    );
    if (record.reply)
      shown.push([
        "reply",
        {
          title: `payments-replies[${record.reply.partition}] @${record.reply.offset}`,
          when: at("reply", since(record.reply.appended_us)),
        },
      ]);
  }
  shown.push([
    "response",
    {
      title: `${status} in ${duration(total)}`,
      about: `gateway :${port} → ${nameOf(mine.payer)}${mine.answer.replayed ? ", the stored reply" : ""}`,
      when: duration(total),
      state: mine.answer.ok ? "done" : "refused",
    },
  ]);
  function at(name, ms) {
    mine.hops[name] = { at: ms };
    return duration(ms);
  }
  for (const [name, hop] of shown) {
    if (current !== mine) return;
    set(name, { state: "done", isOpen: true, ...hop });
    pulse(name);
    await new Promise((done) => (isBusy = setTimeout(done, STEP_MS)));
  }
  const events = record?.events ?? [];
  for (const [name, account] of [
    ["payer", mine.payer],
    ["payee", mine.payer === "ana" ? "bo" : "ana"],
  ]) {
    const event = events.find((e) => e.account === account);
    if (current !== mine) return;
    if (!event) {
      set(name, { about: "nothing changed, so no event", state: "idle" });
      continue;
    }
    const arrival = await arrivalOf(mine, account, event);
    if (current !== mine) return;
    mine.hops[name] = { at: arrival ? arrival.at - mine.started : null, event, arrival };
    set(name, {
      title: `event #${event.event} at ${nameOf(account)}`,
      about: `payments[${event.partition}] @${event.offset}`,
      when: arrival ? duration(Math.max(0, arrival.at - mine.started)) : "not yet",
      state: arrival ? "done" : "active",
      isOpen: Boolean(arrival),
    });
    pulse(name);
    await new Promise((done) => (isBusy = setTimeout(done, STEP_MS)));
  }
  Object.assign($("wire").dataset, { state: "done", records: mine.records, complete: "true" });
}

/** Waits for an event's arrival: it may come after the response, and a stream may just be moving. */
async function arrivalOf(mine, account, { event }) {
  const until = performance.now() + 10_000;
  for (;;) {
    const arrival = arrivals.get(`${account}#${event}`);
    if (arrival || performance.now() > until || current !== mine) return arrival;
    await new Promise((done) => setTimeout(done, 20));
  }
}

function pulse(name) {
  const hop = $("hops").querySelector(`[data-hop="${name}"]`);
  hop.classList.remove("pulse");
  void hop.offsetWidth; // Starts the animation again.
  hop.classList.add("pulse");
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const pretty = (headers) => headers.map(([name, value]) => `${name}: ${value}`).join("\n");

function curlOf(mine) {
  const { pathname } = new URL(mine.answer.url);
  const gateway = new URL(mine.answer.url).origin;
  const condition = mine.ifMatch ? ` \\\n  -H ${quote(`If-Match: "${mine.ifMatch}"`)}` : "";
  return (
    `curl -i ${gateway}${pathname} -H 'Content-Type: application/json' \\\n` +
    `  -H 'Idempotency-Key: ${mine.key}'${condition} \\\n  -d ${quote(JSON.stringify(mine.body))}`
  );
}
const kcatOf = (topic, { partition, offset }) =>
  `kcat -C -b ${place.kafka} -t ${topic} -p ${partition} -o ${offset} -c 1 \\\n` +
  `  -f 'key: %k\\nheaders: %h\\nvalue: %s\\n'`;

/** What a hop shows when it is clicked. */
function bytesOf(name, mine) {
  const { answer, record } = mine;
  const url = new URL(answer.url);
  switch (name) {
    case "post":
      return {
        title: "The request",
        about: "Under its key it takes effect once, however often and wherever it is sent.",
        bytes:
          `POST ${url.pathname} HTTP/1.1\nHost: ${url.host}\nContent-Type: application/json\n` +
          `Idempotency-Key: ${mine.key}\n${mine.ifMatch ? `If-Match: "${mine.ifMatch}"\n` : ""}\n` +
          JSON.stringify(mine.body),
        line: curlOf(mine),
      };
    case "command":
      return {
        title: `The command, payments-commands[${record.partition}] @${record.offset}`,
        about: `${mine.records === 1 ? "The only record" : `${mine.records} records`} under this idempotency key. The service read it ${duration(mine.hops.command.at)} after the click.`,
        bytes: `key: ${record.key}\n${pretty(record.headers)}\n\n${record.value}`,
        line: kcatOf("payments-commands", record),
      };
    case "service":
      return {
        title: "The payments service",
        about: "It reads commands, writes its decision to a journal, then events, then the reply. It knows nothing of HTTP.",
        bytes:
          `read the command      ${duration(mine.hops.command.at)}\n` +
          `journal has it        ${duration(mine.hops.service.at)}\n` +
          `events, reply sent    ${duration(mine.hops.reply?.at ?? 0)}`,
        line: `kcat -C -b ${place.kafka} -t payments-journal -o -1 -c 1`,
      };
    case "reply":
      return {
        title: `The reply, payments-replies[${record.reply.partition}] @${record.reply.offset}`,
        about: "Its correlation id is the command's. The gateway that waits for it turns it into the response.",
        bytes: `${pretty(record.reply.headers)}\n\n${record.reply.value}`,
        line: kcatOf("payments-replies", record.reply),
      };
    case "response":
      return {
        title: `The response, ${answer.status} in ${duration(mine.ended - mine.started)}`,
        about: "The line sends the same key again: the stored reply comes back, and nobody pays twice.",
        bytes: `HTTP/1.1 ${answer.status}\n${pretty([...answer.headers])}\n\n${JSON.stringify(answer.body)}`,
        line: curlOf(mine),
      };
    default: {
      const { event, arrival } = mine.hops[name];
      return {
        title: `Event #${event.event} at ${nameOf(event.account)}`,
        about: "The id says where the stream is. Whoever sends it back, to any gateway, gets what follows.",
        bytes: `data: ${JSON.stringify(arrival.data)}\nid: ${arrival.id}`,
        line: `curl -N ${url.origin}/accounts/${event.account}/events \\\n  -H 'Last-Event-ID: ${arrival.id}'`,
      };
    }
  }
}

function showBytes(name) {
  if (!current?.answer || !current.hops[name]) return;
  const { title, about, bytes, line } = bytesOf(name, current);
  $("bytes-title").textContent = title;
  $("bytes-about").textContent = about;
  $("bytes-content").textContent = bytes;
  $("bytes-line").textContent = line;
  $("bytes-copy").textContent = "Copy";
  $("bytes").showModal();
}

$("bytes-copy").addEventListener("click", async () => {
  // Only secure pages may write to the clipboard: https, and localhost.
  await navigator.clipboard?.writeText($("bytes-line").textContent);
  $("bytes-copy").textContent = navigator.clipboard ? "Copied" : "Select the line to copy it";
});
