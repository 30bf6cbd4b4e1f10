"""What files hold, from their names alone: any range of any file can be made again and compared. Pure."""

from blake3 import blake3


class WrongContent(Exception):
    """What came back is not what was written."""


def content(name: str, length: int, offset: int = 0) -> bytes:
    """``length`` bytes from ``offset`` on of the endless content that goes with ``name`` (BLAKE3 as a stream)."""
    return blake3(name.encode()).digest(length=length, seek=offset)


def check(name: str, data: bytes, length: int, offset: int = 0) -> None:
    """WrongContent unless ``data`` is the content of ``name`` at ``offset``."""
    if len(data) != length:
        raise WrongContent(f"{name}: {len(data)} bytes at {offset} instead of {length}")
    if data != content(name, length, offset):
        raise WrongContent(f"{name}: the {length} bytes at {offset} are not those that were written")
