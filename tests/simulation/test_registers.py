"""The checker of registers accepts what an atomic register can do, and nothing else."""

import itertools
import random

import pytest

from tests.simulation.registers import UNKNOWN, Operation, is_linearizable


def write(value: bytes, invoked: float, answered: float = UNKNOWN) -> Operation:
    return Operation(True, value, invoked, answered)


def read(value: bytes | None, invoked: float, answered: float) -> Operation:
    return Operation(False, value, invoked, answered)


GOOD = {
    "nothing": [],
    "the first value": [read(None, 0, 1)],
    "a write and its read": [write(b"a", 0, 1), read(b"a", 2, 3)],
    "a read beside a write sees the old value": [write(b"a", 0, 4), read(None, 1, 2)],
    "a read beside a write sees the new value": [write(b"a", 0, 4), read(b"a", 1, 2)],
    "two writes at a time, in either order": [write(b"a", 0, 4), write(b"b", 0, 4), read(b"a", 5, 6)],
    "an unknown write that had its effect late": [write(b"a", 0), read(None, 1, 2), read(b"a", 3, 4)],
    "an unknown write that never had one": [write(b"a", 0), write(b"b", 1, 2), read(b"b", 3, 4)],
    "an unknown write after a later one": [write(b"a", 0), write(b"b", 1, 2), read(b"b", 3, 4), read(b"a", 5, 6)],
}
BAD = {
    "a value that no one wrote": [read(b"a", 0, 1)],
    "an acknowledged write is lost": [write(b"a", 0, 1), read(None, 2, 3)],
    "a read from before an acknowledged write": [write(b"a", 0, 1), write(b"b", 2, 3), read(b"a", 4, 5)],
    "two reads see two writes in different orders": [
        write(b"a", 0, 9),
        write(b"b", 0, 9),
        read(b"a", 1, 2),
        read(b"b", 3, 4),
        read(b"a", 5, 6),
    ],
    "a read goes back": [write(b"a", 0, 9), read(b"a", 1, 2), read(None, 3, 4)],
    "a write has its effect twice": [
        write(b"a", 0, 1),
        read(b"a", 2, 3),
        write(b"b", 4, 5),
        read(b"b", 6, 7),
        read(b"a", 8, 9),
    ],
    "a value is read before its write": [read(b"a", 0, 1), write(b"a", 2, 3)],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name: str) -> None:
    for history in itertools.islice(itertools.permutations(GOOD[name]), 24):
        assert is_linearizable(history)


@pytest.mark.parametrize("name", BAD)
def test_rejects(name: str) -> None:
    for history in itertools.islice(itertools.permutations(BAD[name]), 24):
        assert not is_linearizable(history)


def test_accepts_whatever_an_atomic_register_did_and_finds_what_was_altered() -> None:
    randomness = random.Random(1)
    rejected = 0
    for _ in range(200):
        history: list[Operation] = []
        value: bytes | None = None
        for number in range(12):
            effect = number + 1.0
            invoked, answered = effect - randomness.uniform(0, 3), effect + randomness.uniform(0, 3)
            if randomness.random() < 0.5:
                value = b"%d" % number
                history.append(write(value, invoked, answered if randomness.random() < 0.8 else UNKNOWN))
            else:
                history.append(read(value, invoked, answered))
        assert is_linearizable(history)
        reads = [place for place, operation in enumerate(history) if not operation.is_write]
        if reads:
            place = randomness.choice(reads)
            history[place] = read(b"invented", history[place].invoked, history[place].answered)
            rejected += not is_linearizable(history)
            assert not is_linearizable(history)
    assert rejected > 150
