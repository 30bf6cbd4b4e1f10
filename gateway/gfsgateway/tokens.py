"""Bearer tokens: who may act as whom through a gateway, on which paths, until when.

A token is ``gfs1.CLAIMS.MAC``: the claims as JSON and an HMAC-SHA-256 over all before it, both in base64url. Every
gateway with the same secret accepts it, and asks nobody. Who has to take one back changes the secret.
"""

import base64
import binascii
import hmac

import msgspec

from gfsclient.paths import to_bytes, to_text
from gfsclient.user import User, checked
from gfsprotocol.errors import AuthenticationFailed, GfsError, InvalidArgument
from gfsprotocol.tokens import derive_key

PREFIX = "gfs1"
TOKEN_CHARACTERS_MAX = 6000
"""It has to fit into a header."""
VERSION = 1


class Claims(msgspec.Struct, frozen=True):
    """What a token says."""

    version: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    paths: tuple[str, ...]
    """It is good for these and what is below them; empty means everything."""
    expires: int
    """Seconds since the epoch."""

    @property
    def user(self) -> User:
        return (self.uid, self.gid, *self.groups)


def token_key(secret: bytes) -> bytes:
    """The key that signs tokens, from a gateway's secret."""
    return derive_key(secret, "gateway token")


def sign(key: bytes, user: User, paths: tuple[str, ...], expires: int) -> str:
    """The token as it travels. InvalidArgument for an impossible user or path, or more than a header can hold."""
    uid, gid, *groups = checked(user)
    prefixes = tuple(to_text(to_bytes(path).rstrip(b"/") or b"/") for path in paths)
    if any(part in ("", "..") for prefix in prefixes for part in prefix.split("/")[1:] if prefix != "/"):
        raise InvalidArgument("a token's path cannot have '..' in it")
    body = f"{PREFIX}.{_encoded(msgspec.json.encode(Claims(VERSION, uid, gid, tuple(groups), prefixes, expires)))}"
    token = f"{body}.{_encoded(_mac(key, body))}"
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise InvalidArgument("a token for so many paths and groups does not fit into a header")
    return token


def verify(key: bytes, token: str, now: float) -> Claims:
    """What the token says; AuthenticationFailed if it is not ours, or expired at ``now`` (seconds since the epoch)."""
    body, _, mac = token.rpartition(".")
    if not token.isascii() or len(token) > TOKEN_CHARACTERS_MAX or not body.startswith(PREFIX + "."):
        raise AuthenticationFailed("the bearer token is not one of this file system")
    try:
        if not hmac.compare_digest(_decoded(mac), _mac(key, body)):
            raise AuthenticationFailed("the bearer token was not signed by this cluster")
        claims = msgspec.json.decode(_decoded(body.partition(".")[2]), type=Claims)
        checked(claims.user)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise AuthenticationFailed("the bearer token cannot be read") from error
    except GfsError as error:
        raise AuthenticationFailed(error.message) from error
    if claims.version != VERSION:
        raise AuthenticationFailed(f"the bearer token has version {claims.version}, which this gateway does not know")
    if now >= claims.expires:
        raise AuthenticationFailed("the bearer token has expired")
    return claims


def _mac(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
