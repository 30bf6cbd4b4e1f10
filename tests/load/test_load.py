"""The load tests themselves: what is pure, all kinds of users, and that whatever goes wrong is told."""

import os
import random
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.content import WrongContent, check, content
from loadtests.gaps import Gaps
from loadtests.shapes import SHAPES, users_at
from loadtests.sizes import APPENDS, KIB, READS, draw
from tests.house.documentation import DOCS, ROOT

needs_locust = pytest.mark.skipif(find_spec("locust") is None, reason="locust is not installed: make load does it")


@given(st.text("ab/-é", max_size=20), st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_any_range_of_a_content_can_be_made_again(name: str, offset: int, length: int, more: int) -> None:
    whole = content(name, offset + length + more)
    assert content(name, length, offset) == whole[offset : offset + length]
    check(name, whole[offset : offset + length], length, offset)


@pytest.mark.parametrize(
    "wrong",
    [b"", content("a", 99), content("a", 101), content("a", 100, 1), content("b", 100)],
    ids=["nothing", "short", "long", "elsewhere", "another"],
)
def test_other_content_is_found_out(wrong: bytes) -> None:
    with pytest.raises(WrongContent):
        check("a", wrong, 100)


def test_sizes_are_spread_as_in_the_paper() -> None:
    randomness = random.Random(4)
    reads = [draw(randomness, READS) for _ in range(20_000)]
    appends = [draw(randomness, APPENDS) for _ in range(20_000)]
    assert sum(KIB <= size < 8 * KIB for size in reads) / 20_000 == pytest.approx(0.65, abs=0.02)
    assert sum(8 * KIB <= size < 64 * KIB for size in reads) / 20_000 == pytest.approx(0.30, abs=0.02)
    assert sum(8 * KIB <= size < 64 * KIB for size in appends) / 20_000 == pytest.approx(0.78, abs=0.02)
    assert sum(each.percent for each in READS) == sum(each.percent for each in APPENDS) == 100


def test_shapes_have_the_users_that_the_page_says() -> None:
    parts = [number / 10 for number in range(10)]
    assert [users_at("ramp", 50, part) for part in parts] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert [users_at("spike", 50, part) for part in parts] == [10, 10, 10, 10, 50, 50, 10, 10, 10, 10]
    assert {users_at(shape, 50, part) for shape in ("steady", "failover") for part in parts} == {50}
    assert min(users_at(shape, 1, part) for shape in SHAPES for part in parts) == 1


def test_the_longest_gap_is_that_between_two_answers() -> None:
    gaps = Gaps()
    for moment in (100.0, 100.1, 103.0, 102.9, 103.2):
        gaps.succeeded(moment)
    assert gaps.longest_seconds == pytest.approx(2.9) and gaps.longest_began == 100.1
    gaps.ended(107.0)
    assert gaps.longest_seconds == pytest.approx(3.8), "who got no answer until the end has waited, too"
    gaps.succeeded(200.0)
    assert gaps.longest_seconds == pytest.approx(3.8), "between two runs nobody waits"


def test_the_page_names_every_class_and_every_shape() -> None:
    page = (DOCS / "load.md").read_text()
    text = (ROOT / "loadtests" / "locustfile.py").read_text()
    classes = re.findall(r"^class (\w+)\(users\.(\w+), (\w+)User\)", text, re.MULTILINE)
    kinds, protocols = {kind for _, kind, _ in classes}, {protocol for _, _, protocol in classes}
    assert {name for name, _, _ in classes} == {f"{protocol}{kind}" for kind in kinds for protocol in protocols}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*kinds, *protocols, *SHAPES}


_INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("ready", flush=True)
    signal.pause()
except KeyboardInterrupt:
    raise SystemExit(3)
"""
_RUNNING = f"""
import os, signal, sys
from loadtests.__main__ import run
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(run([sys.executable, "-c", {_INTERRUPTED!r}], os.environ))
"""


@pytest.mark.slow
def test_locust_ends_by_itself_when_it_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RUNNING],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == "ready\n"
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 3 and running.stderr.read() == ""


def _locust(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [
            sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("memory_locustfile.py")),
            "--headless", "--users", "6", "--spawn-rate", "6", "--run-time", "1s", "--stop-timeout", "30",
            "--only-summary", *arguments,
        ],
        cwd=tmp_path,
        env={**os.environ, "LOCUST_SKIP_MONKEY_PATCH": "1", "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@needs_locust
@pytest.mark.slow
def test_every_kind_of_user_does_what_it_does_without_a_failure(tmp_path: Path) -> None:
    code, output = _locust(tmp_path, "--run-time", "5s")  # each of them has its turn, on a busy machine, too
    assert code == 0, output
    for name in ("read small file", "read stream", "read record", "read anywhere", "stat missing", "list"):
        assert re.search(rf"memory +{name} +[1-9]\d* +0\(", output), output


@needs_locust
@pytest.mark.slow
def test_wrong_content_is_a_failed_request_and_the_exit_code_says_so(tmp_path: Path) -> None:
    code, output = _locust(tmp_path, "SmallFiles", LOAD_TEST_DAMAGE="1")
    assert code == 1, output
    assert "not those that were written" in output


@needs_locust
@pytest.mark.slow
def test_a_request_that_is_never_answered_is_a_failed_one(tmp_path: Path) -> None:
    code, output = _locust(tmp_path, "SmallFiles", "--stop-timeout", "1", LOAD_TEST_SILENCE="1")
    assert code == 1, output
    assert "no answer until the end of the run" in output


@needs_locust
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.long
def test_a_kill_of_the_leader_in_the_middle_fails_no_request() -> None:
    command = [sys.executable, "-m", "loadtests", "--users", "18", "--seconds", "20"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for protocol in ("native", "rest", "webhdfs"):
        line = rf"^{protocol}: \d+ requests, 0 failed; longest time without an answer: \d"
        assert re.search(line, done.stderr, re.MULTILINE), done.stderr
    assert "was killed; after 5 s it was started again" in done.stderr
    report = re.search(r"the report: (.+)", done.stdout)
    assert report is not None
    Path(report[1]).unlink()
