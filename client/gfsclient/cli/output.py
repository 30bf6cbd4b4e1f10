"""How the command line prints: names as the bytes they are, escaped on a terminal; tables; JSON lines."""

import contextlib
import json
import os
import signal
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from gfsprotocol.checksums import Buffer

PIPE_CLOSED: Final = 128 + signal.SIGPIPE
"""The exit status when nobody reads our output any more, as a shell shows it for a program that SIGPIPE ended."""


class OutputClosed(Exception):
    """Whoever read our standard output has gone (``| head``): time to end without a word."""


def discard_output(status: int) -> int:
    """Sends what is still buffered for standard output nowhere, so that the exit is silent; returns ``status``."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    return status


def replace_closed_streams() -> None:
    """Puts the null device where a standard stream is closed (``>&-``), before a socket gets that number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


class StandardOutput:
    """Standard output as a file of bytes, for content."""

    def write(self, data: Buffer) -> int:
        try:
            return sys.stdout.buffer.write(data)
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError:
            discard_output(0)  # it is told once: what is still in the buffer would fail again at the exit
            raise

    def flush(self) -> None:
        try:
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError:
            discard_output(0)  # as above
            raise


def line(text: str = "", end: str = "\n") -> None:
    """A line on standard output; what UTF-8 cannot have comes out as the bytes it was."""
    out = StandardOutput()
    out.write((text + end).encode("utf-8", "surrogateescape"))
    if sys.stdout.isatty():
        out.flush()


def error_line(text: str) -> None:
    """One line on standard error."""
    one_line = shown(text, always=True)
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        sys.stderr.buffer.write(f"gfsclient: {one_line}\n".encode("utf-8", "backslashreplace"))
        sys.stderr.buffer.flush()


def shown(name: str, always: bool = False) -> str:
    r"""The name as people see it: on a terminal, control characters and stray bytes are written as ``\n`` or ``\xff``.

    A file's name must not be able to move the cursor or retitle the window. Into a pipe or a file it goes unchanged.
    """
    if not always and not sys.stdout.isatty():
        return name
    return "".join(_escaped(character) for character in name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character


def json_line(value: dict[str, Any]) -> None:
    """One JSON object on a line of its own; stray bytes of names are lone surrogates, as Python's surrogateescape."""
    line(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")))


def table(rows: Iterable[Sequence[str]], header: Sequence[str] | None = None, right: Iterable[int] = ()) -> None:
    """Rows in aligned columns; columns whose number is in ``right`` are flush right, the last is never padded."""
    lines = [list(header), *map(list, rows)] if header is not None else list(map(list, rows))
    if not lines:
        return
    widths = [max(_width(row[column]) for row in lines) for column in range(len(lines[0]))]
    flush_right = set(right)
    for row in lines:
        cells = [
            _padded(cell, widths[column], column in flush_right, last=column == len(row) - 1)
            for column, cell in enumerate(row)
        ]
        line("  ".join(cells).rstrip())


def _padded(cell: str, width: int, flush_right: bool, last: bool) -> str:
    padding = " " * (width - _width(cell))
    if flush_right:
        return padding + cell
    return cell if last else cell + padding


def _width(text: str) -> int:
    """Columns on a terminal: wide East Asian characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size_bytes: int, human: bool = True) -> str:
    """Bytes for people: ``1.5 MiB``, or the plain number."""
    if not human:
        return str(size_bytes)
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def time_text(time_ns: int) -> str:
    """A time in the local zone, to the minute."""
    return datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M")


def time_text_exact(time_ns: int) -> str:
    """A time in the local zone, to the nanosecond, with its zone."""
    moment = datetime.fromtimestamp(time_ns // 10**9).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 10**9:09d} {moment:%z}"
