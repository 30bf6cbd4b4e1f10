"""From a request's target to a path of the file system, decoded once and strictly.

What a URL names must be one thing for everybody who looks at it: an escape that is no escape, a slash or a NUL inside a
name, and ``.`` or ``..`` as a name are refused instead of interpreted.
"""

import re
from urllib.parse import quote_from_bytes

from gfsclient import paths
from gfsprotocol.errors import InvalidArgument

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_WEBHDFS_REQUEST = re.compile(rb"[A-Z]{3,7} (/webhdfs/[^\s]*) HTTP/1\.[01]\r\n")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_SECRETS = re.compile(r"([?&](?:delegation|token)=)[^&]*", re.IGNORECASE)
_ORIGIN = re.compile(r"^https?://[^/?#]*", re.IGNORECASE)


def escaped_request(data: bytes) -> bytes:
    """A WebHDFS request whose target has bytes beyond ASCII as they are, which Hadoop's client sends, with escapes.

    HTTP does not allow them, but what they mean is clear. Whatever else ``data`` is, it is returned as it came.
    """
    begin = _WEBHDFS_REQUEST.match(data)
    if begin is None:
        return data
    target = _NOT_ASCII.sub(lambda match: b"%%%02X" % match[0][0], begin[1])
    return data[: begin.start(1)] + target + data[begin.end(1) :]


def raw_path(target: str) -> str:
    """The path of a request target, still encoded; also of one in absolute form, as proxies send it."""
    path = _ORIGIN.sub("", target, count=1).partition("?")[0].partition("#")[0]
    return path or "/"


def without_secrets(target: str) -> str:
    """The target for a log: WebHDFS has its tokens in there."""
    return _SECRETS.sub(r"\1...", target)


def decoded(raw: str) -> bytes:
    """The absolute path that ``raw``, which stands behind a route's prefix, names.

    InvalidArgument or NameTooLong for what names nothing, and for what could be read in two ways.
    """
    names = [_decoded_name(name) for name in raw.encode("utf-8", "surrogateescape").split(b"/")]
    return paths.to_bytes(b"/" + b"/".join(names))


def _decoded_name(name: bytes) -> bytes:
    if _BAD_ESCAPE.search(name):
        raise InvalidArgument("the path has a '%' that begins no escape: write %25 for a percent sign")
    plain = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), name)
    if b"/" in plain or b"\0" in plain:
        raise InvalidArgument("a name in the path holds an encoded slash or NUL")
    if plain in (b".", b".."):
        raise InvalidArgument("the path holds '.' or '..'")
    return plain


def encoded(path: bytes) -> str:
    """The path as it stands in a URL."""
    return quote_from_bytes(path, safe="/-._~!$'()*,:@")
