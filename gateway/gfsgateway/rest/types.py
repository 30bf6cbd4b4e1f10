"""Content-Types and Content-Dispositions of files: what they were uploaded with, which is asked for once and kept."""

import mimetypes
import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp import hdrs

from gfsclient.files import File
from gfsclient.paths import to_text
from gfsprotocol.errors import InvalidArgument, NamespaceError

TYPE_ATTRIBUTE: Final = "user.mime_type"
"""As freedesktop.org has it: other programs know it, too."""
DISPOSITION_ATTRIBUTE: Final = "user.content_disposition"
"""Only together with TYPE_ATTRIBUTE: so of files that have neither, which are most, one question is enough."""
TYPE_CHARACTERS_MAX: Final = 255
DISPOSITION_CHARACTERS_MAX: Final = 1024
UNKNOWN_TYPE: Final = "application/octet-stream"
KEPT_MAX: Final = 20_000
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(\s*;.*)?", re.ASCII)
_DISPOSITION: Final = re.compile(r"[\w!#$&^.+-]+(\s*;.*)?", re.ASCII)


class Shown(NamedTuple):
    """How a file is to be shown. Empty: nothing was said when it was uploaded, or nothing that can be sent back."""

    type: str = ""
    disposition: str = ""


class ContentTypes:
    """Those of the files read last. Belongs to one event loop.

    A file's time of change, which nobody can set, changes with its attributes: what was asked for at that time or later
    is true as long as it stays the same. So nothing that is kept is ever shown for another version of the file.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, Shown]] = OrderedDict()
        """By inode: its time of change, and what its attributes say."""

    async def of(self, file: File, path: bytes) -> Shown:
        """For a file just opened at ``path``, whose name decides if no type was kept."""
        inode, changed_ns = file.attributes.inode, file.attributes.changed_ns
        kept = self._kept.get(inode)
        if kept is not None and kept[0] == changed_ns:
            self._kept.move_to_end(inode)
            shown = kept[1]
        else:
            shown = await _shown(file)
            self._kept[inode] = changed_ns, shown
            self._kept.move_to_end(inode)
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return shown if shown.type else Shown(_guess(path))


def attributes_of(headers: Mapping[str, str], path: bytes) -> dict[str, bytes]:
    """The extended attributes that keep what the headers of an upload to ``path`` say of it.

    InvalidArgument for a Content-Type or Content-Disposition that is none.
    """
    kind = headers.get(hdrs.CONTENT_TYPE, UNKNOWN_TYPE)
    disposition = headers.get(hdrs.CONTENT_DISPOSITION)
    if len(kind) > TYPE_CHARACTERS_MAX or not kind.isprintable() or not _MEDIA_TYPE.fullmatch(kind):
        raise InvalidArgument("the Content-Type is not one")
    kept: dict[str, bytes] = {}
    if disposition is not None:
        is_sound = (
            len(disposition) <= DISPOSITION_CHARACTERS_MAX and disposition.isascii() and disposition.isprintable()
        )
        if not is_sound or not _DISPOSITION.fullmatch(disposition):
            raise InvalidArgument("the Content-Disposition is not one")
        kind = _guess(path) if kind == UNKNOWN_TYPE else kind
        kept[DISPOSITION_ATTRIBUTE] = disposition.encode()
    if disposition is not None or kind != UNKNOWN_TYPE:
        kept[TYPE_ATTRIBUTE] = kind.encode("latin-1", "replace")
    return kept


@lru_cache(4096)
def _guess(path: bytes) -> str:
    return mimetypes.guess_type(to_text(path), strict=False)[0] or UNKNOWN_TYPE


async def _shown(file: File) -> Shown:
    kind = await _attribute(file, TYPE_ATTRIBUTE, TYPE_CHARACTERS_MAX)
    return Shown(kind, await _attribute(file, DISPOSITION_ATTRIBUTE, DISPOSITION_CHARACTERS_MAX) if kind else "")


async def _attribute(file: File, name: str, characters_max: int) -> str:
    try:
        kept = await file.get_xattr(name)
    except NamespaceError:  # there is none, or the file was removed meanwhile
        return ""
    text = kept.decode("latin-1")[:characters_max]
    return text if text.isprintable() else ""
