"""Content-Types of files: what they were uploaded as, which is asked for once and kept; else what their names say."""

import mimetypes
from collections import OrderedDict
from functools import lru_cache
from typing import Final

from gfsclient.files import File
from gfsclient.paths import to_text
from gfsprotocol.errors import NamespaceError

TYPE_ATTRIBUTE: Final = "user.mime_type"
"""As freedesktop.org has it: other programs know it, too."""
TYPE_CHARACTERS_MAX: Final = 255
UNKNOWN_TYPE: Final = "application/octet-stream"
KEPT_MAX: Final = 20_000


class ContentTypes:
    """Those of the files read last. Belongs to one event loop.

    A file's time of change, which nobody can set, changes with its attributes: what was asked for at that time or later
    is true as long as it stays the same. So nothing that is kept is ever shown for another version of the file.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[int, str]] = OrderedDict()
        """By inode: its time of change, and the attribute; empty if there is none that can be shown."""

    async def of(self, file: File, path: bytes) -> str:
        """For a file just opened at ``path``."""
        inode, changed_ns = file.attributes.inode, file.attributes.changed_ns
        kept = self._kept.get(inode)
        if kept is not None and kept[0] == changed_ns:
            self._kept.move_to_end(inode)
            text = kept[1]
        else:
            text = await _attribute(file)
            self._kept[inode] = changed_ns, text
            self._kept.move_to_end(inode)
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return text or _guess(path)


@lru_cache(4096)
def _guess(path: bytes) -> str:
    return mimetypes.guess_type(to_text(path), strict=False)[0] or UNKNOWN_TYPE


async def _attribute(file: File) -> str:
    try:
        kept = await file.get_xattr(TYPE_ATTRIBUTE)
    except NamespaceError:  # there is none, or the file was removed meanwhile
        return ""
    text = kept.decode("latin-1")[:TYPE_CHARACTERS_MAX]
    return text if text.isprintable() else ""
