"""Digests of content (RFC 9530, and the Digest header of RFC 3230 before it): on request, and checked when given."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from blake3 import blake3

from gfsprotocol.errors import InvalidArgument

ALGORITHMS: Final[dict[str, Callable[[], "Hasher"]]] = {"blake3": blake3, "sha-256": hashlib.sha256}
WANTED: Final = ("Want-Repr-Digest", "Want-Content-Digest", "Want-Digest")
GIVEN: Final = ("Repr-Digest", "Content-Digest", "Digest")
_WISH = re.compile(r"\s*([\w-]+)\s*(?:(?:;\s*q\s*)?=\s*([0-9]{1,3}(?:\.[0-9]{0,3})?))?\s*")
"""``sha-256=5`` (RFC 9530), ``sha-256;q=0.5`` (RFC 3230), or no more than a name."""
_MEMBER = re.compile(r"\s*([\w-]+)\s*=\s*(.*?)\s*")


class Hasher(Protocol):
    """What hashlib's objects and BLAKE3's have in common."""

    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


def wanted(headers: Mapping[str, str]) -> str | None:
    """Of the algorithms that a client asks for and we have, the one that it prefers, the first of equals; or None."""
    found = [_WISH.fullmatch(member) for name in WANTED for member in headers.get(name, "").split(",")]
    weights = [(float(each[2] or 1), each[1].lower()) for each in found if each is not None]
    known = [each for each in weights if each[0] > 0 and each[1] in ALGORITHMS]
    return max(known, key=lambda each: each[0])[1] if known else None


def response_headers(algorithm: str, digest: bytes) -> dict[str, str]:
    """The same digest in the new header and in the old one."""
    text = base64.b64encode(digest).decode()
    return {"Repr-Digest": f"{algorithm}=:{text}:", "Digest": f"{algorithm}={text}"}


class Expected:
    """Digests that came with a body; of algorithms that we do not have nothing is known."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """InvalidArgument for a digest that cannot be read."""
        self._digests: list[tuple[str, Hasher, bytes]] = []
        for name in GIVEN:
            for member in filter(None, headers.get(name, "").split(",")):
                self._take(name, member)

    def _take(self, name: str, member: str) -> None:
        match = _MEMBER.fullmatch(member)
        if match is None:
            raise InvalidArgument(f"the {name} header cannot be read")
        algorithm, text = match[1].lower(), match[2].strip(":")
        if algorithm not in ALGORITHMS:
            return
        hasher = ALGORITHMS[algorithm]()
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument(f"the {name} header holds no base64") from error
        self._digests.append((algorithm, hasher, digest))

    def update(self, data: bytes) -> None:
        """The next bytes of the body."""
        for _, hasher, _ in self._digests:
            hasher.update(data)

    def check(self) -> None:
        """InvalidArgument if what came is not what was meant."""
        for algorithm, hasher, digest in self._digests:
            if hasher.digest() != digest:
                raise InvalidArgument(f"the body does not have the {algorithm} digest that came with it")

    def __bool__(self) -> bool:
        return bool(self._digests)
