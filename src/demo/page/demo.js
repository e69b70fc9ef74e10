// The demo's page: Ana and Bo, the wire between them, and the buttons that kill gateways and stop
// Kafka. The page's own server is only asked where things are, and to disturb them.

import { Person } from "./person.js";
import { PEOPLE, $, count, duration, portOf, seconds } from "./kit.js";
import { drawWire } from "./wire.js";

const WATCH_EVERY = 700;
let place = await (await fetch("demo.json", { cache: "no-store" })).json();
const urls = place.gateways.map((gateway) => gateway.url);
const busy = new Set(); // What is being killed or stopped.

// Ana's list of gateways begins with the first, Bo's with the second: the streams start apart.
const people = PEOPLE.map((who, n) => new Person(who, n ? [...urls].reverse() : urls));
const [ana, bo] = people;
$("people").prepend(ana.root);
$("people").append(bo.root);
$("kafka").textContent = place.kafka;

const chips = place.gateways.map(({ url }, n) => {
  const chip = $("gateway").content.firstElementChild.cloneNode(true);
  chip.id = `gateway-${n + 1}`;
  chip.querySelector("[data-role=port]").textContent = portOf(url);
  const button = chip.querySelector("[data-role=kill]");
  button.id = `kill-${n + 1}`;
  button.setAttribute("aria-label", `Kill the gateway at ${portOf(url)}`);
  button.addEventListener("click", () => kill([n]));
  $("controls").insertBefore(chip, $("kill-all"));
  return chip;
});
$("kill-all").addEventListener("click", () => kill([0, 1]));
$("broker-switch").addEventListener("click", () => switchBroker());
$("watch").addEventListener("change", () => watch($("watch").checked));

function say(headline, subline, state = "calm") {
  $("headline").textContent = headline;
  $("subline").textContent = subline;
  $("story").dataset.state = state;
}

const TEXT = {
  apart: () => "run apart",
  gone: () => "the demo has ended",
  up: ({ pid }) => `pid ${pid}`,
};

function show(about) {
  place = about;
  const isStopped = about.broker === "stopped";
  about.gateways.forEach((gateway, n) => {
    const { state, pid } = busy.has(n) && gateway.state === "up" ? { state: "killing" } : gateway;
    chips[n].dataset.state = state;
    chips[n].dataset.pid = pid ?? "";
    chips[n].querySelector("[data-role=pid]").textContent =
      TEXT[state]?.(gateway) ?? { killing: "killed", down: "killed", starting: "starting" }[state];
    chips[n].querySelector("[data-role=restarts]").textContent =
      state === "up" && gateway.restarts ? ` · ${count(gateway.restarts, "restart")}` : "";
    chips[n].querySelector("button").disabled =
      !about.can_disturb || busy.size > 0 || isStopped || state !== "up";
  });
  $("kill-all").disabled =
    !about.can_disturb || busy.size > 0 || isStopped || about.gateways.some((g) => g.state !== "up");
  $("broker").dataset.state = about.broker;
  $("broker-switch").textContent = isStopped ? "Start" : "Stop";
  $("broker-switch").className = isStopped ? "primary" : "danger";
  $("broker-switch").disabled = !about.can_disturb || busy.size > 0;
  $("watch").disabled = !about.can_disturb;
  showWatchers(about.watchers);
}

/** Shows the parts as they are, whoever kills them: this page, or somebody at a terminal. */
async function follow() {
  for (;;) {
    const answer = await fetch("demo.json", { cache: "no-store" }).catch(() => null);
    const about = answer?.ok ? await answer.json().catch(() => null) : null;
    const gone = { state: "gone" };
    show(about ?? { ...place, can_disturb: false, gateways: place.gateways.map(() => gone) });
    if (place.broker === "stopped" || people.some((person) => person.age)) {
      await Promise.all(people.map((person) => person.showAge()));
    }
    await new Promise((done) => setTimeout(done, WATCH_EVERY));
  }
}

const post = async (path) => {
  const answer = await fetch(path, { method: "POST" });
  const result = await answer.json();
  if (!answer.ok) throw new Error(result.detail ?? `status ${answer.status}`);
  return result;
};
const totals = () =>
  people.reduce(
    (sum, p) => ({ events: sum.events + p.count, missing: sum.missing + p.holes, twice: sum.twice + p.repeats }),
    { events: 0, missing: 0, twice: 0 },
  );

/** Kills gateways, and says in numbers what both streams have seen of it. */
async function kill(places) {
  const before = totals();
  const ports = places.map((n) => portOf(urls[n]));
  places.forEach((n) => busy.add(n));
  people.forEach((person) => (person.moved = null));
  delete $("story").dataset.nothingMissed;
  show(place);
  say(
    `Killed ${ports.join(" and ")} with −9.`,
    places.length > 1
      ? "No gateway is left. Pay now: the payment waits, and is sent once."
      : `Its stream moves to the other gateway. Ana and Bo go on paying, straight through Kafka.`,
    "killed",
  );
  try {
    const path = places.length > 1 ? "gateways/kill" : `gateways/${places[0] + 1}/kill`;
    const { restarts } = await post(path);
    const away = Math.max(...restarts.map((restart) => restart.away_ms));
    const isCurrent = (await Promise.all(people.map((person) => person.isCurrent()))).every(Boolean);
    const after = totals();
    const events = after.events - before.events;
    const missing = after.missing - before.missing;
    const twice = after.twice - before.twice;
    const moves = people.filter((person) => person.moved);
    const told = moves.map(
      ({ name, moved: { to, after } }, n) =>
        `${name}'s ${n ? "" : "stream went on "}at ${portOf(to)} after ${duration(after)}`,
    );
    const verdict = isCurrent ? "" : " A query knows more than the streams told.";
    $("story").dataset.nothingMissed = String(missing === 0 && isCurrent);
    say(
      `Killed with −9. Back after ${seconds(away)}. ${count(events, "event")} meanwhile. ` +
        `${missing} missing, ${twice} twice.`,
      `${told.join(", ") || "No stream was at this gateway"}.${verdict}`,
      missing === 0 && isCurrent ? "good" : "bad",
    );
  } catch (error) {
    $("story").dataset.nothingMissed = "false";
    say("The gateway could not be started again.", error.message, "bad");
  }
  busy.clear();
}

/** Stops Kafka, or starts it again. */
async function switchBroker() {
  const isStopped = place.broker === "stopped";
  busy.add("broker");
  try {
    show(await post(isStopped ? "broker/start" : "broker/stop"));
    if (isStopped) say("Kafka is back.", "Payments that waited go through now, each once.", "good");
    else
      say(
        "Kafka is stopped. Balances still answer, with their age.",
        "A payment is refused within a second: nothing was appended, so the page may try again.",
        "killed",
      );
  } catch (error) {
    say("Kafka could not be switched.", error.message, "bad");
  }
  busy.delete("broker");
}

async function watch(isOn) {
  $("watchers").dataset.on = String(isOn);
  await post(isOn ? "watchers/start" : "watchers/stop").catch((error) => {
    say("The watchers could not be switched.", error.message, "bad");
  });
}

function showWatchers(watchers) {
  const isOn = Boolean(watchers);
  if (document.activeElement !== $("watch")) $("watch").checked = isOn;
  $("watchers").dataset.on = String(isOn);
  Object.assign($("watchers").dataset, {
    connected: watchers?.connected ?? 0,
    missing: watchers?.missing ?? "",
    twice: watchers?.twice ?? "",
  });
  $("watch-text").textContent = watchers
    ? `${watchers.connected.toLocaleString("en")} watchers`
    : "1,000 watchers";
  $("missed").textContent = watchers ? `${watchers.missing} / ${watchers.twice}` : "–";
  const number = (value, unit) => (value == null ? "–" : `${value} ${unit}`);
  const ms = (us) => (us == null ? null : (us / 1000).toFixed(us < 10_000 ? 1 : 0));
  $("p50").textContent = number(ms(watchers?.p50_us), "ms");
  $("p99").textContent = number(ms(watchers?.p99_us), "ms");
  $("cpu").textContent = number(watchers?.cpu_us_per_event?.toFixed(1), "µs");
  $("rate").textContent = watchers ? Math.round(watchers.events_per_s).toLocaleString("en") : "–";
}

drawWire(place);
show(place);
people.forEach((person) => person.follow());
follow();
