"""Asks the gateways of a cluster on this host how they are."""

import ssl
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from gfscluster.layout import Layout
from gfscluster.shape import Shape
from gfsprotocol.errors import ConfigurationError

READY: Final = "ready"


def address(place: Layout, name: str) -> str:
    """The base of a gateway's URLs on this host, as its settings have it. ConfigurationError if they cannot be read."""
    file = place.config_file(name)
    values = _read(file)
    host, port = values.get("host", "127.0.0.1"), values.get("port", 9600)
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - it is not us who listen
    scheme = "https" if values.get("tls_certificate") else "http"
    return f"{scheme}://{everywhere.get(host, host)}:{port}"


def ask(base: str, deadline_seconds: float) -> str:
    """READY, or why it is not, in a few words."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whether it lives, no more
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{base}/readyz", timeout=deadline_seconds):
            return READY
    except urllib.error.HTTPError as error:
        with error:
            return f"not ready (status {error.code})"
    except urllib.error.URLError as error:
        return f"no answer ({error.reason})"
    except OSError as error:
        return f"no answer ({error})"


def states(place: Layout, shape: Shape, deadline_seconds: float) -> list[dict[str, str]]:
    """Name, address and state of each gateway."""
    bases = {name: address(place, name) for name in shape.gateway_names}
    return [{"name": name, "address": base, "state": ask(base, deadline_seconds)} for name, base in bases.items()]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be used: {error}") from error
