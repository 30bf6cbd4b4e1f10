"""A disk under a crash at every boundary: what was promised is there, and nothing else is ever taken for data."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gfschunkserver.disk import Disk
from gfschunkserver.replica import Replica
from gfsprotocol import messages as m
from gfsprotocol.checksums import segment_digests
from gfsprotocol.ids import BLOCK_BYTES, KIB
from tests.chunkserver.crashfiles import (
    Crashed,
    CrashFiles,
    Survival,
    anything_survives,
    everything_survives,
    nothing_survives,
)

CLUSTER = b"cluster-of-tests"
ROOT = Path("/disk")
CHUNK_BYTES = 4 * BLOCK_BYTES
SEGMENT_BYTES = 48 * KIB

pytestmark = [pytest.mark.slow]


@pytest.fixture(autouse=True)
def _losses_are_expected(expected_logs: Callable[..., None]) -> None:
    expected_logs("were not synced and are lost")


Operation = tuple[str, int, int, int, bool]
"""(kind, chunk, offset or length, size, sync)"""


def open_disk(files: CrashFiles, segment_bytes: int = SEGMENT_BYTES) -> Disk:
    disk = Disk(files, ROOT, segment_bytes, 0)
    disk.lock()
    disk.adopt(CLUSTER, 1, 0)
    disk.recover()
    assert not disk.failed, disk.failed
    return disk


def a_grant(chunk: int, version: int = 1) -> m.Grant:
    return m.Grant(chunk, 0, version, 5, 0, CHUNK_BYTES, -1, 1, 0, 0, ())


@dataclass
class Expected:
    """What may be found of one chunk."""

    content: bytes = b""
    version: int = 1
    promised: int = 0
    """Bytes of ``content`` that survive anything."""
    exists: bool = False
    durable: bool = False
    """Whether its existence, or its absence, was promised."""


@dataclass
class Model:
    """All chunks as acknowledged, and the one that was being changed when the crash came."""

    chunks: dict[int, Expected] = field(default_factory=dict)
    doing: tuple[int, Expected] | None = None


def payload(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put(replica: Replica, offset: int, data: bytes, sync: bool) -> None:
    position = replica.put(offset, data, segment_digests(offset, data), sync)
    if sync:
        replica.home.journal.commit(position)


def after(old: Expected, kind: str, place: int, size: int, sync: bool, number: int) -> Expected:
    """What an operation makes of a chunk once it is acknowledged."""
    content = old.content
    promised = old.promised
    match kind:
        case "create":
            return Expected(b"", 1, 0, True, False)
        case "drop":
            return Expected(b"", 1, 0, False, True)
        case "append" | "write":
            offset = len(content) if kind == "append" else place
            data = payload(number, size)
            overwrites = offset < len(content)
            content = content.ljust(offset, b"\0")
            content = content[:offset] + data + content[offset + size :]
            promised = len(content) if sync or overwrites else promised
        case "cut":
            shrinks = place < len(content)
            content = content[:place].ljust(place, b"\0")
            promised = len(content) if sync or shrinks else promised
        case "sync":
            promised = len(content)
        case "version":
            return Expected(content, old.version + 1, len(content), True, True)
    return Expected(content, old.version, promised, True, old.durable or promised > 0 or sync or kind == "sync")


def perform(disk: Disk, model: Model, number: int, operation: Operation) -> None:
    kind, chunk, place, size, sync = operation
    old = model.chunks.get(chunk, Expected())
    if kind == "checkpoint":
        disk.journal.rotate()
        while disk.checkpoint_oldest(0):
            pass
        return
    if old.exists == (kind == "create"):
        return
    if not disk.journal.has_room():
        disk.checkpoint_oldest(0)
    if kind in ("append", "write"):
        offset = len(old.content) if kind == "append" else place
        size = min(size, CHUNK_BYTES - offset)
    new = after(old, kind, place, size, sync, number)
    model.doing = (chunk, new)
    if kind == "create":
        disk.create(a_grant(chunk))
    else:
        replica = disk.replicas[chunk]
        match kind:
            case "drop":
                disk.drop([replica], "the test wants it")
            case "append":
                put(replica, len(old.content), payload(number, size), sync)
            case "write":
                put(replica, place, payload(number, size), sync)
            case "cut":
                position = replica.cut(place, sync)
                if sync:
                    disk.journal.commit(position)
            case "sync":
                disk.journal.commit(replica.sync())
            case "version":
                replica.set_version(old.version + 1)
    model.chunks[chunk] = new
    model.doing = None


def run(files: CrashFiles, operations: list[Operation], crash_at: int) -> Model:
    model = Model()
    disk = open_disk(files)
    files.boundaries = 0
    files.crash_at = crash_at
    try:
        for number, operation in enumerate(operations):
            perform(disk, model, number, operation)
    except Crashed:
        pass
    files.crashed = True
    return model


def check(disk: Disk, model: Model, process_only: bool) -> None:
    assert not disk.corrupt
    doing, new = model.doing or (0, None)
    for chunk in model.chunks.keys() | {doing} - {0}:
        candidates = [model.chunks.get(chunk, Expected(durable=False))]
        if chunk == doing and new is not None:
            candidates.append(new)
        replica = disk.replicas.get(chunk)
        found = (replica.version, replica.read_verified(0, CHUNK_BYTES)) if replica is not None else None
        assert any(allowed(found, candidate, process_only) for candidate in candidates), (chunk, found and found[0])


def allowed(found: tuple[int, bytes] | None, expected: Expected, process_only: bool) -> bool:
    if found is None:
        return not expected.exists or not (expected.durable or process_only)
    version, content = found
    if not expected.exists:
        return not expected.durable and content == b""
    if version != expected.version:
        return False
    if process_only:
        return content == expected.content
    return expected.promised <= len(content) and expected.content.startswith(content)


SCENARIO: list[Operation] = [
    ("create", 1, 0, 0, False),
    ("append", 1, 0, 5000, True),
    ("append", 1, 0, 90_000, False),
    ("create", 2, 0, 0, False),
    ("append", 2, 0, 70_000, True),
    ("write", 1, 60_000, 9000, False),
    ("append", 1, 0, 3000, False),
    ("sync", 1, 0, 0, False),
    ("checkpoint", 0, 0, 0, False),
    ("append", 2, 0, 30_000, False),
    ("cut", 1, 66_000, 0, True),
    ("append", 1, 0, 40_000, False),
    ("write", 2, 150_000, 10_000, False),
    ("version", 2, 0, 0, False),
    ("checkpoint", 0, 0, 0, False),
    ("write", 1, 0, 70_000, True),
    ("drop", 2, 0, 0, False),
    ("create", 2, 0, 0, False),
    ("append", 2, 0, 100, True),
    ("cut", 1, 0, 0, False),
    ("append", 1, 0, 1000, False),
    ("sync", 1, 0, 0, False),
]


def boundaries_of(operations: list[Operation]) -> int:
    files = CrashFiles()
    run(files, operations, -1)
    return files.boundaries


SURVIVALS: list[tuple[str, Survival]] = [
    ("nothing", nothing_survives),
    ("everything", everything_survives),
    *((f"mixture {seed}", anything_survives(seed)) for seed in range(3)),
]


@pytest.mark.parametrize(("name", "survives"), SURVIVALS, ids=[name for name, _ in SURVIVALS])
def test_fault_1_a_crash_at_every_boundary_keeps_what_was_promised(name: str, survives: Survival) -> None:
    total = boundaries_of(SCENARIO)
    assert total > 80
    for crash_at in range(1, total + 2):
        files = CrashFiles()
        model = run(files, SCENARIO, crash_at)
        files.reboot(survives)
        check(open_disk(files), model, process_only=name == "everything")


def test_a_crash_while_recovering_changes_nothing() -> None:
    total = boundaries_of(SCENARIO)
    for crash_at in range(5, total + 2, 3):
        files = CrashFiles()
        model = run(files, SCENARIO, crash_at)
        files.reboot(anything_survives(crash_at))
        for again in (3, 1, 7, 2, 12, 5):
            files.crash_at = again
            try:
                open_disk(files)
            except Crashed:
                files.reboot(anything_survives(crash_at + again))
            else:
                files.reboot(everything_survives)
        check(open_disk(files), model, process_only=False)


kinds = st.sampled_from(["create", "append", "append", "write", "cut", "sync", "version", "drop", "checkpoint"])
places = st.one_of(st.integers(0, CHUNK_BYTES - 1), st.sampled_from([0, 1, BLOCK_BYTES - 1, BLOCK_BYTES]))
sizes = st.one_of(st.integers(1, 100_000), st.sampled_from([1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES]))
any_operation = st.tuples(kinds, st.integers(1, 2), places, sizes, st.booleans())


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    operations=st.lists(any_operation, min_size=3, max_size=14),
    where=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_any_history_survives_any_crash(operations: list[Operation], where: float, seed: int) -> None:
    history: list[Operation] = [("create", 1, 0, 0, False), ("create", 2, 0, 0, False), *operations]
    crash_at = 1 + int(where * boundaries_of(history))
    for survives, process_only in ((anything_survives(seed), False), (everything_survives, True)):
        files = CrashFiles()
        model = run(files, history, crash_at)
        files.reboot(survives)
        disk = open_disk(files)
        check(disk, model, process_only)
        for replica in list(disk.replicas.values()):
            put(replica, replica.length, b"and on it goes"[: CHUNK_BYTES - replica.length], True)
