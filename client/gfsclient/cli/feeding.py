"""Local input that may never end, read beside the event loop."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import IO, Final

PIECES_MAX: Final = 8


def standard_input(buffered: bool = True) -> IO[bytes]:
    """Standard input under a file of our own: a thread that still waits in it keeps no lock that the exit needs.

    Without a buffer, what :func:`select.poll` says of it is the whole truth.
    """
    return open(os.dup(0), "rb", buffering=-1 if buffered else 0)


async def fed(read: Callable[[], bytes]) -> AsyncIterator[bytes]:
    """What ``read`` returns until it returns nothing, fetched by a thread that does not keep the process alive.

    At most PIECES_MAX pieces wait. An OSError of ``read`` is raised here.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    free = threading.Semaphore(PIECES_MAX)
    stopped = threading.Event()

    def fetch() -> None:
        piece: bytes | OSError = b"more"
        while piece and not isinstance(piece, OSError):
            free.acquire()
            if stopped.is_set():
                return
            try:
                piece = read()
            except OSError as error:
                piece = error
            if stopped.is_set():
                return
            with contextlib.suppress(RuntimeError):  # the loop was closed this moment: nobody waits for the piece
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

    threading.Thread(target=fetch, name="input", daemon=True).start()
    try:
        while piece := await pieces.get():
            if isinstance(piece, OSError):
                raise piece
            yield piece
            free.release()
    finally:
        stopped.set()
        free.release()
