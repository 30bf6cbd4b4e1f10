"""Delegation tokens in Hadoop's form: who it is for, who may renew it, until when, and that we have signed it.

Everything that a gateway has to know stands in the token, so that any gateway with the same secret takes it. Hadoop's
own programs read the identifier (Writable, as in AbstractDelegationTokenIdentifier); what they call the password are
our claims and an HMAC-SHA-256 over identifier and claims.
"""

import base64
import binascii
import hmac
import io
from dataclasses import dataclass
from typing import Final

import msgspec
from blake3 import blake3

from gfsclient.user import User, checked
from gfsgateway.webhdfs.exceptions import INVALID_TOKEN, HdfsRefusal
from gfsprotocol.errors import GfsError

KIND: Final = "WEBHDFS delegation"
LIFETIME_SECONDS: Final = 7 * 86_400
"""As HDFS's dfs.namenode.delegation.token.max-lifetime."""
TOKEN_CHARACTERS_MAX: Final = 8000
_MAC_BYTES: Final = 32
_VERSION: Final = 0
_SMALL: Final = range(-112, 128)
"""What Hadoop's variable-length integers say in one byte."""


class _Claims(msgspec.Struct, frozen=True):
    user: User
    expires: int
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Delegation:
    """What a token says."""

    user: User
    renewer: str
    expires: int
    """Seconds since the epoch."""


def sign(key: bytes, owner: str, given: Delegation, now: int, number: int, service: str) -> str:
    """The token as it travels in a URL; ``number`` tells those of one second apart."""
    identifier = _identifier(owner, given, now, number)
    claims = msgspec.json.encode(_Claims(given.user, given.expires))
    password = claims + hmac.digest(key, identifier + claims, "sha256")
    return _token(identifier, password, KIND, service)


def verify(key: bytes, token: str, now: float) -> Delegation:
    """What the token says. InvalidToken if it is not ours, or expired at ``now`` (seconds since the epoch)."""
    try:
        identifier, password = _opened(token)
        claims = password[:-_MAC_BYTES]
        if not hmac.compare_digest(password[-_MAC_BYTES:], hmac.digest(key, identifier + claims, "sha256")):
            raise HdfsRefusal(INVALID_TOKEN, "the delegation token was not signed by this cluster")
        said = msgspec.json.decode(claims, type=_Claims)
        user = checked(said.user)
        renewer = _renewer(identifier)
    except (binascii.Error, ValueError, EOFError, msgspec.MsgspecError) as error:
        raise HdfsRefusal(INVALID_TOKEN, "the delegation token cannot be read") from error
    except GfsError as error:
        raise HdfsRefusal(INVALID_TOKEN, error.message) from error
    if now >= said.expires:
        raise HdfsRefusal(INVALID_TOKEN, "the delegation token has expired")
    return Delegation(user, renewer, said.expires)


def name_of(token: str) -> str:
    """What a token that is ours is known by: all that was signed, and no more.

    Clients may change the service in it, which is theirs, and there are many ways to write the same bytes in base64.
    """
    identifier, password = _opened(token)
    return blake3(identifier + password).hexdigest()


def _identifier(owner: str, given: Delegation, now: int, number: int) -> bytes:
    texts = _text(owner) + _text(given.renewer) + _text("")
    numbers = _vlong(now * 1000) + _vlong(given.expires * 1000) + _vlong(number) + _vlong(1)
    return bytes([_VERSION]) + texts + numbers


def _renewer(identifier: bytes) -> str:
    stream = io.BytesIO(identifier[1:])
    _read_bytes(stream)
    return _read_bytes(stream).decode()


def _token(identifier: bytes, password: bytes, kind: str, service: str) -> str:
    """Hadoop's Token.encodeToUrlString."""
    data = _vlong(len(identifier)) + identifier + _vlong(len(password)) + password + _text(kind) + _text(service)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _opened(token: str) -> tuple[bytes, bytes]:
    """Identifier and password of a token."""
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise ValueError("too long")
    stream = io.BytesIO(base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True))
    return _read_bytes(stream), _read_bytes(stream)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return _vlong(len(data)) + data


def _vlong(number: int) -> bytes:
    """Hadoop's WritableUtils.writeVLong, of what is not negative."""
    if number in _SMALL:
        return number.to_bytes(1, "big", signed=True)
    length = (number.bit_length() + 7) // 8
    return (-112 - length).to_bytes(1, "big", signed=True) + number.to_bytes(length, "big")


def _read_bytes(stream: io.BytesIO) -> bytes:
    """Bytes with their length before them; EOFError if they are not all there."""
    length = _read_vlong(stream)
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _read_vlong(stream: io.BytesIO) -> int:
    head = stream.read(1)
    if not head:
        raise EOFError
    first = int.from_bytes(head, "big", signed=True)
    if first in _SMALL:
        number = first
    else:
        number = int.from_bytes(stream.read(-112 - first if first >= -120 else -120 - first), "big")
    if not 0 <= number <= TOKEN_CHARACTERS_MAX:
        raise ValueError("not a length")
    return number


NO_TOKEN: Final = _token(b"", b"", "", "")
"""For where a token is expected that nobody checks."""
