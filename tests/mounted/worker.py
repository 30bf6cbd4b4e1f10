"""A process of one thread that runs functions of the tests: as other users, with mmap, and killed if it hangs.

A page of a mapped file that never comes stops a whole Python process, and the identity of a user belongs to a process:
both do not belong into the process of the tests.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tests.mounted.mounting import Mount

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
ROOT = Path(__file__).parents[2]


class Worker:
    """Calls go to it one at a time; functions are those of modules, arguments and results are pickled.

    ``on_start`` is told the process id whenever one is started: the first, and another after one that was killed.
    """

    def __init__(self, on_start: Callable[[int], None]) -> None:
        self._on_start = on_start
        self._process: subprocess.Popen[bytes] | None = None

    def call(
        self, mount: Mount, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """What the function returns or raises there; ``mount`` is killed if it hangs."""
        with mount.watched():
            return self.call_unwatched(function, *arguments, **named)

    def call_unwatched(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """As :meth:`call`, of what takes long; the caller watches."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((function, arguments, named), process.stdin)
        process.stdin.flush()
        try:
            raised, result = pickle.load(process.stdout)
        except EOFError:
            code = process.wait()
            self._process = None
            raise AssertionError(f"the process that ran {function.__name__} ended with {code}") from None
        if raised:
            raise result
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(timeout=30)
            process.stdout.close()

    def _started(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(ROOT), *sys.path])
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.mounted.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self._on_start(process.pid)
        return process


@contextlib.contextmanager
def user(uid: int, gid: int | None = None, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """What is inside happens with the rights of another user; for the worker's process only."""
    gid = uid if gid is None else gid
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])


def serve() -> None:
    """Runs what comes on standard input until its end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.umask(0o022)
    while True:
        try:
            function, arguments, named = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = False, function(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the test
            error.add_note(traceback.format_exc())
            answer = True, error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
