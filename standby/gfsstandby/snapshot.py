"""A frozen copy of the state that encodes and verifies itself: a forked process, as Redis does for its snapshots.

``fork`` gives the child the state as it is at that moment, at the cost of the page tables; the parent goes on changing
its own. The child uses nothing else of the parent: no event loop, no connection, no lock, no log; it closes all that it
has inherited but one pipe, and ends with the parent. What it writes to the pipe is a series of frames: one byte that
says what it is, four bytes of length, the bytes.
"""

import contextlib
import ctypes
import gc
import os
import signal
import struct
import threading
import warnings
from collections.abc import Iterator
from typing import BinaryIO, Final

from gfsmaster.checkpoint import decode, encode
from gfsmaster.state import State

PART: Final = b"p"
VERIFIED: Final = b"v"
"""The last frame: 16 bytes, the digest of the state, recomputed from what the parts decode to."""
FAILED: Final = b"f"
"""The last frame: why it went wrong, in UTF-8."""
NICENESS: Final = 19
"""And the idle scheduling class (sched(7)): masters on the same cores come first, and a checkpoint has time."""
_FRAME: Final = struct.Struct("<cI")
_SET_DEATH_SIGNAL: Final = 1
_prctl: Final = ctypes.CDLL(None).prctl
"""Looked up here: the child of a process with threads does better without the dynamic linker."""


class SnapshotFailed(Exception):
    """The child could not finish, or was killed."""


class Snapshot:
    """A child with a copy of the state. Belongs to one thread, but for :meth:`kill`."""

    def __init__(self, state: State) -> None:
        """Forks. OSError if there is no room for another process."""
        self.sequence = state.sequence
        reading, writing = os.pipe2(os.O_CLOEXEC)
        everything = signal.valid_signals()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        try:
            parent = os.getpid()
            with warnings.catch_warnings():
                # Newer Pythons warn of threads; the child touches nothing that one of them may have locked.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
            if not self.pid:
                _run_child(state, writing, parent)
        except OSError:
            os.close(reading)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            os.close(writing)
        self._pipe: BinaryIO = os.fdopen(reading, "rb")
        self._ending = threading.Lock()
        self._ended = False

    def kill(self) -> None:
        """Ends the child at once; harmless if it has ended. Callable from any thread."""
        with self._ending:
            if not self._ended:
                os.kill(self.pid, signal.SIGKILL)  # ours until we have waited for it, dead or alive

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """(PART, bytes) for each part, then (VERIFIED, digest). SnapshotFailed if it does not come to that."""
        while True:
            head = self._pipe.read(_FRAME.size)
            if len(head) < _FRAME.size:
                raise SnapshotFailed("the process that encodes it has ended")
            kind, size = _FRAME.unpack(head)
            payload = self._pipe.read(size)
            if len(payload) < size:
                raise SnapshotFailed("the process that encodes it has ended")
            if kind == FAILED:
                raise SnapshotFailed(payload.decode())
            yield kind, payload
            if kind == VERIFIED:
                return

    def close(self) -> None:
        """Ends the child if it runs, and leaves nothing of it."""
        self.kill()
        with self._ending:
            self._ended = True
            os.waitpid(self.pid, 0)
        self._pipe.close()


def _run_child(state: State, writing: int, parent: int) -> None:
    """Never returns."""
    try:
        _become_alone(writing, parent)
        with open(writing, "wb", buffering=1 << 20, closefd=False) as pipe:
            try:
                digest = _send(state, pipe)
                pipe.write(_FRAME.pack(VERIFIED, len(digest)) + digest)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001 - this process has no other way to say what went wrong
                text = f"{type(error).__name__}: {error}".encode()
                pipe.write(_FRAME.pack(FAILED, len(text)) + text)
    finally:
        os._exit(0)


def _become_alone(writing: int, parent: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    # A listening socket that lived on in here would keep the node's address alive after its death.
    os.closerange(3, writing)
    os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
    gc.disable()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not allowed everywhere; then niceness has to do
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _send(state: State, pipe: BinaryIO) -> bytes:
    """Writes the parts and decodes them again on the way; the digest of what they decode to."""

    def sent() -> Iterator[bytes]:
        for part in encode(state):
            pipe.write(_FRAME.pack(PART, len(part)) + part)
            yield part

    digest = decode(sent()).recomputed_digest()
    if digest != state.digest():
        raise ValueError("the digest kept with the state is not that of its objects")
    return digest
