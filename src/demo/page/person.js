// One person of the demo's page: a stream to follow, and commands to send. Everything shown comes
// from the gateways.

import { stream, command, newKey } from "./sluicegate.js";
import { PEOPLE, $, duration, element, euros, nameOf, portOf } from "./kit.js";
import { begin, onArrival } from "./wire.js";

const LOG_ROWS_MAX = 50;
/** After this time a message fades: it is not about now any more. */
const MESSAGE_MS = 9_000;
const COMMAND_MS = 60_000;
const short = (id) => (id.length > 18 ? `${id.slice(0, 6)}…${id.slice(-6)}` : id);

/** What an event says, to the person it is told. */
const SAYS = {
  opened: () => "Account opened",
  paid: (e) => `Paid ${nameOf(e.with)}`,
  received: (e) => `Received from ${nameOf(e.with)}`,
  requested: (e) => `Asked ${nameOf(e.with)}`,
  asked: (e) => `${nameOf(e.with)} asks for money`,
  declined: (e) => `Declined ${nameOf(e.with)}`,
  refused: (e) => `${nameOf(e.with)} declined`,
};
const SIGN = { opened: "+", received: "+", paid: "−" };

export class Person {
  constructor({ id, name, tint }, gateways) {
    Object.assign(this, { id, name, gateways });
    this.first = this.last = 0; // Numbers of the oldest and newest event.
    this.count = 0; // Events shown, each once.
    this.holes = 0; // Numbers that never came.
    this.repeats = 0; // Events that came again, with the number they had.
    this.cents = this.version = this.told = null; // Told: the version by the stream alone.
    this.recent = []; // The newest events, which survive a reload of the page.
    this.lost = this.moved = null;
    this.root = $("person").content.firstElementChild.cloneNode(true);
    this.root.id = id;
    this.root.dataset.account = id;
    this.root.style.setProperty("--tint", tint);
    this.root.setAttribute("aria-label", name);
    this.root.querySelector("h2").textContent = name;
    this.root.querySelector(".avatar").textContent = name[0];
    this.part("scroll").setAttribute("aria-label", `${name}'s events`);
    this.other = PEOPLE.find((p) => p.id !== id);
    this.part("pay").textContent = `Pay ${this.other.name}`;
    this.part("form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.pay();
    });
    this.part("request").addEventListener("click", () => this.request());
    this.part("stale").addEventListener("click", () => this.pay({ ifMatch: this.version - 1 }));
    this.part("overdraft").addEventListener("click", () => this.pay({ cents: this.cents + 1 }));
    this.part("twice").addEventListener("click", () => this.payTwice());
    this.strip = element("p", { className: "holder" });
    this.strip.style.setProperty("--tint", tint);
    $("strip").append(this.strip);
    this.restore();
    this.mark();
  }

  part(role) {
    return this.root.querySelector(`[data-role="${role}"]`);
  }
  /** A resource at every gateway. The browser module takes the next when one fails. */
  urls(path) {
    return this.gateways.map((gateway) => `${gateway}/accounts/${this.id}${path}`);
  }

  follow() {
    this.stream = stream(this.urls("/events"), {
      event: (data, { id }) => this.on(data, id),
      gap: (gap) => this.onGap(gap),
      state: (state, about) => this.onState(state, about),
    });
  }

  onState(state, { url, resumedFrom }) {
    this.root.dataset.state = state;
    this.part("state").textContent =
      state === "open" ? `live at ${portOf(url)}` : state === "waiting" ? "stream lost" : "connecting";
    if (state === "open") {
      this.root.dataset.gateway = url;
      // The stream may have nothing to tell for long; what the account is now, a query knows.
      if (this.version === null) this.look();
      if (this.lost && resumedFrom) {
        const after = performance.now() - this.lost.at;
        this.moved = { from: this.lost.url, to: url, after, id: resumedFrom };
        this.lost = null;
        this.marker(this.moved);
      }
    } else if (state === "waiting" && this.root.dataset.gateway) {
      this.lost ??= { at: performance.now(), url };
    }
  }

  /** Shows in the list of events where the stream went on at another connection. */
  marker({ from, to, after, id }) {
    const where = from === to ? `back at ${portOf(to)}` : `moved from ${portOf(from)} to ${portOf(to)}`;
    const row = element(
      "li",
      { className: "marker" },
      element("span", { text: `${where} after ${duration(after)}` }),
    );
    row.title = `Resumed from id ${id}`;
    row.dataset.kind = "moved";
    this.part("log").prepend(row);
  }

  /** Asks a query for the account as it is. */
  async look() {
    const answer = await this.query();
    if (!answer) return;
    this.told ??= answer.version;
    this.learn(answer.balance_cents, answer.version);
    this.mark();
  }

  /** The account as the first gateway that answers knows it, and its age in seconds. */
  async query() {
    for (const url of this.urls("")) {
      const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(3_000) }).catch(
        () => null,
      );
      if (answer?.ok) return { ...(await answer.json()), age: answer.headers.get("Age") };
    }
    return null;
  }

  /** Shows what a query says while Kafka is stopped: the same balance, with its age. */
  async showAge() {
    const answer = await this.query();
    this.age = answer?.age ?? null;
    this.showQuery();
    if (answer) this.learn(answer.balance_cents, answer.version);
  }
  showQuery() {
    const age = this.age ? `from memory, Age: ${this.age} s` : `version ${this.version ?? "–"}`;
    this.part("query").textContent = age;
    this.part("query").dataset.age = this.age ?? "";
  }

  /** Whether the stream tells all that a query knows now: numbers show no missing end. */
  async isCurrent() {
    let known = null;
    for (let attempt = 0; attempt < 100; attempt++) {
      if (known === null) known = (await this.query())?.version ?? null;
      if (known !== null && known <= this.told && this.root.dataset.state === "open") return true;
      await new Promise((done) => setTimeout(done, 100));
    }
    return false;
  }

  on(event, id) {
    onArrival(this.id, event.event, event, id);
    if (event.event <= this.last) {
      this.repeats += 1;
      this.mark();
      return;
    }
    this.take(event);
    this.root.classList.remove("arrived");
    void this.root.offsetWidth; // Starts the animation again.
    this.root.classList.add("arrived");
    this.recent = [...this.recent.slice(1 - LOG_ROWS_MAX), event];
    this.save();
  }

  /** Shows an event: one that has just come, or one from before the page was reloaded. */
  take(event) {
    if (this.last && event.event > this.last + 1) this.holes += event.event - this.last - 1;
    this.first ||= event.event;
    this.last = event.event;
    this.count += 1;
    this.told = event.version;
    this.learn(event.balance_cents, event.version);
    this.row(event);
    if (event.kind === "asked") this.ask(event);
    if (event.request)
      this.part("asks")
        .querySelector(`[data-request="${CSS.escape(event.request)}"]`)
        ?.remove();
    this.mark();
  }

  /** Keeps the events of this tab, because the stream resumes behind them after a reload. */
  save() {
    try {
      const { recent, holes, repeats } = this;
      sessionStorage.setItem(`demo ${this.id}`, JSON.stringify({ recent, holes, repeats }));
    } catch {
      // No storage: a reload starts with what comes then.
    }
  }
  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(`demo ${this.id}`));
      kept?.recent.forEach((event) => this.take(event));
      Object.assign(this, kept);
    } catch {
      // As above.
    }
  }

  onGap(gap) {
    // The demo was started again: its topics are new, and its events have numbers from 1.
    if (gap?.reason === "recreated" || gap?.reason === "unreadable") {
      Object.assign(this, { first: 0, last: 0, count: 0, holes: 0, repeats: 0, recent: [] });
      this.cents = this.version = this.told = null;
      this.part("log").replaceChildren();
      this.part("asks").replaceChildren();
      return this.save();
    }
    const text =
      `Gap in partition ${gap?.partition}: ${gap?.reason ?? "unknown"}, ` +
      `offsets ${gap?.from} to ${gap?.to}`;
    const row = element("li", {}, element("span", { className: "gap", text }));
    row.dataset.kind = "gap";
    this.part("log").prepend(row);
  }

  /** The newest balance and version: from the stream, or from a reply that was quicker. */
  learn(cents, version) {
    if (version < this.version) return;
    const balance = this.part("balance");
    if (this.cents !== null && cents !== this.cents) {
      balance.classList.remove("up", "down");
      void balance.offsetWidth; // Starts the animation again.
      balance.classList.add(cents > this.cents ? "up" : "down");
    }
    Object.assign(this, { cents, version });
    balance.textContent = euros(cents);
    this.strip.textContent = `${this.name} ${euros(cents)}`;
    this.showQuery();
    Object.assign(this.root.dataset, { balanceCents: cents, version });
  }

  mark() {
    Object.assign(this.root.dataset, {
      events: this.count,
      lastEvent: this.last,
      holes: this.holes,
      repeats: this.repeats,
      whole: this.holes === 0,
    });
    this.part("check").textContent =
      this.count === 0
        ? ""
        : `#${this.first}–#${this.last}: ${this.holes} missing, ${this.repeats} twice`;
    for (const role of ["pay", "request", "stale", "overdraft", "twice"])
      this.part(role).disabled = this.version === null;
  }

  row(event) {
    const log = this.part("log");
    const sign = SIGN[event.kind];
    const sum = element("span", {
      className: sign === "+" ? "sum plus" : "sum",
      text: `${sign ?? ""}${euros(event.amount_cents)}`,
    });
    const when = new Date(event.at_ms).toLocaleTimeString();
    const note = event.note ? `${event.note} · ${when}` : when;
    const row = element(
      "li",
      { className: "new" },
      element("span", { className: "number", text: `#${event.event}` }),
      element("span", { className: "what", text: (SAYS[event.kind] ?? (() => event.kind))(event) }),
      sum,
      element("small", { className: "note", text: note }),
      element("small", { className: "after", text: sign ? `= ${euros(event.balance_cents)}` : "" }),
    );
    Object.assign(row.dataset, {
      event: event.event,
      kind: event.kind,
      amountCents: event.amount_cents,
    });
    log.prepend(row);
    while (log.childElementCount > LOG_ROWS_MAX) log.lastElementChild.remove();
  }

  /** Somebody asks this person for money. */
  ask(event) {
    const answer = (accept) => async () => {
      const buttons = row.querySelectorAll("button");
      buttons.forEach((b) => (b.disabled = true));
      const declined = () => `Declined ${nameOf(event.with)}'s request`;
      const reply = await this.send(
        "/answers",
        { request: event.id, accept },
        { done: accept ? undefined : declined },
      );
      if (!reply?.ok) buttons.forEach((b) => (b.disabled = false));
    };
    const yes = element("button", { className: "primary", type: "button", text: "Pay" });
    const no = element("button", { type: "button", text: "Decline" });
    yes.dataset.role = "accept";
    no.dataset.role = "decline";
    yes.addEventListener("click", answer(true));
    no.addEventListener("click", answer(false));
    const why = event.note ? `: ${event.note}` : "";
    const text = `${nameOf(event.with)} asks for ${euros(event.amount_cents)}${why}`;
    const row = element("li", {}, element("p", { text }), yes, no);
    row.dataset.request = event.id;
    this.part("asks").append(row);
  }

  transfer(cents) {
    return { to: this.other.id, amount_cents: cents, note: this.part("note").value.trim() };
  }

  /** What the field says, in cents, or null. */
  amount() {
    const field = this.part("amount");
    const text = field.value.trim().replace(",", ".");
    const isGood = /^\d{1,5}(\.\d{1,2})?$/.test(text) && Number(text) > 0;
    field.setCustomValidity(isGood ? "" : "An amount such as 2.50");
    field.reportValidity();
    return isGood ? Math.round(Number(text) * 100) : null;
  }

  /** Without `ifMatch` a payment is right whatever happened since, as long as there is the money. */
  async pay({ cents = this.amount(), ifMatch } = {}) {
    if (cents === null) return;
    await this.send("/payments", this.transfer(cents), {
      ifMatch,
      title: `${this.name} pays ${this.other.name} ${euros(cents)}`,
      done: () => `Paid ${this.other.name} ${euros(cents)}`,
    });
  }

  async payTwice() {
    const cents = this.amount();
    if (cents === null) return;
    const key = newKey(),
      body = this.transfer(cents),
      before = this.cents;
    this.say("pending", 0, `Two requests at once, key ${short(key)}`);
    const title = `${this.name} pays once, by two requests`;
    const wire = begin({ payer: this.id, path: "/payments", body, key, title });
    try {
      const options = { body, key, timeout: COMMAND_MS };
      const [a, b] = await Promise.all([
        command(this.urls("/payments"), options),
        command(this.urls("/payments"), options),
      ]);
      wire.end(a);
      if (!a.ok) return this.tell(a);
      const isSame = a.status === b.status && JSON.stringify(a.body) === JSON.stringify(b.body);
      this.learn(a.body.balance_cents, a.body.version);
      this.say(
        isSame,
        a.status,
        isSame
          ? `One key, two answers, one payment: ` +
              `${euros(before)} − ${euros(cents)} = ${euros(a.body.balance_cents)}.`
          : `The answers differ: ${a.status} and ${b.status}.`,
      );
    } catch (error) {
      wire.fail(error);
      this.say(false, 0, error.message);
    }
  }

  async request() {
    const cents = this.amount();
    if (cents !== null)
      await this.send("/requests", this.transfer(cents), {
        title: `${this.name} asks ${this.other.name} for ${euros(cents)}`,
        done: () => `Asked ${this.other.name} for ${euros(cents)}`,
      });
  }

  async send(path, body, { ifMatch, title, done = (reply) => `Paid, version ${reply.version}` } = {}) {
    const key = newKey();
    this.say("pending", 0, "Sent, waiting for the reply");
    const wire = begin({ payer: this.id, path, body, key, ifMatch, title: title ?? `${this.name} answers` });
    const retry = ({ attempts, why, took }) => {
      // A gateway that died says nothing. The module asks the next, under the same key.
      const isAnswer = /^\d/.test(why);
      wire.retry({ attempts, why: isAnswer ? why : "no gateway answers" });
      const reason = isAnswer ? `${why} (in ${duration(took)})` : "no gateway answers";
      this.say("pending", 0, `Try ${attempts + 1}: ${reason}. Same key, so it is paid once.`);
    };
    try {
      const reply = await command(this.urls(path), { body, key, ifMatch, retry, timeout: COMMAND_MS });
      const took = wire.end(reply);
      this.tell(reply, { ifMatch, done, took });
      if (reply.attempts > 1) wire.records().then((records) => this.sent(reply, records, done));
      return reply;
    } catch (error) {
      wire.fail(error);
      this.say(false, 0, error.message);
    }
  }

  /** After several tries: how often the command was sent, the log says by the records of its key. */
  sent(reply, records, done) {
    if (!reply.ok || !records) return;
    const times = records === 1 ? "sent once" : `sent ${records} times, applied once`;
    this.say(true, reply.status, `${times}, ${reply.attempts} tries. ${done(reply.body)}.`);
    this.part("message").dataset.records = records;
  }

  tell({ ok, status, body }, { ifMatch, done, took } = {}) {
    if (Number.isInteger(body?.balance_cents) && ok) this.learn(body.balance_cents, body.version);
    if (ok) return this.say(true, status, `${done(body)} in ${duration(took)}.`);
    const hint =
      status === 409 && Number.isInteger(body?.balance_cents)
        ? `There is ${euros(body.balance_cents)}.`
        : status === 412
          ? `Meant for version ${ifMatch}, but it is ${body.version}.`
          : (body?.detail ?? "");
    this.say(false, status, `${body?.title ?? "Refused"}. ${hint}`);
  }

  say(ok, status, text) {
    const message = this.part("message");
    message.replaceChildren(...(status ? [element("strong", { text: `${status} ` })] : []), text);
    Object.assign(message.dataset, { ok: String(ok), status, old: "false" });
    delete message.dataset.records;
    clearTimeout(this.fading);
    if (ok !== "pending") this.fading = setTimeout(() => (message.dataset.old = "true"), MESSAGE_MS);
  }
}
