// The demo's page: Ana and Bo side by side, and the button that kills the gateway. The page's own
// server is only asked where the gateway is, and to kill it.

import { PEOPLE, Person, $, count, element } from "./person.js";

const WATCH_EVERY = 1000;
let restarting = false;

function showGateway({ state, pid, restarts }) {
  $("gateway").dataset.state = state;
  $("gateway").dataset.pid = pid ?? "";
  $("restart").disabled = state === "gone";
  const starts = restarts ? `, restarted ${restarts === 1 ? "once" : `${restarts} times`}` : "";
  $("gateway-text").textContent =
    state === "up"
      ? `Gateway up, pid ${pid}${starts}`
      : state === "apart"
        ? "Gateway run apart"
        : state === "gone"
          ? "The demo has ended"
          : `Gateway ${state}`;
}

/** Shows the gateway as it is, whoever kills it: this page, or somebody at a terminal. */
async function watch() {
  for (;;) {
    await new Promise((done) => setTimeout(done, WATCH_EVERY));
    const answer = await fetch("demo.json", { cache: "no-store" }).catch(() => null);
    const place = answer?.ok ? await answer.json().catch(() => null) : null;
    if (!restarting) showGateway(place ?? { state: "gone" });
  }
}

/** Kills the gateway, waits for the new one, and gathers what both streams say of it. */
async function restart(people) {
  const button = $("restart"),
    notice = $("restart-result");
  button.disabled = restarting = true;
  $("gateway").dataset.state = "killing";
  $("gateway-text").textContent = "Gateway killed, starting again";
  notice.hidden = false;
  delete notice.dataset.nothingMissed;
  notice.replaceChildren(
    element("strong", { text: "kill −9" }),
    element("span", {
      text: "Meanwhile Ana and Bo pay each other a little, straight through Kafka.",
    }),
  );
  const waiting = new Map(people.map((p) => [p, null]));
  const onResumed = ({ detail }) => {
    waiting.set(detail.person, detail);
    const all = [...waiting.values()];
    if (all.includes(null)) return;
    document.removeEventListener("resumed", onResumed);
    const holes = all.reduce((sum, r) => sum + r.missed, 0);
    const isWhole = holes === 0 && all.every((r) => r.isCurrent);
    const each = all.map((r) => `${r.person.name} caught up on ${count(r.came, "event")}`);
    const proof = isWhole
      ? "Each stream went on from its last event id: the numbers of the events show no hole, " +
        "and a fresh query knows nothing newer."
      : holes
        ? `${count(holes, "event")} missing, by their numbers.`
        : "A query knows a newer balance than the stream told.";
    notice.dataset.nothingMissed = String(isWhole);
    notice.replaceChildren(
      element("strong", { text: isWhole ? "Back, and nothing missed" : "Back, but not all came" }),
      element("span", { text: `${each.join(", ")}. ${proof}` }),
    );
  };
  document.addEventListener("resumed", onResumed);
  try {
    const answer = await fetch("gateway/restart", { method: "POST" });
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.detail ?? `status ${answer.status}`);
    showGateway({ state: "up", ...result });
    notice.lastElementChild.textContent =
      `Process ${result.killed_pid} is gone; process ${result.pid} was ready ` +
      `${result.away_ms} ms later. The streams come back by themselves.`;
  } catch (error) {
    document.removeEventListener("resumed", onResumed);
    notice.dataset.nothingMissed = "false";
    notice.replaceChildren(
      element("strong", { text: "The gateway could not be restarted" }),
      element("span", { text: error.message }),
    );
    $("gateway").dataset.state = "down";
  }
  button.disabled = restarting = false;
}

const place = await (await fetch("demo.json")).json();
$("kafka").textContent = place.kafka;
$("address").textContent = place.gateway;
showGateway(place);
const people = PEOPLE.map((who) => new Person(who, place.gateway));
people.forEach((person) => person.follow());
$("restart").hidden = !place.can_restart;
$("restart").addEventListener("click", () => restart(people));
watch();
