"""Walks through a subtree with attributes, in byte order of names, holding one page per level."""

from collections.abc import AsyncGenerator
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
    # Not by recursion: a tree may be deeper than Python's stack.
    levels = [(root, files.scandir(root))] if is_directory(attributes) and depth_max != 0 else []
    while levels:
        directory, entries = levels[-1]
        try:
            name, attributes = await anext(entries)
        except StopAsyncIteration:
            levels.pop()
            continue
        except GfsError as error:
            failures.report(directory, error)
            levels.pop()
            continue
        path, depth = joined(directory, name), len(levels)
        yield Found(path, name, attributes, depth)
        if is_directory(attributes) and depth != depth_max:
            levels.append((path, files.scandir(path)))
