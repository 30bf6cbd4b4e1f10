"""WebHDFS under ``/webhdfs/v1``: one module per kind of operation, each with tables of what it answers."""

from gfsgateway.config import GatewayConfig
from gfsgateway.routes import Router
from gfsgateway.webhdfs.ask import PREFIX
from gfsgateway.webhdfs.service import OPERATIONS, WebHdfs


def add_routes(router: Router, config: GatewayConfig) -> None:
    """Adds all of it. For whom a request speaks is looked at by the service itself: a parameter may say it."""
    service = WebHdfs(config)
    for method in OPERATIONS:
        router.add(method, f"{PREFIX}/", service.handle, is_public=True)
