"""Tells the kernel what to drop, in a thread of its own: it may have to wait there until we have answered a request."""

import logging
import threading
from collections.abc import Callable
from typing import Final

import pyfuse3
from pyfuse3 import FileNameT, InodeT

log = logging.getLogger(__name__)

WAITING_MAX: Final = 500_000
"""More than the kernel's cache of us is remembered to hold, so nothing that matters is ever left out."""


class Notifier:
    """Sends notices to the kernel, each once however often it is asked for while it waits. Never blocks its callers."""

    def __init__(self, shown: Callable[[int], InodeT]) -> None:
        """``shown`` gives FUSE's number of an inode."""
        self._shown = shown
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, bytes | None], None] = {}
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="gfs-notify", daemon=True)
        self._thread.start()

    def expire_attributes(self, inode: int) -> None:
        """Only the attributes, before this returns: for that the kernel waits for nothing.

        It is for a file that is just being opened, which drops the pages, too. A notice that still waits is not sent
        after it: the kernel ignores attributes that it has asked for before a notice and gets behind it.
        """
        with self._changed:
            self._waiting.pop((inode, None), None)
        try:
            pyfuse3.invalidate_inode(self._shown(inode), attr_only=True)
        except OSError as error:
            log.debug("the kernel does not know inode %d: %s", inode, error)

    def store(self, inode: int, data: bytes) -> bool:
        """Puts bytes from the file's beginning on into its pages, before this returns; whether all are there.

        The kernel waits only for pages that are being read, of which a file that is not open has none.
        """
        try:
            pyfuse3.notify_store(self._shown(inode), 0, data)
        except OSError as error:
            log.debug("the kernel does not take the pages of inode %d: %s", inode, error)
            return False
        return True

    def drop_inode(self, inode: int) -> None:
        """Attributes and pages."""
        self._put((inode, None))

    def drop_entry(self, directory: int, name: bytes) -> None:
        """What is known of a name."""
        self._put((directory, name))

    def _put(self, notice: tuple[int, bytes | None]) -> None:
        with self._changed:
            if len(self._waiting) < WAITING_MAX:
                self._waiting[notice] = None
                self._changed.notify()
            else:
                log.error("the kernel takes no notices: what it shows may be old")

    def close(self) -> None:
        """Sends nothing more. To be called when the kernel has no more use for it."""
        with self._changed:
            self._is_ended = True
            self._waiting.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_ended:
                    self._changed.wait()
                if self._is_ended:
                    return
                inode, name = next(iter(self._waiting))
                del self._waiting[(inode, name)]
            self._send(inode, name)

    def _send(self, inode: int, name: bytes | None) -> None:
        try:
            if name is None:
                pyfuse3.invalidate_inode(self._shown(inode), attr_only=False)
            else:
                pyfuse3.invalidate_entry(self._shown(inode), FileNameT(name))
        except FileNotFoundError:
            pass  # the kernel does not know it
        except OSError as error:
            log.debug("a notice to the kernel failed: %s", error)
