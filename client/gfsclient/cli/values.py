"""Kinds of values on the command line: paths in the cluster, sizes, modes."""

import asyncio
import os
import posixpath
import re
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from gfsprotocol.errors import GfsError

COMPLETION_SECONDS: Final = 2.0
COMPLETIONS_MAX: Final = 1000
_SIZE = re.compile(r"(\d{1,40})\s*(?:([kmgt])(?:i?b)?|b|c)?", re.IGNORECASE | re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class RemotePath(click.ParamType[str]):
    """A path in the cluster; shells complete it by asking the cluster."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return os.fsdecode(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        from gfsclient.cli.session import Session, connected, run_async

        root = ctx.find_root()
        options = root.params
        session = Session(options.get("config"), None, COMPLETION_SECONDS)
        found: list[CompletionItem] = []
        directory, _, prefix = (incomplete or "/").rpartition("/")

        async def collect(files: Any, _failures: Any) -> None:
            async for name, attributes in files.scandir(directory or "/"):
                if name.startswith(prefix):
                    path = f"{directory}/{name}"
                    found.append(CompletionItem(path + "/" if attributes.mode & 0o170000 == 0o040000 else path))
                if len(found) >= COMPLETIONS_MAX:
                    break

        async def with_deadline() -> int:
            async with asyncio.timeout(COMPLETION_SECONDS):
                return await connected(session, collect)

        try:
            run_async(with_deadline())
        except (GfsError, TimeoutError):
            return []  # a shell that completes has no place for an error; the command itself will show it
        return found


class Size(click.ParamType[int]):
    """Bytes: a number with an optional K, M, G or T (powers of 1,024)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        size = parse_size(value)
        if size is None:
            self.fail(f"'{value}' is not a size, such as 4096, 64K or 1G", param, ctx)
        return size


class OctalMode(click.ParamType[int]):
    """Permission bits in octal."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"[0-7]{1,4}", value):
            self.fail(f"'{value}' is not an octal mode, such as 755", param, ctx)
        return int(value, 8)


def parse_size(text: str) -> int | None:
    """The bytes that ``64K`` or ``1.5`` means; None if it means nothing."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    power: int = _POWERS[(match[2] or "").lower()]
    return int(match[1]) << 10 * power


def current_umask() -> int:
    """The process's file mode mask; POSIX can only tell by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def joined(directory: str, name: str) -> str:
    """The path of ``name`` in ``directory``."""
    return posixpath.join(directory, name)


REMOTE: Final = RemotePath()
SIZE: Final = Size()
OCTAL: Final = OctalMode()
