"""The OpenAPI 3.1 document, made of the endpoints' table and the models."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gfsgateway.call import Call
from gfsgateway.problems import CONTENT_TYPE
from gfsgateway.rest import models
from gfsgateway.rest.endpoint import CONTENT, DOCUMENT, BodyKind, Endpoint
from gfsgateway.rest.page import page

_REFERENCE: Final = "#/components/schemas/{model}"
_PARAMETERS: Final = {
    "path": ("The path, without its first slash; slashes in it stay as they are, the rest is percent-encoded.",
             {"type": "string", "pattern": "^[^/]*$", "maxLength": 200}),
    "id": ("Of the upload.", {"type": "string"}),
    "inode": ("Of the entry.", {"type": "integer", "minimum": 1}),
}  # fmt: skip
_HEADERS: Final = {
    hdrs.ACCEPT_RANGES: "bytes: ranges of the file can be asked for.",
    "Content-Digest": "A digest of the body, which is checked: sha-256=:BASE64: or blake3=:BASE64:.",
    hdrs.CONTENT_DISPOSITION: "Kept with the file, and sent with it.",
    hdrs.CONTENT_TYPE: "Kept with the file, and sent with it; without it, the name decides.",
    hdrs.ETAG: "The version of the file; every change makes another.",
    hdrs.IF_MATCH: "Only if the file is one of these versions; *: if it is there. Else 412.",
    hdrs.IF_MODIFIED_SINCE: "Only if the file was changed after that. Else 304.",
    hdrs.IF_NONE_MATCH: "Only if the file is none of these versions; *: if it is not there. Else 304 or 412.",
    hdrs.IF_RANGE: "The ranges only if the file is still this version, else all of it.",
    hdrs.IF_UNMODIFIED_SINCE: "Only if the file was not changed after that. Else 412.",
    hdrs.LAST_MODIFIED: "When the content was changed last.",
    hdrs.LOCATION: "Where it is now.",
    hdrs.RANGE: "bytes=0-99, bytes=100-, bytes=-100, or several with commas.",
    "Repr-Digest": "A digest of the content, which is checked: sha-256=:BASE64: or blake3=:BASE64:.",
    "Upload-Length": "How many bytes are to come in all.",
    "Upload-Offset": "Where the body goes, or, in an answer, where the next one goes. Not there: 409.",
    "Want-Repr-Digest": "blake3=1 or sha-256=1: send a digest of the content, as Repr-Digest.",
}
"""What they mean here."""
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
            yield {
                "name": name,
                "in": "header",
                "required": False,
                "description": _HEADERS[name],
                "schema": {"type": "string"},
            }


def _response(each: Endpoint, status: int, kind: BodyKind) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _MEANING[status]}
    if kind is not None:
        response["content"] = _content(kind)
    if each.response_headers:
        response["headers"] = {
            name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in each.response_headers
        }
    return response


def _content(kind: BodyKind) -> dict[str, Any]:
    if kind == CONTENT:
        return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    if kind == DOCUMENT:
        return {"*/*": {}}
    assert isinstance(kind, type)
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=kind.__name__)}}}
