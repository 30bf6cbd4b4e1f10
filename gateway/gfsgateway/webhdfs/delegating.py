"""GETDELEGATIONTOKEN, and what may be done with one: a cancelled one is known to all gateways by a file."""

import time
from typing import Final

from aiohttp import web

from gfsclient import paths
from gfsclient.filesystem import FileSystem
from gfsgateway.auth import Identity
from gfsgateway.call import Call
from gfsgateway.webhdfs import delegation
from gfsgateway.webhdfs.ask import Ask, Operation, answer, base, nothing
from gfsgateway.webhdfs.delegation import LIFETIME_SECONDS, Delegation
from gfsgateway.webhdfs.exceptions import ACCESS_CONTROL, INVALID_TOKEN, IO, HdfsRefusal
from gfsprotocol.errors import NotFound

DIRECTORY: Final = b"/.gfs/cancelled-tokens"
ROOT: Final = (0, 0)
KNOWN_SECONDS: Final = 5.0
"""How long a token that another gateway has cancelled may still be taken for good."""
KNOWN_MAX: Final = 4096


class Delegations:
    """Checks delegation tokens."""

    def __init__(self) -> None:
        self._good_until: dict[bytes, float] = {}

    async def identify(self, call: Call, token: str) -> Identity:
        """Whom a token speaks for. InvalidToken if it is none, has expired, or was cancelled."""
        found = await self.verify(call, token)
        return Identity(found.user, (), found.expires)

    async def verify(self, call: Call, token: str) -> Delegation:
        """What a token says, if it is good."""
        found = delegation.verify(_key(call), token, time.time())
        name = _file(token)
        if self._good_until.get(name, 0.0) < time.monotonic():
            root = await call.gateway.users.view(ROOT)
            if await root.exists(name):
                raise HdfsRefusal(INVALID_TOKEN, "the delegation token was cancelled")
            if len(self._good_until) >= KNOWN_MAX:
                self._good_until.clear()
            self._good_until[name] = time.monotonic() + KNOWN_SECONDS
        return found

    async def cancel(self, call: Call, token: str) -> None:
        """From now on it is good here no more, and in a moment nowhere."""
        root = await call.gateway.users.view(ROOT)
        name = _file(token)
        try:
            await _sweep(root)
            await root.make_file(name, permissions=0o600)
        except NotFound:
            await root.mkdir(DIRECTORY, mode=0o755, parents=True)
            await root.chmod(DIRECTORY, 0o700)
            await root.make_file(name, permissions=0o600)
        self._good_until.pop(name, None)


async def _sweep(root: FileSystem) -> None:
    """Forgets some cancelled tokens that have expired anyway."""
    oldest_ns = (time.time() - LIFETIME_SECONDS) * 10**9
    for entry in (await root.list_page(DIRECTORY)).entries:
        if entry.attributes.modified_ns < oldest_ns:
            await root.remove(paths.join(DIRECTORY, entry.name))


def _file(token: str) -> bytes:
    """Of a token that is ours: where it is noted as cancelled."""
    return paths.join(DIRECTORY, delegation.name_of(token).encode())


def _key(call: Call) -> bytes:
    key = call.gateway.auth.delegation_key
    if key is None:
        raise HdfsRefusal(INVALID_TOKEN, "this gateway has no secret by which it could check tokens")
    return key


async def get_delegation_token(ask: Ask) -> web.StreamResponse:
    """A token for who has sent one of ours; for others it is null, as from HDFS without security.

    Else whoever may ask a gateway on this machine would have something that is good from elsewhere, and for a week.
    """
    call = ask.call
    if ask.parameters.text("delegation"):
        raise HdfsRefusal(IO, "Delegation Token can be issued only with kerberos or web authentication")
    call.identity.require_everything()
    key = call.gateway.auth.delegation_key
    if key is None or call.identity.expires is None:
        return answer({"Token": None})
    now = int(time.time())
    expires = min(now + LIFETIME_SECONDS, call.identity.expires)
    renewer = ask.parameters.text("renewer") or ask.user_name
    given = Delegation(call.identity.user, renewer, expires)
    service = ask.parameters.text("service") or base(call).partition("://")[2]
    token = delegation.sign(key, ask.user_name, given, now, time.time_ns() % 2**31, service)
    return answer({"Token": {"urlString": token}})


async def renew_delegation_token(ask: Ask) -> web.StreamResponse:
    """When the token expires, in milliseconds: it is good for its whole life from the start."""
    found = await ask.service.delegations.verify(ask.call, ask.parameters.required("token"))
    if found.renewer != ask.user_name:
        raise HdfsRefusal(ACCESS_CONTROL, f"{ask.user_name} tries to renew a token with renewer {found.renewer}")
    return answer({"long": found.expires * 1000})


async def cancel_delegation_token(ask: Ask) -> web.StreamResponse:
    """Ends a token; only its owner and its renewer may."""
    token = ask.parameters.required("token")
    found = await ask.service.delegations.verify(ask.call, token)
    if ask.user_name != found.renewer and ask.call.identity.user[0] != found.user[0]:
        raise HdfsRefusal(ACCESS_CONTROL, f"{ask.user_name} is not authorized to cancel the token")
    await ask.service.delegations.cancel(ask.call, token)
    return nothing()


GET: Final[dict[str, Operation]] = {"GETDELEGATIONTOKEN": get_delegation_token}
PUT: Final[dict[str, Operation]] = {
    "RENEWDELEGATIONTOKEN": renew_delegation_token,
    "CANCELDELEGATIONTOKEN": cancel_delegation_token,
}
