"""Bugs that are planted, one by one: the simulation finds each of them within a bounded number of seeds."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gfsmaster.changes import Changes
from gfsmaster.leader import Leader
from gfsmaster.oplog import Batch
from gfsprotocol import messages as msg
from gfsprotocol.errors import LogFailed, LogLocked
from gfsstandby.node import Node
from tests.simulation.faults import ALL
from tests.simulation.journal import SimulatedJournal
from tests.simulation.world import Plant, World, simulate

pytestmark = pytest.mark.slow
SEEDS_MAX = 60


def finds(*invariants: str, plant: Plant | None = None, kinds: tuple[str, ...] = ALL, **settings: object) -> None:
    """Some of the first seeds break one of these; others may meet other consequences of the same bug."""
    broken: Counter[str] = Counter()
    for seed in range(SEEDS_MAX):
        report = simulate(seed, kinds, plant, **settings)
        if report.violation is not None:
            broken[report.violation.invariant] += 1
            if report.violation.invariant in invariants:
                return
    pytest.fail(f"{SEEDS_MAX} seeds do not find the planted bug: {dict(broken)}", pytrace=False)


def test_a_journal_that_does_not_check_the_epoch() -> None:
    def plant(world: World) -> None:
        world.log.is_fenced = False

    finds("epochs only rise", "one writer per epoch", "one append per place", plant=plant)


def test_a_leader_that_forgets_the_calls_that_leaders_before_it_have_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[Changes, set[tuple[bytes, int]]] = {}
    original = Changes.known_result

    def known(self: Changes, client: bytes, call: msg.Call | None) -> msg.ReplyBody | None:
        result = original(self, client, call)
        assert call is not None
        mine = made.setdefault(self, set())
        if (client, call.number) in mine:
            return result
        mine.add((client, call.number))
        return None

    monkeypatch.setattr(Changes, "known_result", known)
    kinds = ("crash", "crash_at_commit", "drop_answers")
    finds("exactly once", kinds=kinds)


def test_a_leader_that_acknowledges_before_the_commit() -> None:
    kinds = ("crash", "crash_at_commit", "journal_slow")
    finds("no acknowledged write is lost", kinds=kinds, acknowledge="early")


def test_a_new_leader_that_does_not_read_the_log_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leads with what the old leader has pushed to it."""

    async def nothing() -> int:
        return 0

    def without_reading(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def hasty(self: Node, *arguments: object) -> object:
            follower = self.follower
            if follower.is_ready:
                vars(follower)["catch_up"] = nothing
            try:
                return await original(self, *arguments)
            finally:
                vars(follower).pop("catch_up", None)

        return hasty

    monkeypatch.setattr(Node, "_look", without_reading(Node._look))
    monkeypatch.setattr(Node, "_lead", without_reading(Node._lead))
    finds("one append per place")


def test_a_leader_that_answers_reads_after_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "is_valid", property(lambda self: not self._ended.done()))
    finds("reads and refusals", "registers are linearizable", kinds=("partition", "journal_hangs"))


def test_an_append_of_unknown_outcome_that_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = SimulatedJournal.append

    async def insistent(self: SimulatedJournal, batch: Batch, previous: bytes) -> None:
        try:
            await original(self, batch, previous)
        except LogLocked:
            raise
        except LogFailed:
            await original(self, batch, previous)

    monkeypatch.setattr(SimulatedJournal, "append", insistent)
    finds("one append per place")
