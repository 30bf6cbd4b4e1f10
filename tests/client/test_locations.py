"""What is known of a file's chunks, while other threads learn something else: never a hole where there is data."""

from collections.abc import Callable

import pytest

from gfsclient import locations
from gfsclient.locations import ChunkMap
from gfsclient.servers import Servers
from gfsprotocol.messages import Attributes, ChunkLocation, Locate, Locations

CHUNK = 1 << 20


class AnsweringCore:
    """Answers Locate for a file that is all data."""

    def __init__(self, size: int) -> None:
        self.servers = Servers()
        self.size = size

    def located(self, first: int, count: int) -> Locations:
        attributes = Attributes(2, 0o100644, 1, 0, 0, self.size, 0, 0, 0, 3, CHUNK, 0)
        indexes = range(first, min(first + count, -(-self.size // CHUNK)))
        return Locations(attributes, tuple(ChunkLocation(n, 100 + n, 1, CHUNK, (1,), b"") for n in indexes), ())

    def call(self, body: Locate, _kind: type, _deadline: float | None = None, _at_leader: bool = False) -> Locations:
        return self.located(body.first, body.count)


class LeftLock:
    """A lock behind which another thread gets its turn at once."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        then, self.then = self.then, lambda: None
        then()


def test_what_another_thread_learns_meanwhile_makes_no_hole() -> None:
    core = AnsweringCore(40 * CHUNK)
    chunks = ChunkMap(core, core.located(0, 1))  # type: ignore[arg-type]
    grown = AnsweringCore(41 * CHUNK).located(0, 1)
    chunks._lock = LeftLock(lambda: chunks._learn(grown))  # type: ignore[assignment]
    assert chunks.find(20).chunk == 120


def test_what_was_just_learned_is_not_what_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "CHUNKS_KEPT_MAX", 16)
    core = AnsweringCore(200 * CHUNK)
    chunks = ChunkMap(core, core.located(15, 1))  # type: ignore[arg-type]
    chunks.find(186)
    assert list(chunks._known) == [15, *range(186, 200)]
    assert chunks.refresh(15).chunk == 115  # with all that stand behind it
    assert list(chunks._known) == list(range(15, 31))
