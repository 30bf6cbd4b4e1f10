"""Who a request speaks for: the bearer of a token, or, on this machine only, whoever the settings say."""

import time
from dataclasses import dataclass

from aiohttp import hdrs, web

from gfsclient.paths import encoded
from gfsclient.user import User
from gfsgateway import tokens
from gfsgateway.config import is_loopback
from gfsprotocol.errors import AuthenticationFailed, PermissionDenied
from gfsprotocol.tokens import derive_key


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose rights a request has."""

    user: User
    prefixes: tuple[bytes, ...] = ()
    """It may use these paths and what is below them; empty means all."""
    expires: int | None = None
    """Until when, in seconds since the epoch; None without a token."""

    @property
    def is_limited(self) -> bool:
        """Whether there is anything that it may not use."""
        return bool(self.prefixes) and b"/" not in self.prefixes

    @property
    def confined(self) -> tuple[bytes, ...]:
        """Where its paths must not be led out of by symbolic links: empty if it may be everywhere."""
        return self.prefixes if self.is_limited else ()

    def allows(self, path: bytes) -> bool:
        """Whether it may use ``path``, which must not have ``..`` in it if the token is limited to paths."""
        if not self.is_limited:
            return True
        if b".." in path.split(b"/"):
            return False
        return any(path.rstrip(b"/") == prefix or path.startswith(prefix + b"/") for prefix in self.prefixes)

    def require_everything(self) -> None:
        """PermissionDenied for a token that is limited to paths."""
        if self.is_limited:
            raise PermissionDenied("the bearer token is limited to paths, and this concerns them all")


class Auth:
    """Checks tokens, and keeps web pages from speaking for the user of a gateway that asks for none."""

    def __init__(self, key: bytes | None, default: User | None) -> None:
        """``default`` acts where no token is sent; None demands one."""
        self._key = key
        self.delegation_key = None if key is None else derive_key(key, "delegation token")
        """What WebHDFS's delegation tokens are signed with."""
        self._default = Identity(default) if default is not None else None

    def identify(self, request: web.BaseRequest) -> Identity:
        """Whom the request speaks for. AuthenticationFailed or PermissionDenied if it may not."""
        header = request.headers.get(hdrs.AUTHORIZATION)
        if header is not None:
            return self.bearer(header)
        if self._default is None:
            raise AuthenticationFailed("a bearer token is needed: 'gfs token create' makes one")
        check_origin(request)
        return self._default

    def bearer(self, header: str) -> Identity:
        """Whom an Authorization header speaks for."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("the only authentication is a bearer token")
        if self._key is None:
            raise AuthenticationFailed("this gateway has no secret by which it could check tokens")
        claims = tokens.verify(self._key, token.strip(), time.time())
        return Identity(claims.user, tuple(encoded(path) for path in claims.paths), claims.expires)


def check_origin(request: web.BaseRequest) -> None:
    """PermissionDenied if a web page of somebody else made a browser on this machine ask.

    Without a token it is enough to reach us, and a browser that visits a stranger's page reaches us: the page's origin
    gives it away, or, if the stranger's name was made to mean this machine (DNS rebinding), the Host header does.
    """
    host = request.headers.get(hdrs.HOST, "")
    if not is_loopback(_without_port(host)):
        raise PermissionDenied("without a token the gateway is asked as localhost or 127.0.0.1 only")
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin.partition("://")[2] != host:
        raise PermissionDenied("another origin's page may not use the gateway without a token")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise PermissionDenied("another site's page may not use the gateway without a token")


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
