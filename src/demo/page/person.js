// One person of the demo's page: a stream to follow, and commands to send. Everything shown comes
// from the gateway.

import { stream, command, newKey } from "./sluicegate.js";

export const PEOPLE = [
  { id: "ana", name: "Ana", tint: "#b4467f" },
  { id: "bo", name: "Bo", tint: "#2f6fb5" },
];
const LOG_ROWS_MAX = 50;
export const $ = (id) => document.getElementById(id);
const money = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });
const euros = (cents) => money.format(cents / 100);
const nameOf = (id) => PEOPLE.find((p) => p.id === id)?.name ?? id[0].toUpperCase() + id.slice(1);
const short = (id) => (id.length > 18 ? `${id.slice(0, 8)}…${id.slice(-8)}` : id);
export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
export const element = (tag, { text, ...rest } = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), rest);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
};

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
  constructor({ id, name, tint }, gateway) {
    Object.assign(this, { id, name, gateway });
    this.first = this.last = 0; // Numbers of the oldest and newest event.
    this.count = 0; // Events shown, each once.
    this.holes = 0; // Numbers that never came.
    this.repeats = 0; // Events that came again, with the number they had.
    this.cents = this.version = this.told = null; // Told: the version by the stream alone.
    this.resumeFrom = null;
    this.root = $("person").content.firstElementChild.cloneNode(true);
    this.root.id = id;
    this.root.dataset.account = id;
    this.root.style.setProperty("--tint", tint);
    this.root.setAttribute("aria-label", name);
    this.root.querySelector("h2").textContent = name;
    this.root.querySelector(".avatar").textContent = name[0];
    this.part("check").textContent = "";
    this.other = PEOPLE.find((p) => p.id !== id);
    this.part("pay").textContent = `Pay ${this.other.name}`;
    this.part("request").textContent = `Ask ${this.other.name}`;
    this.part("form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.pay();
    });
    this.part("request").addEventListener("click", () => this.request());
    this.part("stale").addEventListener("click", () => this.pay({ ifMatch: this.version - 1 }));
    this.part("overdraft").addEventListener("click", () => this.pay({ cents: this.cents + 1 }));
    this.part("twice").addEventListener("click", () => this.payTwice());
    this.mark();
    $("people").append(this.root);
  }

  part(role) {
    return this.root.querySelector(`[data-role="${role}"]`);
  }
  url(path) {
    return `${this.gateway}/accounts/${this.id}${path}`;
  }

  follow() {
    this.stream = stream(this.url("/events"), {
      event: (data) => this.on(data),
      gap: (gap) => this.onGap(gap),
      state: (state, { resumedFrom }) => this.onState(state, resumedFrom),
    });
  }

  onState(state, resumedFrom) {
    this.root.dataset.state = state;
    this.part("state").textContent = {
      open: "live",
      waiting: "stream lost, waiting",
      connecting: "connecting",
      closed: "closed",
    }[state];
    // The stream may have nothing to tell for long; what the account is now, a query knows.
    if (state === "open" && this.version === null) this.look();
    if (state === "waiting")
      this.lostAt ??= {
        event: this.last,
        count: this.count,
        holes: this.holes,
        repeats: this.repeats,
      };
    if (state === "open" && this.lostAt && resumedFrom) {
      this.resumeFrom = { ...this.lostAt, id: resumedFrom };
      this.lostAt = null;
      // Catching up needs one round trip; what comes after a moment is news, not the past.
      clearTimeout(this.settle);
      this.settle = setTimeout(() => this.settled(), 1500);
      this.resumed();
    } else if (state === "open") this.lostAt = null;
  }

  /** What came since the stream was lost, by the numbers of the events. */
  sinceLost() {
    const was = this.resumeFrom;
    return {
      was,
      came: this.count - was.count,
      missed: this.holes - was.holes,
      again: this.repeats - was.repeats,
    };
  }

  /** Says how the stream went on. `isCurrent`: a fresh query agrees, or not; null: not asked. */
  resumed(isCurrent = null) {
    const { was, came, missed, again } = this.sinceLost();
    const line = this.part("resume");
    const range =
      came === 0
        ? `no event meanwhile, the last one is still #${was.event}`
        : `${count(came, "event")} caught up, #${was.event + 1} to #${this.last}`;
    const twice = again ? `; ${again} came twice and was told by its number` : "";
    const verdict = missed
      ? `${count(missed, "event")} missing. `
      : { true: "Resumed, nothing missed. ", false: "A query knows more. ", null: "Resumed. " }[
          isCurrent
        ];
    line.replaceChildren(
      element("strong", { text: verdict }),
      `From id ${short(was.id)}: ${range}${twice}.`,
    );
    line.title = was.id;
    line.hidden = false;
    Object.assign(line.dataset, { events: came, fromId: was.id });
    if (isCurrent === null) delete line.dataset.nothingMissed;
    else line.dataset.nothingMissed = String(missed === 0 && isCurrent);
  }

  /** The stream had its time to catch up: asks a query whether it did. */
  async settled() {
    const isCurrent = await this.isCurrent();
    if (!this.resumeFrom) return;
    this.resumed(isCurrent);
    const { came, missed } = this.sinceLost();
    this.root.dataset.resumed = String(Number(this.root.dataset.resumed ?? 0) + 1);
    this.resumeFrom = null;
    const detail = { person: this, came, missed, isCurrent };
    document.dispatchEvent(new CustomEvent("resumed", { detail }));
  }

  /** Asks a query for the account as it is. */
  async look() {
    const answer = await fetch(this.url("")).catch(() => null);
    if (!answer?.ok) return;
    const { balance_cents, version } = await answer.json();
    this.told ??= version;
    this.learn(balance_cents, version);
    this.mark();
  }

  /** Whether the stream tells all that a query knows now: numbers show no missing end. */
  async isCurrent() {
    let known = null;
    for (let attempt = 0; attempt < 30; attempt++) {
      if (known === null) {
        const answer = await fetch(this.url(""), { cache: "no-store" }).catch(() => null);
        if (answer?.ok) known = (await answer.json()).version;
      }
      if (known !== null && known <= this.told) return true;
      await new Promise((done) => setTimeout(done, 100));
    }
    return false;
  }

  on(event) {
    if (event.event <= this.last) {
      this.repeats += 1;
      this.mark();
      return;
    }
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
    if (this.resumeFrom) this.resumed();
    this.mark();
  }

  onGap(gap) {
    const row = element(
      "li",
      {},
      element("span", {
        className: "gap",
        text:
          `Gap in partition ${gap?.partition}: ${gap?.reason ?? "unknown"}, ` +
          `offsets ${gap?.from} to ${gap?.to}`,
      }),
    );
    row.dataset.kind = "gap";
    this.part("log").prepend(row);
  }

  /** The newest balance and version: from the stream, or from a reply that was quicker. */
  learn(cents, version) {
    if (version < this.version) return;
    const balance = this.part("balance");
    if (this.cents !== null && cents !== this.cents) {
      balance.classList.remove("up", "down");
      void balance.offsetWidth; // Starts the animation anew.
      balance.classList.add(cents > this.cents ? "up" : "down");
    }
    Object.assign(this, { cents, version });
    balance.textContent = euros(cents);
    this.part("version").textContent = version;
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
    const again = this.repeats ? `, ${this.repeats} came twice` : "";
    this.part("check").textContent =
      this.count === 0
        ? ""
        : this.holes
          ? `${this.holes} missing${again}`
          : `#${this.first}–#${this.last}, none missing${again}`;
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
    if (sign) sum.append(element("small", { text: `= ${euros(event.balance_cents)}` }));
    const when = new Date(event.at_ms).toLocaleTimeString();
    const what = element(
      "span",
      { className: "what", text: (SAYS[event.kind] ?? (() => event.kind))(event) },
      element("small", { text: event.note ? `${event.note} · ${when}` : when }),
    );
    const row = element(
      "li",
      { className: "new" },
      element("span", { className: "number", text: `#${event.event}` }),
      what,
      sum,
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
      row.querySelectorAll("button").forEach((b) => {
        b.disabled = true;
      });
      const reply = await this.send(
        "/answers",
        { request: event.id, accept },
        { done: accept ? undefined : () => `Declined ${nameOf(event.with)}'s request.` },
      );
      if (!reply?.ok)
        row.querySelectorAll("button").forEach((b) => {
          b.disabled = false;
        });
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
    await this.send("/payments", this.transfer(cents), { ifMatch });
  }

  async payTwice() {
    const cents = this.amount();
    if (cents === null) return;
    const key = newKey(),
      body = this.transfer(cents),
      before = this.cents;
    this.say("pending", 0, `Two requests at once, key ${short(key)}`);
    try {
      const options = { body, key };
      const [a, b] = await Promise.all([
        command(this.url("/payments"), options),
        command(this.url("/payments"), options),
      ]);
      if (!a.ok) return this.tell(a);
      const isSame = a.status === b.status && JSON.stringify(a.body) === JSON.stringify(b.body);
      this.learn(a.body.balance_cents, a.body.version);
      this.say(
        isSame,
        a.status,
        isSame
          ? `One key, two answers, one payment (${a.body.payment}): ` +
              `${euros(before)} − ${euros(cents)} = ${euros(a.body.balance_cents)}.`
          : `The answers differ: ${a.status} and ${b.status}.`,
      );
    } catch (error) {
      this.say(false, 0, error.message);
    }
  }

  async request() {
    const cents = this.amount();
    if (cents !== null)
      await this.send("/requests", this.transfer(cents), {
        done: () => `Asked ${this.other.name} for ${euros(cents)}.`,
      });
  }

  async send(path, body, { ifMatch, done = (reply) => `Paid, version ${reply.version}.` } = {}) {
    this.say("pending", 0, "Sent, waiting for the reply");
    try {
      const reply = await command(this.url(path), { body, ifMatch });
      this.tell(reply, { ifMatch, done });
      return reply;
    } catch (error) {
      this.say(false, 0, error.message);
    }
  }

  tell({ ok, status, body, attempts }, { ifMatch, done } = {}) {
    if (Number.isInteger(body?.balance_cents) && ok) this.learn(body.balance_cents, body.version);
    const tries = attempts > 1 ? ` It took ${attempts} tries under one key.` : "";
    if (ok) return this.say(true, status, `${done(body)}${tries}`);
    const hint =
      status === 409 && Number.isInteger(body?.balance_cents)
        ? `There is ${euros(body.balance_cents)}.`
        : status === 412
          ? `This was meant for version ${ifMatch}; the account is at version ${body.version}.`
          : (body?.detail ?? "");
    this.say(false, status, `${body?.title ?? "Refused"}. ${hint}${tries}`);
  }

  say(ok, status, text) {
    const message = this.part("message");
    message.replaceChildren(...(status ? [element("strong", { text: `${status} ` })] : []), text);
    Object.assign(message.dataset, { ok: String(ok), status });
    message.hidden = false;
  }
}
