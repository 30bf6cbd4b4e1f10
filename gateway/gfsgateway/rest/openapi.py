"""The OpenAPI 3.1 document, made of the endpoints' table and the models, and a page that people can read."""

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gfsgateway.call import Call
from gfsgateway.problems import CONTENT_TYPE
from gfsgateway.rest import models
from gfsgateway.rest.endpoint import CONTENT, DOCUMENT, BodyKind, Endpoint
from gfsprotocol.errors import ERRORS_BY_CODE, GfsError

_REFERENCE: Final = "#/components/schemas/{model}"
_PARAMETERS: Final = {
    "path": ("The path, without its first slash; slashes in it stay as they are, the rest is percent-encoded.",
             {"type": "string", "pattern": "^[^/]*$", "maxLength": 200}),
    "id": ("Of the upload.", {"type": "string"}),
    "inode": ("Of the entry.", {"type": "integer", "minimum": 1}),
}  # fmt: skip
_MEANING: Final = {
    200: "Done.",
    201: "Made.",
    204: "Done; there is nothing to say.",
    206: "Some ranges of it.",
    304: "The client has it already.",
}


def endpoints(table: list[Endpoint]) -> list[Endpoint]:
    """What serves the document and the page of ``table``, and of themselves."""

    async def serve_document(_call: Call) -> web.StreamResponse:
        return web.Response(body=document, content_type="application/json")

    async def serve_page(_call: Call) -> web.StreamResponse:
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    own = [
        Endpoint(hdrs.METH_GET, "/v1/openapi.json", serve_document, "This description, as OpenAPI 3.1.",
                 answers={200: DOCUMENT}, is_public=True),
        Endpoint(hdrs.METH_GET, "/v1/docs", serve_page, "This description, as a page to read.",
                 answers={200: DOCUMENT}, is_public=True),
    ]  # fmt: skip
    described = describe([*table, *own])
    document, text = json.dumps(described).encode(), page(described)
    return own


def describe(table: list[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document."""
    used = {kind for each in table for kind in (each.body, *each.answers.values()) if isinstance(kind, type)}
    _, definitions = models_json_schema(
        [(kind, _mode(kind)) for kind in sorted(used | {models.Problem}, key=lambda kind: kind.__name__)],
        ref_template=_REFERENCE,
    )
    operations: dict[str, dict[str, Any]] = {}
    for each in table:
        operations.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "GFS",
            "version": "1",
            "description": "Files and directories of a GFS cluster over HTTP. Errors are problem documents (RFC 9457).",
        },
        "paths": operations,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _mode(kind: type[BaseModel]) -> Any:
    return "validation" if issubclass(kind, models.Input) else "serialization"


def _operation(each: Endpoint) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", each.path.removeprefix("/v1/")).strip("_")
    operation: dict[str, Any] = {
        "operationId": f"{each.method.lower()}_{name}",
        "summary": each.summary,
        "tags": [each.path.split("/")[2]],
        "parameters": [*_path_parameters(each), *_query_parameters(each), *_header_parameters(each)],
        "responses": {str(status): _response(each, status, kind) for status, kind in each.answers.items()},
    }
    if each.is_public:
        operation["security"] = []
    if each.body is not None:
        operation["requestBody"] = {
            "required": each.body is not CONTENT and each.body is not models.RestoreBody,
            "content": _content(each.body),
        }
    operation["responses"]["default"] = {
        "description": "It did not work; the document says why.",
        "content": {CONTENT_TYPE: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
    }
    return operation


def _path_parameters(each: Endpoint) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", each.path):
        description, schema = _PARAMETERS[name]
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _query_parameters(each: Endpoint) -> Iterable[dict[str, Any]]:
    schema = each.query.model_json_schema(ref_template=_REFERENCE)
    for name, value in schema.get("properties", {}).items():
        kept = {key: part for key, part in value.items() if key not in ("title", "description")}
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "description": value.get("description", ""),
            "schema": kept,
        }


def _header_parameters(each: Endpoint) -> Iterable[dict[str, Any]]:
    for name in each.request_headers:
        if name != hdrs.CONTENT_TYPE:  # OpenAPI has it elsewhere
            yield {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}


def _response(each: Endpoint, status: int, kind: BodyKind) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _MEANING[status]}
    if kind is not None:
        response["content"] = _content(kind)
    if each.response_headers:
        response["headers"] = {name: {"schema": {"type": "string"}} for name in each.response_headers}
    return response


def _content(kind: BodyKind) -> dict[str, Any]:
    if kind == CONTENT:
        return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    if kind == DOCUMENT:
        return {"*/*": {}}
    assert isinstance(kind, type)
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=kind.__name__)}}}


# ------------------------------------------------------------------------------------------------------------ the page

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3{margin:1.6rem 0 .2rem}code,.m{font-family:monospace}"
    ".m{display:inline-block;min-width:4.5em;font-weight:bold;color:#05a}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;vertical-align:top;border-top:1px solid #eee;padding:.2rem .8rem .2rem 0}"
)


def page(described: dict[str, Any]) -> str:
    """One page, without anything from elsewhere."""
    sections: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_section(method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    info = described["info"]
    head = f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
    intro = f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{head}{intro}{body}'
        f"<h2>errors</h2>{_rows(('status', 'code', 'error', 'meaning'), _errors())}</html>"
    )


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (each["name"], each["in"] + (", needed" if each["required"] else ""), each.get("description", ""))
        for each in operation["parameters"]
    ]
    answers = [(status, each["description"]) for status, each in operation["responses"].items()]
    table = _rows(("parameter", "in", "meaning"), parameters) if parameters else ""
    return (
        f'<h3><span class="m">{method.upper()}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation['summary'])}</p>{table}{_rows(('answer', 'meaning'), answers)}"
    )


def _errors() -> list[tuple[str, ...]]:
    kinds: list[type[GfsError]] = sorted(ERRORS_BY_CODE.values(), key=lambda kind: kind.code)
    return [
        (str(kind.http_status), str(kind.code), kind.__name__, (kind.__doc__ or "").splitlines()[0]) for kind in kinds
    ]


def _rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
