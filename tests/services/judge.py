"""Compares the witnesses of a run of payments.py: the clients' log, both topics as librdkafka read
them, and the balances. `python3 judge.py` plants one error in a sound history after the other; each
must be found."""

import copy
from collections import defaultdict


def judge(run):
    """The anomalies of a run, and its counts.

    run: attempts (attempt, key, sent, ended, status, body), commands and replies (id, key, attempt,
    seen; id, body, status, seen), applied (correlation ids in the journal), balances by account,
    strict, first_balance.
    """
    anomalies, counts = [], defaultdict(int)
    attempts = {it["attempt"]: it for it in run["attempts"]}
    by_key, records, replies = defaultdict(list), defaultdict(list), defaultdict(list)
    for attempt in run["attempts"]:
        by_key[attempt["key"]].append(attempt)
    for record in run["commands"]:
        records[record["key"]].append(record)
    for reply in run["replies"]:
        replies[reply["id"]].append(reply)

    for key, tries in by_key.items():
        counts["commands"] += 1
        found = records.get(key, [])
        ids = {record["id"] for record in found}
        if len(ids) > 1:
            anomalies.append(("two-ids", key, ids))
        own = [reply for id in ids for reply in replies.get(id, [])]
        answers = {(it["status"], it["body"]) for it in tries if it["status"] in (200, 409)}
        if not answers:
            anomalies.append(("unknown-forever", key, tries))
        if len(answers) > 1:
            anomalies.append(("wrong-replay", key, answers))
        for answer in answers:
            if not found:
                anomalies.append(("lost-ack", key, answer))
            elif answer not in {(it["status"], it["body"]) for it in own}:
                anomalies.append(("crossed-reply", key, answer, own))
        if len({(it["status"], it["body"]) for it in own}) > 1:
            anomalies.append(("two-replies", key, own))
        one_key(key, found, own, attempts, run["strict"], anomalies, counts)
    for key in records.keys() - by_key.keys():
        anomalies.append(("phantom", key, records[key]))

    for attempt in run["attempts"]:
        counts["attempts"] += 1
        kind = {200: "answered", 409: "answered", 503: "refused", 504: "unknown"}.get(attempt["status"], "lost")
        counts[kind] += 1
        counts["replayed"] += bool(attempt.get("replayed"))
    for id, times in run["applied"].items():
        counts["applied"] += 1
        if times != 1:
            anomalies.append(("duplicate-effect", id, times))
    order(by_key, records, anomalies)
    money(run, by_key, anomalies)
    return anomalies, counts


def one_key(key, found, own, attempts, strict, anomalies, counts):
    """The records of one command."""
    counts["records"] += len(found)
    if len({record["partition"] for record in found}) > 1:
        anomalies.append(("two-partitions", key, found))
    for record in found:
        attempt = attempts.get(record["attempt"])
        if attempt is None:
            anomalies.append(("phantom", key, record))
            continue
        if attempt["status"] == 503:
            anomalies.append(("refused-and-appended", key, record, attempt))
        # What librdkafka had read when the attempt was sent was readable when it arrived.
        readable = [reply for reply in own if reply["seen"] < attempt["sent"]]
        if readable:
            anomalies.append(("appended-after-reply", key, record, attempt, readable))
    if len({record["attempt"] for record in found}) < len(found):
        anomalies.append(("one-attempt-twice", key, found))
    counts["duplicates"] += max(0, len(found) - 1)
    for record in found[1:]:
        attempt = attempts.get(record["attempt"])
        before = [it for it in found if it is not record and attempt and it["seen"] < attempt["sent"]]
        if before:
            counts["duplicates without overlap"] += 1
            if strict:
                anomalies.append(("no-overlap", key, record, attempt, before))


def order(by_key, records, anomalies):
    """A lane sends its next command when the last is answered, so within a partition the first
    record of each is behind the first record of the one before."""
    lanes = defaultdict(list)
    for key, tries in by_key.items():
        if "lane" in tries[0] and any(it["status"] in (200, 409) for it in tries):
            lanes[tries[0]["lane"]].append((tries[0]["number"], key))
    for commands in lanes.values():
        ends = {}
        for _, key in sorted(commands):
            found = records.get(key)
            if found:
                first = min(found, key=lambda record: record["offset"])
                before = ends.get(first["partition"], ("", -1))
                if first["offset"] < before[1]:
                    anomalies.append(("reordered", key, first, before))
                ends[first["partition"]] = (key, first["offset"])


def money(run, by_key, anomalies):
    """The balances that the clients' answers alone tell of."""
    expected = dict.fromkeys(run["accounts"], run["first_balance"])
    for tries in by_key.values():
        if "from" in tries[0] and any(it["status"] == 200 for it in tries):
            expected[tries[0]["from"]] -= tries[0]["amount"]
            expected[tries[0]["to"]] += tries[0]["amount"]
    for account, balance in expected.items():
        has = run["balances"].get(account, run["first_balance"])
        if has != balance:
            anomalies.append(("balance", account, f"is {has}, expected {balance}"))
    total = sum(run["balances"].get(it, run["first_balance"]) for it in run["accounts"])
    if total != run["first_balance"] * len(run["accounts"]):
        anomalies.append(("sum-of-money", total))


def sound():
    """A small history without an error: one payment with a duplicate record, and its credit."""
    pay = {"key": "p", "from": "a", "to": "b", "amount": 5, "body": "paid", "status": 200}
    pay.update(lane=0, number=0)
    refused = {"key": "n", "from": "a", "to": "b", "amount": 500, "lane": 0, "number": 1}
    return {
        "attempts": [
            {**pay, "attempt": "1", "sent": 1.0, "ended": 3.0},
            {**pay, "attempt": "2", "sent": 1.1, "ended": 3.1},
            {**pay, "attempt": "3", "sent": 4.0, "ended": 4.1, "replayed": True},
            {**refused, "attempt": "5", "sent": 4.2, "ended": 4.3, "status": 409, "body": "too much"},
            {"key": "c", "attempt": "4", "sent": 4.0, "ended": 5.0, "status": 200, "body": "credited"},
        ],
        "commands": [
            {"id": "P.F", "key": "p", "attempt": "1", "partition": 0, "offset": 0, "seen": 1.5},
            {"id": "P.F", "key": "p", "attempt": "2", "partition": 0, "offset": 1, "seen": 1.6},
            {"id": "C.F", "key": "c", "attempt": "4", "partition": 1, "offset": 0, "seen": 4.5},
            {"id": "N.F", "key": "n", "attempt": "5", "partition": 0, "offset": 2, "seen": 4.25},
        ],
        "replies": [
            {"id": "P.F", "status": 200, "body": "paid", "seen": 2.0},
            {"id": "C.F", "status": 200, "body": "credited", "seen": 4.9},
            {"id": "N.F", "status": 409, "body": "too much", "seen": 4.28},
        ],
        "applied": {"P.F": 1, "C.F": 1},
        "balances": {"a": 95, "b": 105},
        "accounts": ["a", "b"],
        "first_balance": 100,
        "strict": True,
    }


def planted():
    """Histories with one error each, and the anomaly that must be found."""

    def change(kind, does):
        run = copy.deepcopy(sound())
        does(run)
        return kind, run

    def move(run, money):
        run["balances"]["b"] += money

    attempts = lambda run: run["attempts"]
    return [
        change("lost-ack", lambda run: run.update(commands=run["commands"][2:])),
        change("unknown-forever", lambda run: [it.update(status=504) for it in attempts(run)[:3]]),
        change("wrong-replay", lambda run: attempts(run)[2].update(body="other")),
        change("crossed-reply", lambda run: [it.update(body="other") for it in attempts(run)[:3]]),
        change("two-replies", lambda run: run["replies"].append({**run["replies"][0], "body": "x"})),
        change("two-ids", lambda run: run["commands"][1].update(id="P.G")),
        change("phantom", lambda run: run["commands"].append({**run["commands"][2], "key": "x"})),
        change("refused-and-appended", lambda run: attempts(run)[1].update(status=503)),
        change("appended-after-reply", lambda run: attempts(run)[1].update(sent=2.1)),
        change("no-overlap", lambda run: attempts(run)[1].update(sent=1.55)),
        change("one-attempt-twice", lambda run: run["commands"][1].update(attempt="1")),
        change("two-partitions", lambda run: run["commands"][1].update(partition=2)),
        change("reordered", lambda run: [it.update(offset=5 + it["offset"]) for it in run["commands"][:2]]),
        change("duplicate-effect", lambda run: run["applied"].update({"P.F": 2})),
        change("balance", lambda run: run["balances"].update(a=90, b=110)),
        change("sum-of-money", lambda run: move(run, 1)),
    ]


def check_the_judge():
    """Returns how many planted errors were found. All must be, and none in the sound history."""
    anomalies, _ = judge(sound())
    assert not anomalies, anomalies
    found = 0
    for kind, run in planted():
        kinds = {it[0] for it in judge(run)[0]}
        assert kind in kinds, f"{kind} was not found: {kinds}"
        found += 1
    return found


if __name__ == "__main__":
    print(f"planted histories found: {check_the_judge()}/{len(planted())}")
