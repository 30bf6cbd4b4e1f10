"""From a request to the operation that answers it: which one, in whose name, for which path."""

import logging
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from gfsclient.user import User
from gfsgateway import targets
from gfsgateway.auth import Identity
from gfsgateway.call import Call
from gfsgateway.config import GatewayConfig
from gfsgateway.names import Names
from gfsgateway.webhdfs import attributes, changing, delegating, exceptions, information, listing, reading, writing
from gfsgateway.webhdfs.ask import DATA, Ask, Operation, missing
from gfsgateway.webhdfs.delegating import Delegations
from gfsgateway.webhdfs.exceptions import AUTHORIZATION, IO, HdfsRefusal, bad_parameter
from gfsgateway.webhdfs.parameters import Parameters
from gfsprotocol.errors import GfsError, InvalidArgument, NotFound

ROOT_UID: Final = 0

log = logging.getLogger(__name__)

_Table = dict[str, dict[str, Operation]]

OPERATIONS: Final[_Table] = {
    hdrs.METH_GET: listing.GET | reading.GET | attributes.GET | changing.GET | information.GET,
    hdrs.METH_PUT: writing.PUT | changing.PUT | attributes.PUT | information.PUT,
    hdrs.METH_POST: writing.POST | information.POST,
    hdrs.METH_DELETE: changing.DELETE | information.DELETE,
}
"""By method: what happens to the path in the address, or the first step of it."""
SECOND_STEPS: Final[_Table] = {
    hdrs.METH_GET: reading.GET_DATA,
    hdrs.METH_PUT: writing.PUT_DATA,
    hdrs.METH_POST: writing.POST_DATA,
}
"""What happens where a redirect leads to."""
WITHOUT_PATH: Final[_Table] = {
    hdrs.METH_GET: information.WITHOUT_PATH | delegating.GET,
    hdrs.METH_PUT: delegating.PUT,
}
"""What has nothing to do with the path in the address."""


class WebHdfs:
    """What all requests of one gateway share. Belongs to one event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        self.names = Names(config)
        self.delegations = Delegations()

    async def handle(self, call: Call) -> web.StreamResponse:
        """Answers a request; errors as HDFS has them."""
        path = b"/"
        try:
            path = targets.decoded(call.rest).rstrip(b"/") or b"/"
            return await self._answer(call, path)
        except NotFound:
            return _refused(call, missing(path))
        except GfsError as error:
            return _refused(call, error)

    async def _answer(self, call: Call, path: bytes) -> web.StreamResponse:
        parameters = Parameters(call.parameters())
        method, name = call.request.method, parameters.required("op").upper()
        call.identity = await self._identity(call, parameters)
        operation = WITHOUT_PATH.get(method, {}).get(name)
        if operation is None:
            operation = self._operation(method, name, parameters)
            path = call.permitted(path)
        return await operation(Ask(self, call, parameters, path))

    def _operation(self, method: str, name: str, parameters: Parameters) -> Operation:
        second = SECOND_STEPS.get(method, {}).get(name)
        if second is not None and parameters.flag(DATA):
            return second
        found = OPERATIONS[method].get(name)
        if found is None:
            kind = f"org.apache.hadoop.hdfs.web.resources.{method.title()}OpParam.Op"
            raise bad_parameter("op", f"No enum constant {kind}.{name}")
        return found

    async def _identity(self, call: Call, parameters: Parameters) -> Identity:
        """In whose name to act: of the delegation token, or of whom the gateway knows the request to speak for.

        As HDFS without Kerberos believes ``user.name``, so does a gateway whose caller may act as anybody: as root.
        """
        token = parameters.text("delegation")
        if token:
            identity = await self.delegations.identify(call, token)
        else:
            identity = call.gateway.auth.identify(call.request)
        for name in ("user.name", "doas"):
            wanted = parameters.text(name)
            if wanted and wanted != self.names.user_name(identity.user[0]):
                identity = self._acting_as(identity, wanted, is_named=name == "user.name")
        return identity

    def _acting_as(self, identity: Identity, wanted: str, is_named: bool) -> Identity:
        name = self.names.user_name(identity.user[0])
        if identity.user[0] != ROOT_UID:
            if is_named:
                raise HdfsRefusal(IO, f"Usernames not matched: name={wanted} != expected={name}")
            raise HdfsRefusal(AUTHORIZATION, f"User: {name} is not allowed to impersonate {wanted}")
        return Identity(self._user(wanted), identity.prefixes, identity.expires)

    def _user(self, name: str) -> User:
        try:
            return self.names.user(name)
        except InvalidArgument as error:
            raise HdfsRefusal(AUTHORIZATION, error.message) from error


def _refused(call: Call, error: GfsError) -> web.StreamResponse:
    """HDFS's status may be 403 for a cluster that does not answer; it is counted as what it is."""
    begun = call.break_off(error)
    if begun is not None:
        return begun
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("%s %s: %s", call.request.method, targets.without_secrets(call.request.raw_path), error.message)
    call.gateway.measures.failed(error.http_status, exceptions.name_of(error))
    return exceptions.remote_exception(error)
