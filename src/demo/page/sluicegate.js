// sluicegate.js: streams and commands of a Sluicegate gateway, for browsers. No dependencies;
// copy it.
//
//   import { stream, command } from "./sluicegate.js";
//   const s = stream("https://gw.example/accounts/ana/events", {
//     event: (data, { id }) => …, delete: (key) => …, challenge: () => renewLogin(),
//     gap: ({ partition, from, to, reason }) => …, state: (state, { resumedFrom }) => …,
//   });
//   const reply = await command("https://gw.example/accounts/ana/payments",
//     { body: { to: "bo", amount_cents: 250 }, ifMatch: "7" });

const lastIds = new Map(); // By URL: outlives a stream that the app closes and opens again.
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
// Full jitter: clients that lost the same server must not come back together.
const pause = (attempt, base = 500, max = 30_000) =>
  Math.random() * Math.min(max, base * 2 ** attempt) + base / 5;
const read = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
};

/** Opens an event stream that goes on where it was, whatever happens in between. */
export function stream(url, on, { credentials = false, names = [] } = {}) {
  let source,
    timer,
    attempt = 0,
    stopped = false,
    from = null;
  const state = (now) => on.state?.(now, { resumedFrom: from });
  const seen = (handle) => (e) => {
    if (e.lastEventId) lastIds.set(url, e.lastEventId);
    handle?.(read(e.data), { id: e.lastEventId, name: e.type });
  };
  const open = () => {
    const full = new URL(url, location.href);
    if ((from = lastIds.get(url) ?? null)) full.searchParams.set("last_event_id", from);
    state("connecting");
    source = new EventSource(full, { withCredentials: credentials });
    for (const name of ["message", ...names]) source.addEventListener(name, seen(on.event));
    // `position` shows no record: it says where the stream is, for a connection that is cut before one.
    for (const name of ["gap", "delete", "position"]) source.addEventListener(name, seen(on[name]));
    source.addEventListener("challenge", () => on.challenge?.());
    source.onopen = () => {
      attempt = 0;
      state("open");
    };
    source.onerror = () => {
      if (stopped) return;
      from = lastIds.get(url) ?? null;
      state("waiting");
      // A browser reconnects after a lost connection, but gives up after an answer that is not 200.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, pause(attempt++));
    };
  };
  open();
  return {
    close() {
      stopped = true;
      clearTimeout(timer);
      source.close();
      state("closed");
    },
    get lastId() {
      return lastIds.get(url) ?? null;
    },
  };
}

/** A new Idempotency-Key. */
export const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) =>
    b.toString(16).padStart(2, "0"),
  ).join("");

/**
 * Sends a command and waits for its reply. Whatever gets lost is sent again under the same key,
 * so it has one effect. Throws only when the time is up: then the outcome is unknown, and calling
 * again with the same `key` finds out.
 */
export async function command(
  url,
  {
    method = "POST",
    body,
    headers = {},
    key = newKey(),
    ifMatch,
    credentials = "same-origin",
    timeout = 30_000,
  } = {},
) {
  const deadline = Date.now() + timeout;
  const request = {
    method,
    credentials,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: { "Content-Type": "application/json", "Idempotency-Key": key, ...headers },
  };
  if (ifMatch !== undefined) request.headers["If-Match"] = `"${ifMatch}"`;
  let target = url,
    why = "no answer";
  for (let attempt = 0; ; attempt++) {
    const left = deadline - Date.now();
    if (left <= 0) throw Object.assign(new Error(`outcome unknown: ${why}`), { key });
    let wait = pause(attempt, 250, 5_000);
    try {
      const answer = await fetch(target, { ...request, signal: AbortSignal.timeout(left) });
      if (answer.status === 202) {
        // Accepted: the reply will be where Location says.
        target = new URL(answer.headers.get("Location"), target);
        Object.assign(request, { method: "GET", body: undefined, headers: {} });
      } else if (answer.status !== 503 && answer.status !== 504) {
        const etag = answer.headers.get("ETag")?.replace(/^W\/|"/g, "") ?? null;
        const text = await answer.text();
        return {
          ok: answer.ok,
          status: answer.status,
          etag,
          body: read(text),
          key,
          attempts: attempt + 1,
        };
      }
      why = `status ${answer.status}`;
      wait = Math.max(wait, 1000 * (Number(answer.headers.get("Retry-After")) || 0));
    } catch (error) {
      why = error.message;
    }
    await sleep(Math.max(0, Math.min(wait, deadline - Date.now())));
  }
}
