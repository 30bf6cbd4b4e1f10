"""The processes of a mount: the one in the background, and the one that starts it anew when it dies.

A process that mounts cannot take over the kernel's requests of one that died: its open files are lost, and programs get
errors from them. But paths work again at once, because the dead mount is taken away and a new one is in its place. That
is the last step before mounting: as long as no master answers, programs get errors, and do not write into the directory
that lies below.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from gfsclient.mount import records
from gfsclient.mount.daemon import Plan, serve
from gfsclient.mount.mountpoint import clear_dead
from gfsprotocol.errors import ConfigurationError, DirectoryInUse, GfsError, from_wire

log = logging.getLogger(__name__)

LINE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
STEADY_SECONDS: Final = 30.0
"""A process that lived so long is started anew at once when it dies."""
PAUSE_SECONDS_MAX: Final = 10.0
ANSWER_BYTES: Final = 4096
"""A pipe takes and gives so much in one piece."""
_READY: Final = b"ready"


def start(plan: Plan, foreground: bool) -> int:
    """Mounts, and returns when the mount answers; in the foreground when it is unmounted. The exit code.

    Raises the GfsError for which it could not be mounted.
    """
    held = records.lock(plan.mountpoint)
    if held is None:
        raise DirectoryInUse(f"{plan.mountpoint}: another process is mounting there, or still unmounting")
    if foreground:
        logging.basicConfig(level=logging.INFO, format=LINE)
        _run(plan, lambda: None)
        return 0
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        os._exit(_in_background(plan, writer))
    held.close()
    os.close(writer)
    return _heard(plan, _answer(reader))


def _answer(reader: int) -> bytes:
    """What is written first to the other end of a pipe; nothing if all who could have ended."""
    try:
        return os.read(reader, ANSWER_BYTES)
    finally:
        os.close(reader)


def _heard(plan: Plan, answer: bytes) -> int:
    """What the child said: that it is mounted, or the error."""
    if answer == _READY:
        return 0
    code, _, message = answer.partition(b" ")
    if not code:
        raise ConfigurationError(f"the mount's process ended at once: see {records.log_file(plan.mountpoint)}")
    raise from_wire(int(code), message.decode())


def _in_background(plan: Plan, writer: int) -> int:
    """The child: leaves the terminal, tells its parent how it went, and returns its exit code when all is over."""
    os.setsid()
    log_to = os.open(records.log_file(plan.mountpoint), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(log_to, 1)
    os.dup2(log_to, 2)
    os.chdir("/")
    logging.basicConfig(level=logging.INFO, format=LINE, force=True)
    told = False

    def tell(answer: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writer, answer)
            os.close(writer)

    try:
        _run(plan, lambda: tell(_READY))
    except GfsError as error:
        log.error("%s", error.message)  # noqa: TRY400
        tell(b"%d %s" % (error.code, error.message.encode()[: ANSWER_BYTES - 16]))
        return error.exit_code
    except BaseException:
        log.exception("the mount ends")
        return 1
    finally:
        sys.stderr.flush()
    return 0


def _run(plan: Plan, ready: Callable[[], None]) -> None:
    if plan.options.supervise:
        Supervisor(plan, ready).run()
    else:
        serve(plan, ready)


class Supervisor:
    """Keeps a mount alive: its process is forked from this one, where all modules are loaded already."""

    def __init__(self, plan: Plan, ready: Callable[[], None]) -> None:
        self._plan = plan
        self._ready = ready
        self._was_ready = False
        self._child = 0
        self._is_stopping = False
        self._failures = 0

    def run(self) -> None:
        """Returns when it was unmounted. Raises the error of the first start if that failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while True:
            started = time.monotonic()
            status = self._serve_in_child()
            if status == 0:
                return
            if self._is_stopping:
                self._clear()
                return
            log.error("the mount's process ended (%s), and is started again", _reason(status))
            self._pause(time.monotonic() - started)

    def _serve_in_child(self) -> int:
        """Forks the process that answers; how it ended, as from waitpid."""
        reader, writer = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(reader)
            os._exit(self._be_child(writer))
        os.close(writer)
        if self._is_stopping:
            os.kill(self._child, signal.SIGTERM)  # we were told to stop before there was anyone to pass it on to
        answer = _answer(reader)
        if answer == _READY and not self._was_ready:
            self._was_ready = True
            self._ready()
        _, status = os.waitpid(self._child, 0)
        if not self._was_ready:
            _heard(self._plan, answer)
        return status

    def _be_child(self, writer: int) -> int:
        def ready() -> None:
            os.write(writer, _READY)
            os.close(writer)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if self._is_stopping:
            return 0  # it came before
        try:
            serve(self._plan, ready)
        except GfsError as error:
            log.error("%s", error.message)  # noqa: TRY400
            if not self._was_ready:
                os.write(writer, b"%d %s" % (error.code, error.message.encode()[: ANSWER_BYTES - 16]))
            return error.exit_code
        except BaseException:
            log.exception("the mount's process ends")
            return 1
        return 0

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._child:
            os.kill(self._child, number)

    def _clear(self) -> None:
        """Takes the dead mount away: nobody will mount in its place."""
        try:
            clear_dead(self._plan.mountpoint)
        except GfsError as error:
            log.error("%s", error.message)  # noqa: TRY400

    def _pause(self, lived_seconds: float) -> None:
        self._failures = 0 if lived_seconds > STEADY_SECONDS else self._failures + 1
        if self._failures > 1:
            time.sleep(min(PAUSE_SECONDS_MAX, 0.1 * 2.0**self._failures))


def _reason(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"
