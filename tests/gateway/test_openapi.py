"""The description of the interface is true: it is valid, readable, and what it says happens."""

import importlib
import inspect
import re
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from gfsgateway.rest import ENDPOINTS, openapi
from tests.cluster.harness import Cluster
from tests.gateway.web import ask

EXAMPLES = 4

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
    models = {
        each for endpoint in ENDPOINTS for each in (endpoint.body, *endpoint.answers.values()) if inspect.isclass(each)
    }
    for model in models:
        assert all(f"<td>{name}</td>" in text for name in model.model_fields), f"{model.__name__} is not explained"
    headers = {name for endpoint in ENDPOINTS for name in (*endpoint.request_headers, *endpoint.response_headers)}
    assert not re.search(r"<td>header</td><td></td>", text), f"a header of {headers} has no meaning"


def test_operations_have_names_of_their_own() -> None:
    names = [each["operationId"] for path in openapi.describe(ENDPOINTS)["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("sort", ["POSITIVE", pytest.param("NEGATIVE", marks=pytest.mark.long)])
def test_what_it_says_happens(served: Cluster, sort: str) -> None:
    """Schemathesis asks what the document allows, and what it does not, and compares the answers with it."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    checks = importlib.import_module("schemathesis.specs.openapi.checks")
    # Not all that we refuse can be said in a schema: tags, cursors, digests.
    refusals = [checks.positive_data_acceptance]
    schema = schemathesis.openapi.from_url(f"{served.gateway_url()}/v1/openapi.json")
    mode = schemathesis.GenerationMode[sort]
    asked = 0
    failures = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(timeout=30, excluded_checks=refusals)

        try:
            check()
        except Unsatisfiable:
            continue  # everything is allowed
        except Exception as error:  # noqa: BLE001 - all are shown at the end
            failures.append(f"{operation.label}: {error} {getattr(error, 'exceptions', '')}")
    assert not failures, "\n".join(failures)
    assert asked > EXAMPLES * 10
