"""What POSIX says, as the local disk does it: each scenario runs on both, and must see the same."""

import inspect
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest

from tests.mounted.mounting import Mount
from tests.mounted.scenarios import Seen, attributes, content, naming, opening
from tests.mounted.worker import Worker

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
Scenario = Callable[[Path], Seen]


def scenarios() -> dict[str, Scenario]:
    """By name: the functions of the modules that give back what they saw."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": function
        for module in (opening, content, naming, attributes)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and inspect.signature(function).return_annotation is Seen
    }


SCENARIOS = scenarios()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_mount_does_as_the_local_disk(name: str, mounted: Mount, place: Path, local: Path, worker: Worker) -> None:
    expected = worker.call(mounted, SCENARIOS[name], local)
    seen = worker.call(mounted, SCENARIOS[name], place)
    different = [
        f"step {number}: local disk {shown(one)}, mount {shown(other)}"
        for number, (one, other) in enumerate(zip_longest(expected, seen))
        if one != other
    ]
    assert not different, "\n".join(different[:30])


def shown(step: object) -> str:
    text = repr(step)
    return text if len(text) < 500 else f"{text[:500]}..."
