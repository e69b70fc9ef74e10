// sluicegate.js: event streams and commands of a Sluicegate gateway, for browsers and Node.js 18.
// No dependencies: copy this file. The guide is docs/browser.md, the types are in sluicegate.d.ts.
//
//   import { stream, command } from "./sluicegate.js";
//   const events = stream("https://gw.example/accounts/ana/events", { event: (data) => … });
//   const reply = await command("https://gw.example/accounts/ana/payments",
//     { body: { to: "bo", amount_cents: 250 }, ifMatch: events.etag });

const failedAt = new Map(); // When an address failed last, by origin. Streams and commands share it.
const inMemory = new Map();

/** The address to try next: the one whose last failure is oldest, else the first of the list. */
const next = (list) =>
  list.reduce((a, b) => ((failedAt.get(b.origin) ?? 0) < (failedAt.get(a.origin) ?? 0) ? b : a));
const resolve = (urls) => [urls].flat().map((url) => new URL(url, globalThis.location?.href));
const fail = (url) => failedAt.set(url.origin, performance.now());
const headersOf = async (headers) => (typeof headers === "function" ? await headers() : headers);
const retryAfter = (response) => 1000 * (Number(response.headers.get("Retry-After")) || 0);
const parse = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

/** Resolves after `ms`, or at once when the signal aborts. */
const sleep = (ms, signal) =>
  new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    if (signal?.aborted) end();
    else signal?.addEventListener("abort", end);
  });

/** The pause after `round` attempts at every address: grows to 30 s, and half of it is random. */
const backOff = (round, base) => Math.min(30_000, base * 2 ** round) * (0.5 + Math.random() / 2);

/** Ids of a tab's streams. They survive a reload, or only the stream where there is no storage. */
const tab = {
  getItem(name) {
    try {
      return sessionStorage.getItem(name);
    } catch {
      return inMemory.get(name) ?? null;
    }
  },
  setItem(name, id) {
    try {
      sessionStorage.setItem(name, id);
    } catch {
      inMemory.set(name, id);
    }
  },
};

/** The entity tag in an event id (`progress.etag`): what `If-Match` needs. */
const etagOf = (id) => {
  const etag = id.slice(id.indexOf(".") + 1);
  return etag ? decodeURIComponent(etag.replace(/=/g, "%")) : null;
};

/** Reads an event stream (WHATWG HTML 9.2.6) and calls `onBlock` for every block that ends. */
async function read(body, onBytes, onBlock) {
  const reader = body.getReader(),
    decoder = new TextDecoder();
  let rest = "",
    block = { data: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return; // A block without its empty line was cut: it is sent again.
    onBytes();
    // A last CR may be half of CR LF.
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        onBlock(block);
        block = { data: [] };
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") block.data.push(text);
      else block[field] = text;
    }
  }
}

/**
 * Opens an event stream that resumes by itself: after a lost connection, at another address, and
 * when a page opens it again under the same name.
 */
export function stream(urls, options = {}) {
  const { name = String([urls].flat()[0]), storage = tab, credentials, silence = 45_000 } = options;
  const list = resolve(urls),
    stop = new AbortController(),
    key = `sluicegate ${name}`;
  let retry = 1000,
    lastId = storage.getItem(key),
    etag = lastId && etagOf(lastId),
    renewal, // What the last `challenge` returned: the next connection waits for it.
    now;
  const state = (to, more) => options.state?.((now = to), { resumedFrom: lastId, ...more });

  const onBlock = ({ id, event = "message", retry: ms, data }) => {
    if (/^\d+$/.test(ms)) retry = Number(ms);
    if (id) etag = etagOf(id) ?? etag;
    if (data.length) {
      const text = data.join("\n");
      const handler = { gap: 1, delete: 1, position: 1, challenge: 1 }[event] ? event : "event";
      const value =
        event === "base64" ? Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) : parse(text);
      try {
        const done = options[handler]?.(value, { id, etag: id ? etagOf(id) : null, name: event });
        if (event === "challenge") renewal = done;
      } catch (error) {
        setTimeout(() => {
          throw error; // As with an EventSource, an error of a handler does not end the stream.
        });
      }
    }
    // Only now: an id that is stored before its event is handled would lose the event in a crash.
    if (id) storage.setItem(key, (lastId = id));
  };

  /** One connection, to its end. Returns whether it brought anything; throws what ends the stream. */
  const connect = async (url) => {
    const target = new URL(url),
      connection = new AbortController(),
      end = () => connection.abort();
    let timer,
      isUseful = false;
    // A heartbeat comes every 15 s. A connection without one is dead, whatever the system thinks.
    const watch = () => {
      clearTimeout(timer);
      timer = setTimeout(end, silence);
    };
    stop.signal.addEventListener("abort", end);
    if (lastId) target.searchParams.set("last_event_id", lastId);
    try {
      await renewal;
      watch();
      const response = await fetch(target, {
        headers: await headersOf(options.headers),
        credentials,
        cache: "no-store",
        signal: connection.signal,
      });
      const { status } = response;
      if (status === 200) {
        state("open", { url: url.href });
        await read(response.body, watch, (block) => {
          isUseful ||= block.id !== undefined;
          onBlock(block);
        });
      } else if (status === 401 && options.challenge) {
        renewal = options.challenge(null, {});
      } else if (status === 204 || (status > 399 && status < 500 && ![408, 425, 429].includes(status))) {
        throw Object.assign(new Error(`status ${status}`), {
          isFinal: true,
          status,
          body: parse(await response.text()),
        });
      } else retry = Math.max(retry, retryAfter(response));
    } catch (error) {
      if (error.isFinal) throw error;
    } finally {
      clearTimeout(timer);
      stop.signal.removeEventListener("abort", end);
      end();
    }
    return isUseful;
  };

  (async () => {
    for (let failures = 0; !stop.signal.aborted; ) {
      const url = next(list);
      state("connecting", { url: url.href });
      const wasUseful = await connect(url);
      if (stop.signal.aborted) break;
      fail(url);
      failures = wasUseful ? 0 : failures + 1;
      state("waiting", { url: url.href });
      // After a lost stream at random within `retry`: clients that lost the same gateway must not
      // arrive together. After a failure at the next address at once, and when all have failed, later.
      const rounds = Math.floor(failures / list.length);
      if (failures === 0) await sleep(Math.random() * retry, stop.signal);
      else if (failures % list.length === 0) await sleep(backOff(rounds, retry), stop.signal);
    }
  })().catch((error) => {
    state("failed");
    options.error?.(error);
  });

  return {
    close() {
      if (stop.signal.aborted) return;
      stop.abort();
      state("closed");
    },
    get state() {
      return now;
    },
    get lastId() {
      return lastId;
    },
    get etag() {
      return etag;
    },
  };
}

/** A new idempotency key. `randomUUID` exists on secure pages only: https, and localhost. */
export const newKey = () =>
  crypto.randomUUID?.() ??
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

/**
 * Sends a command and waits for its reply. Every attempt has the same idempotency key, so the
 * command takes effect once. Throws when the time is up or `signal` aborts: whether the command
 * took effect is then unknown, and calling again with `error.key` finds out.
 */
export async function command(urls, options = {}) {
  const { method = "POST", body, key = newKey(), ifMatch, credentials, signal } = options;
  const { timeout = 30_000, attemptTimeout = 15_000 } = options;
  const list = resolve(urls),
    deadline = performance.now() + timeout;
  const isRaw = body === undefined || typeof body === "string" || ArrayBuffer.isView(body);
  const sent = { "Content-Type": "application/json", "Idempotency-Key": key };
  if (ifMatch != null) sent["If-Match"] = /^(\*|(W\/)?".*")$/.test(ifMatch) ? ifMatch : `"${ifMatch}"`;
  let location, // Where a 202 says that the reply will be.
    attempts = 0,
    why = "no address answers",
    isRenewed = false,
    mayHaveRun = false;

  for (let failures = 0; ; ) {
    const url = next(list),
      started = performance.now(),
      attempt = new AbortController(),
      abort = () => attempt.abort();
    const timer = setTimeout(abort, Math.min(attemptTimeout, deadline - started));
    signal?.addEventListener("abort", abort);
    let wait = 0,
      answer;
    try {
      signal?.throwIfAborted();
      const custom = await headersOf(options.headers);
      if (!location) attempts++;
      const response = await fetch(location ? new URL(location, url) : url, {
        method: location ? "GET" : method,
        body: location ? undefined : isRaw ? body : JSON.stringify(body),
        headers: location ? { ...custom, Prefer: "wait=10" } : { ...sent, ...custom },
        credentials,
        cache: "no-store",
        signal: attempt.signal,
      });
      const { status, headers } = response;
      const replayed = headers.get("Idempotent-Replayed") === "true";
      const tag = headers.get("ETag");
      const value = parse(await response.text());
      answer = { ok: response.ok, status, etag: tag && tag.replace(/^W\/|"/g, ""), body: value, headers };
      Object.assign(answer, { key, attempts, replayed, url: url.href });
      failedAt.delete(url.origin);
      const isOurs = /^\/problems\//.test(value?.type ?? "");
      if (status === 202 && headers.get("Location")) {
        location = headers.get("Location");
        mayHaveRun = true;
        // The gateway has waited for the reply already, unless it is about to stop.
        wait = retryAfter(response) - (performance.now() - started);
        why = "no reply yet";
        failures = 0;
      } else if (status === 401 && options.challenge && !isRenewed) {
        isRenewed = true;
        await options.challenge();
      } else if (
        !replayed &&
        ([429, 503, 504].includes(status) ||
          (status === 502 && !isOurs) || // From a proxy: no gateway has answered.
          (status === 409 && value?.type === "/problems/command-in-progress"))
      ) {
        why = `${status} ${value?.title ?? ""}`.trim();
        mayHaveRun ||= status === 502 || status === 504;
        fail(url);
        failures++;
        wait = retryAfter(response);
      } else return answer;
    } catch (error) {
      if (!signal?.aborted && !attempt.signal.aborted && !(error instanceof TypeError)) throw error;
      why = attempt.signal.aborted ? "no answer in time" : error.message;
      mayHaveRun = true;
      fail(url);
      failures++;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
    if (failures > 0) {
      const isRoundOver = failures % list.length === 0;
      wait = isRoundOver ? Math.max(wait, backOff(failures / list.length - 1, 300)) : 0;
    }
    const left = deadline - performance.now();
    if (signal?.aborted || wait >= left) {
      // Every attempt was refused, so nothing was done: the last refusal is the answer.
      if (answer && !mayHaveRun) return answer;
      const reason = signal?.aborted ? "aborted" : `no reply within ${timeout} ms`;
      const error = new Error(`outcome unknown: ${reason} (${why})`, { cause: signal?.reason });
      throw Object.assign(error, { key, attempts });
    }
    if (failures > 0) {
      const took = deadline - left - started;
      options.retry?.({ attempts, why, took, wait: Math.max(0, wait), url: url.href, answer });
    }
    if (wait > 0) await sleep(wait, signal);
  }
}
