"""The parameters of a request, as WebHDFS reads them: names in any case, unknown ones ignored, an empty one is none."""

import re
from collections.abc import Iterable
from typing import Final

from gfsclient import paths
from gfsgateway.webhdfs.exceptions import ILLEGAL_ARGUMENT, HdfsRefusal, bad_parameter
from gfsprotocol.errors import InvalidArgument

_WHOLE: Final = re.compile("[0-9]{1,19}")
_PERMISSION: Final = re.compile("0?[01]?[0-7]{1,3}")
_NUMBER_MAX: Final = 2**63 - 1


class Parameters:
    """What stands behind the question mark."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name.lower(), []).append(value)

    def text(self, name: str) -> str:
        """The first value of a parameter; empty if it is not there."""
        return self._values.get(name, [""])[0]

    def required(self, name: str) -> str:
        """The value of a parameter that must be there. IllegalArgumentException if it is not."""
        value = self.text(name)
        if not value:
            raise HdfsRefusal(ILLEGAL_ARGUMENT, f"Required param {name} for op: {self.text('op').upper()} is null")
        return value

    def texts(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return [value for value in self._values.get(name, []) if value]

    def whole(self, name: str, least: int = 0) -> int | None:
        """A whole number, or None."""
        value = self.text(name)
        if value in ("", "null"):
            return None
        if not _WHOLE.fullmatch(value):
            raise bad_parameter(name, f'Failed to parse "{value}" to Long.')
        number = min(int(value), _NUMBER_MAX)
        if number < least:
            raise bad_parameter(name, f"Invalid parameter range: {name} = {number} < {least}")
        return number

    def time_ms(self, name: str) -> int | None:
        """A time in milliseconds since the epoch; None if it is -1 or not there."""
        return None if self.text(name) == "-1" else self.whole(name)

    def flag(self, name: str, default: bool = False) -> bool:
        """``true`` or ``false``, in any case."""
        value = self.text(name).lower()
        if value not in ("", "null", "true", "false"):
            raise bad_parameter(name, f'Failed to parse "{value}" to Boolean.')
        return default if value in ("", "null") else value == "true"

    def permission(self, name: str, default: int) -> int:
        """Permission bits in octal, with the sticky bit at most."""
        value = self.text(name)
        if value in ("", "null"):
            return default
        if not _PERMISSION.fullmatch(value):
            raise bad_parameter(name, f'Failed to parse "{value}" as a radix-8 short integer.')
        return int(value, 8)

    def path(self, name: str) -> bytes:
        """An absolute path, which must be there."""
        return absolute(name, self.required(name))

    def paths(self, name: str) -> list[bytes]:
        """Absolute paths, with commas between them."""
        return [absolute(name, part) for part in self.required(name).split(",")]

    def items(self) -> list[tuple[str, str]]:
        """All of it, in order, for a redirect."""
        return [(name, value) for name, values in self._values.items() for value in values]


def absolute(name: str, text: str) -> bytes:
    """The path that a parameter names. IllegalArgumentException if it is not absolute, or holds '..'."""
    try:
        path = paths.to_bytes(text)
    except (UnicodeEncodeError, InvalidArgument) as error:
        raise bad_parameter(name, f'"{text!a}" is not an absolute path.') from error
    if b".." in path.split(b"/"):
        raise bad_parameter(name, f'"{text}" holds "..".')
    return path.rstrip(b"/") or b"/"
