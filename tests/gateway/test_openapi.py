"""The description of the interface is true: it is valid, readable, and what it says happens."""

import re

import aiohttp
import pytest

from gfsgateway.rest import ENDPOINTS, openapi
from tests.cluster.harness import Cluster
from tests.gateway.web import ask

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def test_the_document_and_the_page(http: aiohttp.ClientSession) -> None:
    document = (await ask(http, "GET", "/v1/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert described >= {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    page = await ask(http, "GET", "/v1/docs")
    text = page.body.decode()
    assert page.headers["Content-Type"].startswith("text/html") and not re.search(r"src=|href=|@import|url\(", text)
    assert all(f"<code>{endpoint.path}</code>" in text for endpoint in ENDPOINTS)


def test_operations_have_names_of_their_own() -> None:
    names = [each["operationId"] for path in openapi.describe(ENDPOINTS)["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))


def test_what_it_says_happens(served: Cluster) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, Phase, settings

    schema = schemathesis.openapi.from_url(f"{served.gateway_url()}/v1/openapi.json")
    excluded = [
        schemathesis.checks.positive_data_acceptance
        if hasattr(schemathesis.checks, "positive_data_acceptance")
        else None
    ]

    @schema.include(path_regex="^/v1/").parametrize()
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def check(case) -> None:  # type: ignore[no-untyped-def]
        case.call_and_validate(excluded_checks=[each for each in excluded if each], timeout=30)
