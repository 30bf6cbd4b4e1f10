"""Plain REST under ``/v1``: one module per kind of thing, each with a table of what it answers."""

from gfsgateway.rest import changes, directories, openapi, reading, status, trash, uploads, writing
from gfsgateway.rest.endpoint import Endpoint
from gfsgateway.routes import Router

ENDPOINTS: list[Endpoint] = [
    *reading.ENDPOINTS,
    *writing.ENDPOINTS,
    *directories.ENDPOINTS,
    *changes.ENDPOINTS,
    *uploads.ENDPOINTS,
    *trash.ENDPOINTS,
    *status.ENDPOINTS,
]


def add_routes(router: Router) -> None:
    """Adds all of it, and its description."""
    for endpoint in [*ENDPOINTS, *openapi.endpoints(ENDPOINTS)]:
        router.add(endpoint.method, endpoint.route, endpoint.handler, endpoint.is_public)
