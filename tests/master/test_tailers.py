"""What the leader pushes to its standbys, and when."""

import asyncio
from collections import deque
from collections.abc import Iterator

import pytest

from gfsmaster import tailers
from gfsmaster.oplog import Batch
from gfsmaster.tailers import Tailers
from gfsmaster.term import Term
from gfsprotocol import messages as msg
from gfsprotocol.channel import SystemClock
from tests.master.leading import until


class Committed:
    """All that Tailers want of a Committer."""

    committed = 0


class Asking:
    """A standby's connection: keeps what it is answered."""

    def __init__(self) -> None:
        self.tails: list[msg.LogTail] = []

    def respond(self, _request: int, body: msg.LogTail, _sequence: int = 0) -> None:
        self.tails.append(body)

    @property
    def firsts(self) -> list[int]:
        return [batch.first for tail in self.tails for batch in tail.batches]


class Scene:
    def __init__(self) -> None:
        clock = SystemClock()
        self.committer = Committed()
        self.tailers = Tailers(self.committer, clock, Term(1, clock, bytes(32), clock.monotonic()))  # type: ignore[arg-type]
        self.standby = Asking()
        self.questions = 0

    def commit(self) -> None:
        self.committer.committed += 1
        number = self.committer.committed
        self.tailers.committed(Batch(number, number, 1, bytes(32), b"record"))

    def ask(self, after: int) -> None:
        self.questions += 1
        body = msg.TailLog("node-2", "here:1", after)
        self.tailers.ask(self.standby, msg.Request(self.questions, body, 1000), body)  # type: ignore[arg-type]


async def test_batches_that_follow_soon_are_pushed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailers, "PUSH_SECONDS", 0.2)
    scene = Scene()
    scene.ask(0)
    scene.commit()
    assert scene.standby.firsts == [1], "the first one goes at once"
    scene.ask(1)
    for _ in range(3):
        scene.commit()
    assert scene.standby.firsts == [1]
    await until(lambda: len(scene.standby.tails) == 2)
    assert scene.standby.firsts == [1, 2, 3, 4]


async def test_a_standby_gets_what_it_lacks_and_nothing_else() -> None:
    scene = Scene()
    for _ in range(5):
        scene.commit()
    await until(lambda: scene.tailers._next_push is None)
    scene.ask(3)
    assert scene.standby.firsts == [4, 5]
    scene.ask(0)
    assert scene.standby.firsts == [4, 5, 1, 2, 3, 4, 5]


async def test_what_is_not_kept_any_more_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailers, "KEPT_BYTES_MAX", 3 * len(b"record"))
    scene = Scene()
    for _ in range(5):
        scene.commit()
    await until(lambda: scene.tailers._next_push is None)
    scene.ask(1)
    assert [tail.batches for tail in scene.standby.tails] == [()], "it has to read records 2 and 3 from the log"
    scene.ask(2)
    assert scene.standby.firsts == [3, 4, 5]


async def test_what_a_standby_has_is_not_looked_through_for_what_it_lacks() -> None:
    class FromTheEnd(deque[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            raise AssertionError("batches that the standby has had long since are walked over")

    scene = Scene()
    scene.tailers._recent = FromTheEnd()
    for _ in range(5):
        scene.commit()
    await until(lambda: scene.tailers._next_push is None)
    scene.ask(3)
    assert scene.standby.firsts == [4, 5]


async def test_nothing_is_pushed_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailers, "PUSH_SECONDS", 0.01)
    scene = Scene()
    scene.ask(0)
    scene.commit()
    scene.ask(1)
    scene.commit()
    scene.tailers.close()
    await asyncio.sleep(0.03)
    assert scene.standby.firsts == [1]
