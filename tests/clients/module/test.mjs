// The browser module in Node.js, against `sluicegate demo`: two gateways that are killed (SIGKILL) and
// frozen (SIGSTOP) while streams are followed and payments are made.
//
//   node tests/clients/module/test.mjs --binary target/debug/sluicegate
//
// Prints one line for each claim with what it counted, and exits 0 only if all hold.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { stream, command, newKey } from "../../../clients/js/sluicegate.js";

const PATIENCE_MS = 30_000;
const { argv } = process;
const binary = argv[argv.indexOf("--binary") + 1] ?? "target/debug/sluicegate";
const flags = ["listen", "second-listen", "kafka-listen", "page-listen"];
const ports = [...flags, "admin-listen", "second-admin-listen"].flatMap((f) => [`--${f}`, "127.0.0.1:0"]);
const demo = spawn(binary, ["demo", "-o", "json", ...ports], { stdio: ["ignore", "pipe", "ignore"] });
process.on("exit", () => demo.kill("SIGKILL"));
const lines = createInterface(demo.stdout)[Symbol.asyncIterator]();
const about = JSON.parse((await lines.next()).value);
const [first, second] = about.gateways.map((g) => g.gateway);
const both = (path) => [first + path, second + path];

async function until(what, isDone) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await isDone();
    if (value) return value;
    if (Date.now() > end) assert.fail(`not in time: ${what}`);
    await sleep(10);
  }
}
const states = async () => (await (await fetch(`${about.page}/demo.json`)).json()).gateways;
const pids = async () => (await states()).map((g) => g.pid);
const allUp = () => until("both gateways are up", async () => (await states()).every((g) => g.state === "up"));
const kill = async (place, signal = "SIGKILL") => process.kill((await pids())[place], signal);
const ours = { method: "POST", headers: { Origin: about.page } };
const pay = (options = {}) =>
  command(options.urls ?? both("/accounts/ana/payments"), { body: { to: "bo", amount_cents: 1 }, ...options });
/** How many records the commands topic has under a key, by the service that reads it. */
const records = async (key) => (await (await fetch(`${about.page}/wire.json?key=${key}`)).json()).commands.length;

/** A stream that keeps what it was told. */
function follow(urls, options = {}) {
  const seen = { events: [], states: [], gaps: [], ids: [] };
  seen.stream = stream(urls, {
    storage: new Map2(),
    event: (data, meta) => (seen.events.push(data), seen.ids.push(meta.id)),
    gap: (gap) => seen.gaps.push(gap),
    state: (state, { url, resumedFrom }) => seen.states.push({ state, url, resumedFrom }),
    ...options,
  });
  seen.numbers = () => seen.events.map((e) => e.event);
  seen.isOpen = () => seen.stream.state === "open";
  return seen;
}
class Map2 extends Map {
  getItem(name) {
    return this.get(name) ?? null;
  }
  setItem(name, id) {
    this.set(name, id);
  }
}
const counted = (n) => Array.from({ length: n }, (_, i) => i + 1);

const tests = {
  async "a stream moves to the other gateway when its own is killed, and misses nothing"() {
    const ana = follow(both("/accounts/ana/events"));
    await until("the stream is open", ana.isOpen);
    let paid = 0,
      moves = 0;
    for (let round = 0; round < 6; round++) {
      const at = ana.states.at(-1).url.startsWith(first) ? 0 : 1;
      const reply = await pay();
      paid++;
      assert.equal(reply.status, 201);
      await kill(at);
      const after = await pay();
      paid++;
      assert.equal(after.status, 201);
      await until("the payment is shown", () => ana.events.at(-1)?.id === after.body.payment);
      const now = ana.states.findLast((s) => s.state === "open");
      if (!now.url.startsWith([first, second][at])) moves++;
      await allUp();
    }
    ana.stream.close();
    assert.deepEqual(ana.numbers(), counted(1 + paid));
    assert.deepEqual(ana.gaps, []);
    assert.equal(moves, 6, "each kill moved the stream");
    return `${paid} payments, 6 kills, ${moves} moves, ${ana.events.length} events, 0 missing, 0 twice`;
  },

  async "a payment during a total outage is applied once"() {
    const before = (await (await fetch(`${first}/accounts/ana`)).json()).balance_cents;
    await Promise.all([kill(0), kill(1)]);
    const retries = [];
    const reply = await pay({ retry: (r) => retries.push(r) });
    assert.equal(reply.status, 201);
    assert.ok(reply.attempts > 2, `${reply.attempts} attempts`);
    assert.equal(await records(reply.key), 1);
    await allUp();
    const after = (await (await fetch(`${first}/accounts/ana`)).json()).balance_cents;
    assert.equal(before - after, 1);
    return `${reply.attempts} attempts, 1 record, balance changed once`;
  },

  async "kills during payments: each is applied once, and every answer is the reply"() {
    const { balance_cents: before } = await (await fetch(`${first}/accounts/ana`)).json();
    const KILLS = 4;
    let kills = 0;
    const killing = (async () => {
      for (; kills < KILLS; kills++) {
        await sleep(100);
        // Answers when the killed gateway is up again.
        await fetch(`${about.page}/gateways/${1 + (kills % 2)}/kill`, ours);
      }
    })();
    const replies = [];
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        while (kills < KILLS) {
          replies.push(await pay({ timeout: 60_000 }));
          await sleep(20);
        }
      }),
    );
    await killing;
    const { balance_cents: after } = await (await fetch(`${first}/accounts/ana`)).json();
    const { length } = replies;
    assert.deepEqual(new Set(replies.map((r) => r.status)), new Set([201]));
    assert.equal(new Set(replies.map((r) => r.body.payment)).size, length);
    assert.equal(before - after, length);
    const repeated = replies.filter((r) => r.attempts > 1).length;
    return `${length} payments, ${kills} kills, ${repeated} payments took more than one attempt, balance changed ${length} times`;
  },

  async "a frozen gateway delays a payment by the time for an attempt, no more"() {
    const at = (await pay()).url.startsWith(first) ? 0 : 1;
    await kill(at, "SIGSTOP");
    try {
      const started = Date.now();
      const reply = await pay({ attemptTimeout: 1_000 });
      const took = Date.now() - started;
      assert.deepEqual([reply.status, reply.attempts], [201, 2]);
      assert.equal(await records(reply.key), 1);
      assert.ok(took >= 1_000, `${took} ms`);
      return `201 after ${took} ms and ${reply.attempts} attempts, 1 record`;
    } finally {
      await kill(at, "SIGCONT");
    }
  },

  async "an unknown outcome is known by its key at another gateway"() {
    await kill(0, "SIGSTOP");
    try {
      const error = await pay({ urls: first + "/accounts/ana/payments", timeout: 1_000 }).catch((e) => e);
      assert.match(error.message, /outcome unknown/);
      const reply = await pay({ key: error.key });
      assert.equal(reply.status, 201);
      // The frozen gateway may have read the request: once it runs, its record would be the second.
      await kill(0, "SIGCONT");
      const again = await pay({ key: error.key });
      assert.deepEqual([again.status, again.replayed], [201, true]);
      assert.equal(again.body.payment, reply.body.payment);
      return `unknown after 1 s, then 201 of payment ${reply.body.payment}, twice`;
    } finally {
      await kill(0, "SIGCONT");
    }
  },

  async "a stream on a frozen gateway moves after the silence"() {
    const ana = follow(both("/accounts/ana/events"), { silence: 1_000 });
    await until("the stream is open", ana.isOpen);
    const at = ana.states.at(-1).url.startsWith(first) ? 0 : 1;
    await kill(at, "SIGSTOP");
    try {
      const isElsewhere = (s) => s.state === "open" && !s.url.startsWith([first, second][at]);
      await until("it is elsewhere", () => ana.states.some(isElsewhere));
      const reply = await pay();
      await until("the payment is shown", () => ana.events.at(-1)?.id === reply.body.payment);
    } finally {
      await kill(at, "SIGCONT");
      ana.stream.close();
    }
    assert.deepEqual(ana.numbers(), counted(ana.events.length));
    return `${ana.events.length} events, 0 missing, 0 twice`;
  },

  async "a stream that is opened again resumes where the last one was"() {
    const storage = new Map2(),
      url = both("/accounts/bo/events");
    const before = follow(url, { storage });
    await until("events came", () => before.events.length > 3);
    before.stream.close();
    const id = before.stream.lastId;
    const reply = await pay();
    const after = follow(url, { storage });
    await until("the payment is shown", () => after.events.at(-1)?.id === reply.body.payment);
    after.stream.close();
    assert.equal(after.states[0].resumedFrom, id);
    const all = [...before.numbers(), ...after.numbers()];
    assert.deepEqual(all, counted(all.length));
    return `${before.events.length} events, then ${after.events.length}, 0 missing, 0 twice`;
  },

  async "an error in a handler is reported, and the stream continues"() {
    const errors = [];
    const onError = (error) => errors.push(error.message);
    process.on("uncaughtException", onError);
    let calls = 0;
    const bo = follow(first + "/accounts/bo/events", {
      event: () => {
        calls++;
        throw new Error("planted");
      },
    });
    await until("every event was handled", () => calls > 3 && errors.length === calls);
    bo.stream.close();
    process.off("uncaughtException", onError);
    return `${calls} errors of a handler, ${errors.length} reported`;
  },

  async "If-Match by the last event's tag: 201, and 412 when it is stale"() {
    const ana = follow(first + "/accounts/ana/events");
    const { version } = await (await fetch(`${first}/accounts/ana`)).json();
    await until("the newest version", () => ana.events.at(-1)?.version === version);
    const etag = ana.stream.etag;
    assert.equal(etag, String(version));
    const fresh = await pay({ ifMatch: etag });
    assert.equal(fresh.status, 201);
    const stale = await pay({ ifMatch: etag });
    assert.equal(stale.status, 412);
    await until("the payment is shown", () => ana.events.at(-1)?.id === fresh.body.payment);
    const byId = await pay({ ifMatch: ana.stream.lastId });
    assert.equal(byId.status, 201, "a whole event id is a condition, too");
    ana.stream.close();
    return `201 with ${etag}, 412 with ${etag}, 201 with the id`;
  },

  async "a 202 is polled to its reply, at the other gateway if the first dies"() {
    const { fetch: real } = globalThis;
    const asked = [];
    globalThis.fetch = async (url, options) => {
      if (!options?.method) return real(url, options); // `states` asks the demo's page.
      const response = await real(url, options);
      asked.push({ method: options.method, url: String(url), status: response.status });
      if (response.status === 202 && asked.length === 1) {
        const whole = new Response(await response.text(), response);
        await kill(String(url).startsWith(first) ? 0 : 1);
        return whole;
      }
      return response;
    };
    const reply = await pay({ headers: { Prefer: "respond-async" } }).finally(() => (globalThis.fetch = real));
    assert.equal(reply.status, 201);
    assert.equal(reply.attempts, 1);
    assert.equal(await records(reply.key), 1);
    assert.deepEqual([asked[0].method, asked[0].status], ["POST", 202]);
    const last = asked.at(-1);
    assert.deepEqual([last.method, last.status], ["GET", 201]);
    assert.notEqual(new URL(last.url).origin, new URL(asked[0].url).origin);
    await allUp();
    return `202, then 201 after ${asked.length - 1} questions at the other gateway`;
  },

  async "a stopped broker: refused within a second, and paid once it is back"() {
    const post = (path) => fetch(about.page + path, ours);
    await post("/broker/stop");
    await sleep(1_200);
    const retries = [];
    const started = Date.now();
    const paying = pay({ retry: (r) => retries.push({ ...r, after: Date.now() - started }) });
    await until("it was refused", () => retries.length > 0);
    const { after, answer } = retries[0];
    assert.equal(answer?.status, 503);
    const query = await fetch(`${first}/accounts/ana`);
    assert.equal(query.status, 200);
    await sleep(1_000);
    await post("/broker/start");
    const reply = await paying;
    assert.equal(reply.status, 201);
    assert.equal(await records(reply.key), 1);
    return `503 after ${after} ms, then 201 after ${reply.attempts} attempts with 1 record`;
  },

  async "the examples of docs/browser.md run as they are"() {
    const page = readFileSync(new URL("../../../docs/browser.md", import.meta.url), "utf8");
    const examples = [...page.matchAll(/```js\n(.*?)```/gs)].map(([, code]) => code);
    const opened = [];
    const names = {
      stream: (...args) => opened[opened.push(stream(...args)) - 1],
      command,
      newKey,
      url: first + "/accounts/ana/payments",
      body: { to: "bo", amount_cents: 1 },
      token: "none",
      renew: () => "none",
      showTheNewState: () => {},
      sessionStorage: Object.assign(new Map2(), { removeItem: () => {} }),
      console: { log: () => {}, warn: () => {} },
      events: follow(first + "/accounts/ana/events").stream,
    };
    await until("the stream has a tag", () => names.events.etag);
    const AsyncFunction = (async () => {}).constructor;
    for (const example of examples) {
      const code = example
        .replace(/^import .*$/gm, "")
        .replaceAll("http://127.0.0.1:8080", first)
        .replaceAll("http://127.0.0.1:8081", second);
      const given = Object.keys(names).filter((name) => !code.includes(`const ${name} =`));
      const run = new AsyncFunction(...given, code);
      await run(...given.map((name) => names[name]));
    }
    names.events.close();
    opened.forEach((source) => source.close());
    return `${examples.length} examples, ${opened.length} streams`;
  },

  async "a refusal is the answer when there is no time for another attempt"() {
    const refused = { status: 503, headers: { "Retry-After": "60" } };
    const server = createServer((_, response) => response.writeHead(refused.status, refused.headers).end());
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const url = `http://127.0.0.1:${server.address().port}/`;
    const reply = await pay({ urls: url, timeout: 2_000 });
    assert.equal(reply.status, 503);
    server.close();
    const gone = await pay({ urls: url, timeout: 500 }).catch((error) => error);
    assert.match(gone.message, /outcome unknown/);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    const aborted = await pay({ urls: url, signal: controller.signal }).catch((error) => error);
    assert.match(aborted.message, /aborted/);
    return "503, outcome unknown, aborted";
  },

  async "the reader takes every line ending, wherever the bytes are cut"() {
    const events = [
      'retry: 12\n\nid: 1.a\ndata: {"n":1}\n\n',
      'event: payment\rdata: {"n":\rdata: 2}\rid: 2.b=2Ec\r\r',
      ': a comment\r\nevent: base64\r\ndata: AAEC\r\nid: 3.\r\n\r\n',
      'event: gap\ndata: {"partition":0,"from":5,"to":9,"reason":"retention"}\nid: 4.\n\n',
      'event: delete\ndata: {"key":"é😀"}\nid: 5.x\n\nid: 6.\n\ndata: cut',
    ];
    const bytes = new TextEncoder().encode(events.join(""));
    let cuts = 0;
    for (const size of [1, 2, 3, 5, 7, 64, bytes.length]) {
      const server = createServer(async (_, response) => {
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        for (let at = 0; at < bytes.length; at += size) {
          response.write(bytes.subarray(at, at + size));
          await new Promise(setImmediate);
          cuts++;
        }
        response.destroy();
      });
      await new Promise((done) => server.listen(0, "127.0.0.1", done));
      const seen = [];
      const keep = (name) => (data, meta) => seen.push([name, data, meta.etag]);
      const source = stream(`http://127.0.0.1:${server.address().port}/`, {
        storage: new Map2(),
        event: keep("event"),
        gap: keep("gap"),
        delete: keep("delete"),
      });
      await until("the last id", () => source.lastId === "6.");
      source.close();
      server.close();
      assert.deepEqual(seen.slice(0, 5), [
        ["event", { n: 1 }, "a"],
        ["event", { n: 2 }, "b.c"],
        ["event", new Uint8Array([0, 1, 2]), null],
        ["gap", { partition: 0, from: 5, to: 9, reason: "retention" }, null],
        ["delete", { key: "é😀" }, "x"],
      ]);
    }
    return `7 sizes, ${cuts} cuts`;
  },

  async "a refused stream stops, a challenge renews the login first"() {
    let asked = 0,
      token = "old";
    const server = createServer((request, response) => {
      asked++;
      if (request.url === "/forbidden") return response.writeHead(403).end('{"title":"no"}');
      if (request.headers.authorization !== "Bearer new") {
        if (request.method === "POST") return response.writeHead(401).end();
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        return response.end("retry: 10\n\nevent: challenge\ndata: {}\n\n");
      }
      if (request.method === "POST") return response.writeHead(201).end("{}");
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("id: 1.\ndata: 1\n\n");
    });
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const url = `http://127.0.0.1:${server.address().port}`;
    const headers = () => ({ Authorization: `Bearer ${token}` });
    const challenge = async () => {
      await sleep(50);
      token = "new";
    };
    const renewed = follow(url, { headers, challenge });
    await until("an event after the challenge", () => renewed.events.length === 1);
    renewed.stream.close();
    assert.equal(asked, 2, "the second connection waited for the new token");
    token = "old";
    const reply = await pay({ urls: url, headers, challenge });
    assert.equal(reply.status, 201);
    const errors = [];
    const refused = follow(`${url}/forbidden`, { error: (error) => errors.push(error) });
    await until("it failed", () => refused.stream.state === "failed");
    assert.deepEqual([errors[0].status, errors[0].body.title], [403, "no"]);
    server.closeAllConnections();
    server.close();
    return "1 challenge of a stream, 1 of a command, 403 reported once";
  },
};

assert.match(newKey(), /^[0-9a-f-]{36}$/);
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    console.log(`ok      ${name}: ${await test()}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n${error.stack}`);
    await kill(0, "SIGCONT").catch(() => {});
    await kill(1, "SIGCONT").catch(() => {});
    await allUp().catch(() => {});
  }
}
console.log(`${Object.keys(tests).length - failed} of ${Object.keys(tests).length} claims hold`);
process.exit(failed ? 1 : 0);
