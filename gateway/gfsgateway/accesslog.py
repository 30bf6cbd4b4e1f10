"""The access log: one line of JSON per request, written in groups, so that a busy gateway does not wait for each."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any, Final

import msgspec

LOG_BYTES_MAX: Final = 64 * 1024 * 1024
FLUSH_SECONDS: Final = 0.25
LINES_MAX: Final = 1000
"""So many lines are written at once, without waiting for the time to pass."""

log = logging.getLogger(__name__)


class AccessLog:
    """A file; when it is full it becomes FILE.1 and another is begun. Without a file, nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lines: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = msgspec.json.Encoder()
        self._has_failed = False

    @property
    def is_on(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def add(self, line: dict[str, Any]) -> None:
        """Takes a line; it is in the file before long."""
        if self._file is None:
            return
        self._lines.append(line)
        if len(self._lines) >= LINES_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes what waits. A disk that refuses it is reported once; requests go on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file is None or not self._lines:
            return
        data = self._encoder.encode_lines(self._lines)
        self._lines.clear()
        try:
            self._write(self._file, data)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                log.warning("the access log %s cannot be written: %s", self._file, error.strerror)
            self._has_failed = True

    def _write(self, file: Path, data: bytes) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            is_full = os.fstat(descriptor).st_size > LOG_BYTES_MAX
        finally:
            os.close(descriptor)
        if is_full:
            file.replace(file.with_name(file.name + ".1"))
