"""Paths as people write them, to paths as the protocol has them: absolute bytes."""

import os

from gfsprotocol.errors import InvalidArgument, NameTooLong
from gfsprotocol.ids import NAME_BYTES_MAX, PATH_BYTES_MAX

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def to_bytes(path: PathLike) -> bytes:
    """The absolute path as the protocol has it: ``/`` for the root, doubled slashes and ``.`` taken out.

    ``..`` and a slash at the end keep their meaning, which the master knows (symbolic links). Characters that UTF-8
    cannot have travel as surrogate escapes, as in :func:`os.fsencode`.
    InvalidArgument if it is empty, relative or has a NUL; NameTooLong for a name over 255 or a path over 4,096 bytes.
    """
    raw = encoded(path)
    if b"\0" in raw:
        raise InvalidArgument(f"the path {raw!r} holds a NUL byte")
    if len(raw) > PATH_BYTES_MAX:
        raise NameTooLong(f"a path of {len(raw)} bytes is longer than the limit of {PATH_BYTES_MAX}")
    if not raw.startswith(b"/"):
        raise InvalidArgument(f"'{to_text(raw)}' is not an absolute path" if raw else "the path is empty")
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    for name in names:
        if len(name) > NAME_BYTES_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes is longer than the limit of {NAME_BYTES_MAX}")
    is_marked_directory = bool(names) and raw.endswith((b"/", b"/."))
    return b"/" + b"/".join(names) + (b"/" if is_marked_directory else b"")


def to_text(path: bytes) -> str:
    """For people: the path as :func:`os.fsdecode` shows it, whatever the locale."""
    return path.decode("utf-8", "surrogateescape")


def target_bytes(target: PathLike) -> bytes:
    """The target of a symbolic link, kept as it is. InvalidArgument if empty or with a NUL, NameTooLong over 4,095."""
    raw = encoded(target)
    if not raw or b"\0" in raw:
        raise InvalidArgument("the target of a symbolic link is empty or holds a NUL byte")
    if len(raw) >= PATH_BYTES_MAX:
        raise NameTooLong(f"a target of {len(raw)} bytes is longer than the limit of {PATH_BYTES_MAX - 1}")
    return raw


def parent(path: bytes) -> bytes:
    """The directory that holds the name of ``path``. InvalidArgument for the root, and for what ends in ``..``."""
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".."):
        raise InvalidArgument(f"'{to_text(path)}' is not the path of a file")
    return above or b"/"


def join(directory: bytes, name: bytes) -> bytes:
    """The path of ``name`` in ``directory``."""
    return directory.rstrip(b"/") + b"/" + name


def encoded(path: PathLike) -> bytes:
    """The bytes of a path or name, as :func:`os.fsencode` has them, whatever the locale."""
    plain = os.fspath(path)
    return plain.encode("utf-8", "surrogateescape") if isinstance(plain, str) else plain
