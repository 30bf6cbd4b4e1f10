"""Access tokens: the master says once who may do what with a chunk, and chunk servers check it without asking back.

A token is HMAC-SHA-256, with a key derived from the cluster's secret, over what is allowed (the idea is HDFS's block
token). Expiry counts on the issuing leader's own monotonic clock, which heartbeats carry to the chunk servers: no wall
clocks of two machines are ever compared.
"""

import hashlib
import hmac
import struct

import msgspec

from gfsprotocol.errors import TokenRefused
from gfsprotocol.messages import Grant

SECRET_BYTES_MIN = 16
MAC_BYTES = 16
_READ = struct.Struct("<cQQQQQ")
_grant_encoder = msgspec.msgpack.Encoder()
_grant_decoder = msgspec.msgpack.Decoder(Grant)


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose: who holds the clients' key cannot sign tokens (HKDF's expand step, RFC 5869)."""
    return hmac.digest(secret, b"gfs 1 " + purpose.encode() + b"\x01", hashlib.sha256)


def client_key(secret: bytes) -> bytes:
    """The key by which a client proves itself; the only one that client.toml holds."""
    return derive_key(secret, "client")


def server_key(secret: bytes) -> bytes:
    """The key by which chunk servers and masters prove themselves."""
    return derive_key(secret, "server")


def token_key(secret: bytes) -> bytes:
    """The key that signs tokens; masters and chunk servers only."""
    return derive_key(secret, "token")


class ReadToken(msgspec.Struct, frozen=True, gc=False):
    """The right to read a chunk at this version or a newer one."""

    chunk: int
    version: int
    epoch: int
    issued_ms: int
    expires_ms: int


def sign_read(key: bytes, token: ReadToken) -> bytes:
    """The token as it travels: 57 bytes, see docs/formats.md."""
    body = _READ.pack(b"r", token.chunk, token.version, token.epoch, token.issued_ms, token.expires_ms)
    return body + hmac.digest(key, body, "sha256")[:MAC_BYTES]


def open_read(key: bytes, blob: bytes) -> ReadToken:
    """The token in ``blob``; TokenRefused if it was not signed with this key. Expiry is the caller's to check."""
    body, mac = blob[: _READ.size], blob[_READ.size :]
    if len(body) != _READ.size or not hmac.compare_digest(mac, hmac.digest(key, body, "sha256")[:MAC_BYTES]):
        raise TokenRefused("the read token is not valid")
    kind, chunk, version, epoch, issued_ms, expires_ms = _READ.unpack(body)
    if kind != b"r":
        raise TokenRefused("the token does not allow reading")
    return ReadToken(chunk, version, epoch, issued_ms, expires_ms)


def sign_grant(key: bytes, grant: Grant) -> bytes:
    """The grant and its signature as they travel."""
    body = b"w" + _grant_encoder.encode(grant)
    return body + hmac.digest(key, body, "sha256")[:MAC_BYTES]


def open_grant(key: bytes, blob: bytes) -> Grant:
    """The grant in ``blob``; TokenRefused if it was not signed with this key. Expiry is the caller's to check."""
    body, mac = blob[:-MAC_BYTES], blob[-MAC_BYTES:]
    if body[:1] != b"w" or not hmac.compare_digest(mac, hmac.digest(key, body, "sha256")[:MAC_BYTES]):
        raise TokenRefused("the write token is not valid")
    try:
        return _grant_decoder.decode(body[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TokenRefused(f"the write token cannot be read: {error}") from error


class TokenClock:
    """A chunk server's idea of the leaders' token clocks, from what they said and its own monotonic clock.

    Kept for the last two epochs: a writer goes on with the token of the leader before, until it expires.
    Invariant: an estimate never runs behind what a leader has said, so no token lives longer than it was given.
    """

    def __init__(self) -> None:
        self._offset_ms: dict[int, float] = {}

    def heard(self, epoch: int, token_clock_ms: int, now_seconds: float) -> None:
        """A leader said that its clock shows ``token_clock_ms``."""
        offset = token_clock_ms - now_seconds * 1000
        self._offset_ms[epoch] = max(offset, self._offset_ms.get(epoch, offset))
        for old in sorted(self._offset_ms)[:-2]:
            del self._offset_ms[old]

    def check(self, epoch: int, issued_ms: int, expires_ms: int, now_seconds: float) -> None:
        """TokenRefused if the token has expired, or comes from an epoch long gone.

        A token of an epoch that is new to us was signed by a leader that won it: it starts that epoch's clock.
        """
        if epoch not in self._offset_ms:
            if self._offset_ms and epoch < min(self._offset_ms):
                raise TokenRefused(f"the token is from epoch {epoch}, which is over")
            self.heard(epoch, issued_ms, now_seconds)
        if self._offset_ms.get(epoch, 0.0) + now_seconds * 1000 > expires_ms:
            raise TokenRefused("the token has expired")
