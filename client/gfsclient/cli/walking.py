"""Walks through a subtree with attributes, in byte order of names, holding one page per level."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

from gfsclient.cli.values import joined
from gfsprotocol.errors import GfsError
from gfsprotocol.messages import Attributes

if TYPE_CHECKING:
    from gfsclient.cli.session import Failures
    from gfsclient.filesystem import FileSystem

TYPE_MASK = 0o170000
DIRECTORY = 0o040000
REGULAR = 0o100000
SYMLINK = 0o120000


class Found(NamedTuple):
    """A place of the walk."""

    path: str
    name: str
    attributes: Attributes
    depth: int


def is_directory(attributes: Attributes) -> bool:
    return attributes.mode & TYPE_MASK == DIRECTORY


def is_symlink(attributes: Attributes) -> bool:
    return attributes.mode & TYPE_MASK == SYMLINK


async def walk(
    files: "FileSystem", failures: "Failures", root: str, depth_max: int | None = None
) -> AsyncGenerator[Found, None]:
    """The root, then all below it, each directory before what it holds; symbolic links are not followed.

    A directory that cannot be listed is reported, and the walk goes on behind it.
    """
    attributes = await files.stat(root, follow=False)
    yield Found(root, root, attributes, 0)
    if is_directory(attributes):
        async with aclosing(_below(files, failures, root, 1, depth_max)) as found:
            async for place in found:
                yield place


async def _below(
    files: "FileSystem", failures: "Failures", directory: str, depth: int, depth_max: int | None
) -> AsyncGenerator[Found, None]:
    if depth_max is not None and depth > depth_max:
        return
    entries = files.scandir(directory)
    while True:
        try:
            name, attributes = await anext(entries)
        except StopAsyncIteration:
            return
        except GfsError as error:
            failures.report(directory, error)
            return
        path = joined(directory, name)
        yield Found(path, name, attributes, depth)
        if is_directory(attributes):
            async with aclosing(_below(files, failures, path, depth + 1, depth_max)) as found:
                async for place in found:
                    yield place
