"""The OpenAPI document as a page that people can read: one file, without anything from elsewhere."""

from collections.abc import Iterable
from html import escape
from typing import Any, Final

from gfsgateway.problems import CONTENT_TYPE
from gfsprotocol.errors import ERRORS_BY_CODE, GfsError

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{border-bottom:1px solid #ccc;margin-top:2.5rem}h3{margin:1.6rem 0 .2rem}code,.m{font-family:monospace}"
    ".m{display:inline-block;min-width:4.5em;font-weight:bold;color:#05a}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;vertical-align:top;border-top:1px solid #eee;padding:.2rem .8rem .2rem 0}"
)
_BODY: Final = "body"


def page(described: dict[str, Any]) -> str:
    """All operations, the JSON that goes in and comes out, and the errors."""
    schemas = described["components"]["schemas"]
    sections: dict[str, list[str]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_section(method, path, operation, schemas))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in sections.items())
    info = described["info"]
    head = f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
    intro = f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{head}{intro}{body}'
        f"<h2>JSON of the answers</h2>{''.join(_model(name, schemas[name]) for name in _answered(described))}"
        f"<h2>errors</h2>{_rows(('status', 'code', 'error', 'meaning'), _errors())}</html>"
    )


def _section(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parameters = [
        (each["name"], each["in"] + (", needed" if each["required"] else ""), each.get("description", ""))
        for each in operation["parameters"]
    ]
    parameters += _body(operation.get("requestBody"), schemas)
    answers = [
        (status, _kinds(each.get("content", {})), each["description"])
        for status, each in operation["responses"].items()
    ]
    table = _rows(("parameter", "in", "meaning"), parameters) if parameters else ""
    return (
        f'<h3><span class="m">{method.upper()}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation['summary'])}</p>{table}{_rows(('answer', 'content', 'meaning'), answers)}"
    )


def _body(body: dict[str, Any] | None, schemas: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """A line for each field of a body that is JSON, or one for the bytes."""
    if body is None:
        return
    schema = next(iter(body["content"].values()))["schema"]
    if "$ref" not in schema:
        yield "", _BODY, "The bytes."
        return
    model = schemas[_name(schema)]
    for name, field in model["properties"].items():
        needed = ", needed" if name in model.get("required", []) else ""
        yield name, f"{_BODY}, {_kind(field)}{needed}", _meaning(field)


def _model(name: str, schema: dict[str, Any]) -> str:
    fields = [(field, _kind(value), _meaning(value)) for field, value in schema["properties"].items()]
    text = f"<h3><code>{escape(name)}</code></h3><p>{escape(schema.get('description', ''))}</p>"
    return text + _rows(("field", "kind", "meaning"), fields)


def _answered(described: dict[str, Any]) -> list[str]:
    """The models of all answers, and those in them."""
    answers = str([each["responses"] for operations in described["paths"].values() for each in operations.values()])
    schemas = described["components"]["schemas"]
    found = {name for name in schemas if f"/{name}'" in answers}
    inner = str([schemas[name] for name in found])
    return sorted(found | {name for name in schemas if f"/{name}'" in inner})


def _kinds(content: dict[str, Any]) -> str:
    """What comes, in a word."""
    for kind, value in content.items():
        schema = value.get("schema", {})
        return _name(schema) + (f" ({CONTENT_TYPE})" if kind == CONTENT_TYPE else "") if "$ref" in schema else "bytes"
    return ""


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _kind(schema: dict[str, Any]) -> str:
    """The type of a field."""
    if "$ref" in schema:
        return _name(schema)
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    values = schema.get("additionalProperties")
    return f"object of {_kind(values)}" if isinstance(values, dict) else str(schema.get("type", "anything"))


def _meaning(schema: dict[str, Any]) -> str:
    """A field's description, be it that of what it may be, and what it is by default."""
    inner = [each.get("description", "") for each in schema.get("anyOf", [])]
    text = str(schema.get("description") or next(filter(None, inner), ""))
    given = schema.get("default")
    return text if given in (None, "", {}) else f"{text} By default {str(given).lower()}.".strip()


def _errors() -> list[tuple[str, ...]]:
    kinds: list[type[GfsError]] = sorted(ERRORS_BY_CODE.values(), key=lambda kind: kind.code)
    return [
        (str(kind.http_status), str(kind.code), kind.__name__, (kind.__doc__ or "").splitlines()[0]) for kind in kinds
    ]


def _rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
