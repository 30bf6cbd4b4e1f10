"""A line of the table of which the routes and the OpenAPI document are made."""

from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from gfsgateway.routes import Handler

CONTENT: Final = "content"
"""As a body: the bytes of a file."""
DOCUMENT: Final = "document"
"""As a body: a page or document that is no model's JSON."""

BodyKind = type[BaseModel] | Literal["content", "document"] | None


class Query(BaseModel):
    """Base of query parameters; one that is not known is an error, because a misspelt one that is ignored is worse."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """No parameters."""


@dataclass(frozen=True)
class Endpoint:
    """What one method does at one address."""

    method: str
    path: str
    """``{...}`` stands for what varies; at the end, ``{path}`` may hold slashes."""
    handler: Handler
    summary: str
    query: type[Query] = NoQuery
    body: BodyKind = None
    answers: dict[int, BodyKind] = field(default_factory=dict)
    """What comes when it worked, by status."""
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    is_public: bool = False
    tag: str = ""

    @property
    def route(self) -> str:
        """For the router: up to what varies."""
        return self.path.partition("{")[0]
