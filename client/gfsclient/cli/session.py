"""What every command shares: the connection to the cluster, and what becomes of errors."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from gfsclient.cli.output import error_line
from gfsprotocol.errors import ERRORS_BY_CODE, AttributesFull, ConfigurationError, GfsError, NamespaceError

if TYPE_CHECKING:
    from gfsclient.config import ClientConfig
    from gfsclient.filesystem import FileSystem

Parameters = ParamSpec("Parameters")

_EXIT_CODE_BY_ERRNO = {
    kind.errno: kind.exit_code
    for kind in reversed(list(ERRORS_BY_CODE.values()))
    if issubclass(kind, NamespaceError) and kind not in (NamespaceError, AttributesFull)
}
"""For what the local file system refuses. A full disk there is not an attribute too many here."""


@dataclass
class Session:
    """The global options."""

    config_file: Path | None
    masters: list[str] | None
    deadline_seconds: float | None

    def config(self) -> "ClientConfig":
        """The client's settings. ConfigurationError names what is wrong."""
        from gfsclient.config import ClientConfig, find_config
        from gfsprotocol.settings import load

        try:
            file = find_config(self.config_file)
        except ConfigurationError:
            if self.masters is None:
                raise
            file = None  # the masters are named, and the key may stand in the environment
        return load(ClientConfig, file, {"masters": self.masters, "deadline_seconds": self.deadline_seconds})


@dataclass
class Failures:
    """Errors of single paths: told at once, while the rest goes on; the first one decides the exit code."""

    exit_code: int = 0
    count: int = field(default=0)

    def report(self, path: str, error: GfsError | OSError) -> None:
        message = message_of(error)
        error_line(message if path in message else f"{path}: {message}")
        self.exit_code = self.exit_code or exit_code_of(error)
        self.count += 1

    @contextmanager
    def of(self, path: str) -> Iterator[None]:
        """Reports an error of what is done with ``path`` in the block, and goes on behind it."""
        try:
            yield
        except (GfsError, OSError) as error:
            self.report(path, error)


def message_of(error: GfsError | OSError) -> str:
    """The error in one line for a person."""
    if isinstance(error, GfsError):
        return error.message
    reason = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {reason}" if isinstance(error.filename, str | bytes) else reason


def exit_code_of(error: GfsError | OSError) -> int:
    """The exit code; an error of a local file has that of the same error in the cluster."""
    if isinstance(error, GfsError):
        return error.exit_code
    return _EXIT_CODE_BY_ERRNO.get(error.errno or 0, GfsError.exit_code)


def with_filesystem(
    command: "Callable[Concatenate[FileSystem, Failures, Parameters], Awaitable[None]]",
) -> Callable[Parameters, int]:
    """Makes an async command into one that click can call: it gets a connected file system and a :class:`Failures`."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> int:
        session = click.get_current_context().find_object(Session)
        assert session is not None, "the group makes the session"
        return run_async(connected(session, command, *args, **kwargs))

    return run


async def connected(session: Session, command: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> int:
    """Runs ``command`` with a file system; returns the exit code."""
    from gfsclient.filesystem import FileSystem

    config = session.config()
    failures = Failures()
    async with await FileSystem.connect(
        config.masters, config.key, deadline_seconds=config.deadline_seconds, config=config
    ) as files:
        await command(files, failures, *args, **kwargs)
    return failures.exit_code


def run_async(main: "Awaitable[int]") -> int:
    """Runs a coroutine on uvloop; Ctrl-C cancels it and raises KeyboardInterrupt when it has cleaned up."""
    import uvloop

    async def entry() -> int:
        return await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(entry())
