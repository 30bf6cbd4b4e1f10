"""Progress bars on a terminal, and nothing at all elsewhere."""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from gfsclient.cli.output import shown

if TYPE_CHECKING:
    from rich.progress import Progress

LABEL_MAX: Final = 32
"""Characters of a label, so that the bar keeps its place on a narrow terminal."""

Callback = Callable[[int, int | None], None]
"""Takes the bytes done, and the bytes in all if they are known; called from the threads that copy."""


class ProgressBars:
    """A context in which transfers show their progress on standard error, if that is a terminal."""

    def __init__(self, wanted: bool = True) -> None:
        self._bars: Progress | None = _make_bars() if wanted and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def bar(self, name: str, total: int | None = None) -> Callback | None:
        """A new bar's callback, labelled with the last name of a path; None where no bar is shown."""
        bars = self._bars
        if bars is None:
            return None
        label = shown(name.rstrip("/").rpartition("/")[2] or name, always=True)
        if len(label) > LABEL_MAX:
            label = label[: LABEL_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
        task = bars.add_task(label, total=total)

        def update(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        return update


def _make_bars() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
    )


class Total:
    """Adds up the bytes of many transfers for one bar."""

    def __init__(self, update: Callback | None) -> None:
        self._update = update
        self._done = 0
        self._lock = threading.Lock()

    def part(self) -> Callback | None:
        """The callback of one more transfer."""
        update = self._update
        if update is None:
            return None
        before = 0

        def advance(done: int, total: int | None) -> None:  # noqa: ARG001
            nonlocal before
            with self._lock:
                self._done += done - before
                before = done
                update(self._done, None)

        return advance
