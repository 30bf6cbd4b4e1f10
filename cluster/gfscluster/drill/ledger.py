"""The ledger of a drill, and what it proves: pure.

A writer notes each call before it is made and when it is answered. Names and values are unique, each name is used by
one writer, and a writer makes one call after the other; so what a name or a counter must be at the end follows from the
ledger alone, except where a call's outcome is unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Outcome(StrEnum):
    """How a call ended, as its caller knows."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    """By a deterministic error: it must have had no effect."""
    UNKNOWN = "unknown"
    """No answer until the deadline: it may have had its effect or not."""


class Fault(StrEnum):
    """What must not happen."""

    LOST = "lost"
    TWICE = "twice"
    REFUSED_BUT_APPLIED = "refused_but_applied"
    BACKWARDS = "backwards"
    TWO_LEADERS = "two_leaders"
    DATA = "data"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, for people."""

    fault: Fault
    text: str


@dataclass(slots=True)
class Call:
    """One call. Times are monotonic seconds of the drill's process."""

    client: int
    kind: str
    started: float
    ended: float = 0.0
    outcome: Outcome = Outcome.UNKNOWN
    effects: tuple[tuple[str, bool], ...] = ()
    """Names, and whether they exist if it was carried out."""
    counter: str = ""
    value: int = 0
    """What a counter was set to, or what was read from it."""
    reads: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class LogRow:
    """A row of the operation log: its epoch, the epochs that begin in it, and the calls that it carries out."""

    first: int
    epoch: int
    begun: tuple[int, ...]
    calls: tuple[tuple[bytes, int], ...]


@dataclass(slots=True)
class _Name:
    exists: bool | None = None
    """None: not known."""
    by: Call | None = None
    refused: list[Call] = field(default_factory=list)
    """Since then: calls that would have changed it."""


def check_names(calls: Sequence[Call], present: AbstractSet[str]) -> list[Finding]:
    """Compares the names that exist with what the ledger, in order per writer, says of them."""
    names: dict[str, _Name] = {}
    for call in calls:
        for name, exists in call.effects:
            known = names.setdefault(name, _Name(exists=False))
            if call.outcome is Outcome.ACKNOWLEDGED:
                names[name] = _Name(exists, call)
            elif call.outcome is Outcome.UNKNOWN:
                known.exists = None
            else:
                known.refused.append(call)
    findings = [_judge(name, known, present) for name, known in names.items()]
    strangers = [Finding(Fault.TWICE, f"{name}: is there, and nobody made it") for name in sorted(present - set(names))]
    return [finding for finding in findings if finding is not None] + strangers


def _judge(name: str, known: _Name, present: AbstractSet[str]) -> Finding | None:
    is_present = name in present
    if known.exists is None or known.exists == is_present:
        return None
    there = "is there" if is_present else "is not there"
    for call in known.refused:
        if all((other in present) == exists for other, exists in call.effects):
            return Finding(Fault.REFUSED_BUT_APPLIED, f"{name}: {call.kind} was refused ({call.error}), but it {there}")
    what = f"{known.by.kind} was acknowledged" if known.by is not None else "no call was acknowledged"
    return Finding(Fault.LOST, f"{name}: {what}, but it {there}")


def check_counters(calls: Sequence[Call], final: Mapping[str, int]) -> list[Finding]:
    """Compares the counters' values with the ledger. Each counter only rises, and is set by one writer."""
    found = []
    last: dict[str, int] = {}
    possible: dict[str, set[int]] = {}
    refused: dict[str, set[int]] = {}
    for call in calls:
        if not call.counter or call.reads:
            continue
        if call.outcome is Outcome.ACKNOWLEDGED:
            last[call.counter] = call.value
            possible[call.counter] = {call.value}
        elif call.outcome is Outcome.UNKNOWN:
            possible.setdefault(call.counter, {0}).add(call.value)
        else:
            refused.setdefault(call.counter, set()).add(call.value)
    for counter in sorted(possible.keys() | refused.keys()):
        value = final.get(counter, 0)
        if value in possible.get(counter, {0}):
            continue
        fault = Fault.REFUSED_BUT_APPLIED if value in refused.get(counter, set()) else Fault.LOST
        found.append(Finding(fault, f"{counter}: is {value}, the last acknowledged was {last.get(counter, 0)}"))
    return found


def check_reads(calls: Iterable[Call]) -> list[Finding]:
    """No read may see less than what was acknowledged, or seen by anyone, before the read began."""
    moments: dict[str, list[tuple[float, int, Call]]] = {}
    for call in calls:
        if not call.counter or call.outcome is not Outcome.ACKNOWLEDGED:
            continue
        known = moments.setdefault(call.counter, [])
        known.append((call.ended, 0, call))
        if call.reads:
            known.append((call.started, 1, call))
    found = []
    for counter, events in moments.items():
        floor = 0
        floors: dict[int, int] = {}
        for _, begins, call in sorted(events, key=lambda event: event[:2]):
            if begins:
                floors[id(call)] = floor
            else:
                if call.reads and call.value < floors.get(id(call), 0):
                    found.append(
                        Finding(Fault.BACKWARDS, f"{counter}: read {call.value} after {floors[id(call)]} was known")
                    )
                floor = max(floor, call.value)
    return found


def check_log(rows: Iterable[LogRow]) -> list[Finding]:
    """Epochs never fall and begin once, and no call is carried out by two records."""
    found = []
    epoch = 0
    begun: set[int] = set()
    done: dict[tuple[bytes, int], int] = {}
    for row in rows:
        if row.epoch < epoch:
            text = f"record {row.first} is of epoch {row.epoch}, after epoch {epoch}"
            found.append(Finding(Fault.TWO_LEADERS, text))
        for number in row.begun:
            if number in begun or number != row.epoch:
                found.append(Finding(Fault.TWO_LEADERS, f"record {row.first} begins epoch {number} a second time"))
            begun.add(number)
        for call in row.calls:
            if call in done:
                client, number = call
                text = f"call {number} of client {client.hex()}: in records {done[call]} and {row.first}"
                found.append(Finding(Fault.TWICE, text))
            done[call] = row.first
        epoch = max(epoch, row.epoch)
    return found


FAULTS: Final = tuple(Fault)
