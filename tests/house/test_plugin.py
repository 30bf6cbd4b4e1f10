"""The rules of tests/conftest.py, tried on tests that break them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, body: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport tests.conftest\nfrom tests.conftest import *\n"
        "from tests.conftest import _logs, _nothing_remains\ntests.conftest.VANISH_SECONDS = 0.05\n"
    )
    (tmp_path / "test_it.py").write_text(f"import logging, socket, subprocess, sys, threading\n\n{body}\n")
    arguments = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)


BREAKERS = {
    "an unexpected warning": ('def test_it():\n    logging.getLogger("gfs.x").warning("odd")', "WARNING gfs.x: odd"),
    "a child process": (
        'def test_it():\n    global p\n    p = subprocess.Popen(["sleep", "2"])\n    threading.Timer',
        "left behind: process",
    ),
    "a thread": (
        "def test_it():\n    threading.Thread(target=threading.Event().wait, args=(1.0,), name='odd').start()",
        "left behind: thread odd",
    ),
    "a listening port": (
        'def test_it():\n    global s\n    s = socket.create_server(("127.0.0.1", 0))',
        "left behind: listening port",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKERS)
def test_a_test_fails_that_leaves(what: str, tmp_path: Path) -> None:
    body, complaint = BREAKERS[what]
    done = run(tmp_path, body)
    assert done.returncode == 1, done.stdout + done.stderr
    assert complaint in done.stdout


@pytest.mark.slow
def test_a_warning_that_was_announced_is_no_failure(tmp_path: Path) -> None:
    body = 'def test_it(expected_logs):\n    expected_logs("od+")\n    logging.getLogger("gfs.x").warning("odd")'
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stdout + done.stderr
