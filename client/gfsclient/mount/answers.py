"""What the mount's operations are asked and answer."""

from dataclasses import dataclass
from typing import NamedTuple

from gfsprotocol.messages import Attributes


class Answer(NamedTuple):
    """What a name leads to, or an inode is; None for a name that is missing."""

    attributes: Attributes | None
    attributes_seconds: float
    entry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What setattr(2)'s relatives ask for; None leaves it as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    accessed_ns: int | None = None
    modified_ns: int | None = None
