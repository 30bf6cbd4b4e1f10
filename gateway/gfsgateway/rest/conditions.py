"""Conditional requests (RFC 9110 §13): for reading, whether it is worth sending; for writing, whether it is allowed."""

from aiohttp import ETag, hdrs, web

from gfsgateway.rest import shapes
from gfsprotocol.errors import ConditionFailed, InvalidArgument
from gfsprotocol.messages import Attributes

ANY = "*"


class Conditions:
    """Of one request. InvalidArgument for validators that cannot be read."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._match = _validators(request, hdrs.IF_MATCH, request.if_match)
        self._none_match = _validators(request, hdrs.IF_NONE_MATCH, request.if_none_match)
        self._unmodified_since = request.if_unmodified_since if self._match is None else None
        self._modified_since = request.if_modified_since if self._none_match is None else None

    @property
    def is_any(self) -> bool:
        """Whether a change depends on what is there."""
        return self._match is not None or self._none_match is not None or self._unmodified_since is not None

    def check(self, found: Attributes | None) -> None:
        """ConditionFailed unless a change may be made where ``found`` is, or nothing."""
        if self._match is not None and not _is_among(found, self._match, weak=False):
            raise ConditionFailed("the file is not the one of If-Match")
        if self._unmodified_since is not None and (
            found is None or shapes.moment(found.modified_ns) > self._unmodified_since
        ):
            raise ConditionFailed("the file was changed since If-Unmodified-Since, or is not there")
        if self._none_match is not None and _is_among(found, self._none_match, weak=True):
            raise ConditionFailed("the file is one of If-None-Match")

    def is_known(self, found: Attributes) -> bool:
        """Before reading: whether the client has it already (304). ConditionFailed if it does not want this one."""
        if self._none_match is not None:
            known = _is_among(found, self._none_match, weak=True)
            if self._match is not None and not _is_among(found, self._match, weak=False):
                raise ConditionFailed("the file is not the one of If-Match")
            if self._unmodified_since is not None and shapes.moment(found.modified_ns) > self._unmodified_since:
                raise ConditionFailed("the file was changed since If-Unmodified-Since")
            return known
        self.check(found)
        return self._modified_since is not None and shapes.moment(found.modified_ns) <= self._modified_since


def applies(request: web.BaseRequest, found: Attributes) -> bool:
    """If-Range: whether the ranges are of what is there. A date counts only if it is exactly the file's."""
    header = request.headers.get(hdrs.IF_RANGE)
    if header is None:
        return True
    return header.strip() in (shapes.etag(found), shapes.last_modified(found))


def _validators(request: web.BaseRequest, header: str, parsed: tuple[ETag, ...] | None) -> tuple[ETag, ...] | None:
    if header in request.headers and not parsed:
        raise InvalidArgument(f"the {header} header holds no entity tags")
    return parsed


def _is_among(found: Attributes | None, tags: tuple[ETag, ...], weak: bool) -> bool:
    if found is None:
        return False
    own = shapes.etag(found).strip('"')
    return any(tag.value == ANY or (tag.value == own and (weak or not tag.is_weak)) for tag in tags)
