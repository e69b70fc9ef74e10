"""What a client must have received, and what it received instead."""

import collections
import json

# Where a library violates the standard (WHATWG HTML 9.2), whatever the gateway sends. An event that a
# quirk explains is left out, and each quirk must be seen as often as expected, so that the entry of a
# library that has been repaired is noticed.
EMPTY = "dispatches a block without data (`retry:` alone, a comment) as an event with empty data"
HALF = "dispatches the half of an event that was cut, although HTTP says that it was cut"
KEEPS = "keeps the whole lines of an event that was cut, and dispatches them on the next connection"


def events_of(lines, quirks):
    """The events that a client's lines show, pairs of type and data, and how often a quirk was seen."""
    events, seen = [], collections.Counter()
    for line in lines:
        event = (line["event"], line["data"])
        if EMPTY in quirks and event == ("message", ""):
            seen[EMPTY] += 1
        # `position` carries only an id. Clients with one handler for all events parse its JSON.
        elif event != ("position", "{}"):
            events.append(event)
    return events, seen


def without_halves(log, events, quirks, seen):
    """The events without the halves that a quirk explains."""
    for quirk in {HALF, KEEPS}.intersection(quirks):
        halves = [event for event in events if event not in log.partition and log.half_of(event)]
        seen[quirk] += len(halves)
        events = [event for event in events if event not in halves]
    return events


def as_shown(key, value):
    """A record as its event shows it: type and data."""
    return ("message", value) if value is not None else ("delete", json.dumps({"key": key}))


class Log:
    """The records that a client must receive, by partition."""

    def __init__(self, records):
        self.records = []
        for partition, key, value in records:
            event, data = as_shown(key, value)
            if event == "delete":
                data = json.dumps(json.loads(data), separators=(",", ":"))
            self.records.append((partition, (event, data)))
        self.partition = {event: partition for partition, event in self.records}
        assert len(self.partition) == len(self.records), "each record must be unlike all others"

    def half_of(self, event):
        """Whether an event is the beginning of a record."""
        return any(
            name == event[0] and data != event[1] and data.startswith(event[1].rstrip("\n"))
            for _, (name, data) in self.records
        )

    def order(self, events):
        """The events by partition."""
        order = {}
        for event in events:
            order.setdefault(self.partition[event], []).append(event)
        return order


def differences(log, events):
    """What differs between the log and what a client received; nothing if they are the same."""
    known = [event for event in events if event in log.partition]
    found = []
    missing = [event for _, event in log.records if event not in known]
    twice = len(known) - len(set(known))
    unknown = [event for event in events if event not in log.partition]
    halves = [event for event in unknown if log.half_of(event)]
    if missing:
        found.append(f"{len(missing)} of {len(log.records)} missing")
    if twice:
        found.append(f"{twice} twice")
    if halves:
        found.append(f"{len(halves)} half")
    if len(unknown) > len(halves):
        other = next(event for event in unknown if event not in halves)
        found.append(f"{len(unknown) - len(halves)} not in the log ({other[0]}: {other[1][:40]!r})")
    if not found and log.order(known) != log.order([event for _, event in log.records]):
        found.append("order")
    return found


def snapshot(of_keys, log, events):
    """A snapshot that was cut, whole afterwards, and then exactly the log.

    What came before the cut does not count (docs/http.md, "Starts"); it must be whole records all the
    same, and the snapshot must not come a third time.
    """
    of_snapshot = [event for event in events if event in of_keys.partition]
    rest = [event for event in events if event not in of_keys.partition]
    count = len(of_keys.records)
    first, second = of_snapshot[: max(len(of_snapshot) - count, 0)], of_snapshot[-count:]
    found = []
    if len(first) >= count:
        found.append(f"the snapshot again ({len(of_snapshot)} events, not {count})")
    elif len(set(first)) != len(first):
        found.append(f"{len(first) - len(set(first))} twice before the cut")
    elif len(set(second)) != count:
        found.append(f"{count - len(set(second))} of {count} keys missing")
    halves = [event for event in rest if event not in log.partition and of_keys.half_of(event)]
    if halves:
        found.append(f"{len(halves)} half")
    found += differences(log, [event for event in rest if event not in halves])
    if not found and events[-len(rest) :] != rest:
        found.append("a snapshot's event behind the log's")
    return found
