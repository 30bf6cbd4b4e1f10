"""Plain REST under ``/v1``: one module per kind of thing, each with a table of what it answers."""

from dataclasses import replace

from aiohttp import hdrs

from gfsgateway.rest import changes, directories, openapi, reading, status, trash, uploads, writing
from gfsgateway.rest.endpoint import Endpoint
from gfsgateway.routes import Router


def with_heads(table: list[Endpoint]) -> list[Endpoint]:
    """The table with HEAD wherever there is GET, as HTTP demands (RFC 9110 §9.1): its answer, without the content."""
    own = {each.path for each in table if each.method == hdrs.METH_HEAD}
    heads = [
        replace(each, method=hdrs.METH_HEAD, summary="The same without its content.", answers={200: None})
        for each in table
        if each.method == hdrs.METH_GET and each.path not in own
    ]
    return [*table, *heads]


ENDPOINTS: list[Endpoint] = with_heads(
    [
        *reading.ENDPOINTS,
        *writing.ENDPOINTS,
        *directories.ENDPOINTS,
        *changes.ENDPOINTS,
        *uploads.ENDPOINTS,
        *trash.ENDPOINTS,
        *status.ENDPOINTS,
    ]
)


def add_routes(router: Router) -> None:
    """Adds all of it, and its description."""
    for endpoint in [*ENDPOINTS, *with_heads(openapi.endpoints(ENDPOINTS))]:
        router.add(endpoint.method, endpoint.route, endpoint.handler, endpoint.is_public)
