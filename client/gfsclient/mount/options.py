"""What is to be mounted, where, and how: the source and the options of mount(8). Pure."""

from dataclasses import dataclass, replace
from typing import Final

from gfsprotocol.errors import InvalidArgument

DEADLINE_SECONDS: Final = 300.0
SCHEME: Final = "gfs://"
_FOR_KERNEL: Final = frozenset(("nodev", "dev", "nosuid", "suid", "noexec", "noatime"))
_IGNORED: Final = frozenset(
    {"rw", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "defaults", "exec"}
    | {"atime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime", "async"}
    | {"default_permissions"}
)
"""What mount(8) and fstab may say, and is for them, or is always so."""


@dataclass(frozen=True)
class MountOptions:
    """How a file system is mounted."""

    allow_other: bool = False
    read_only: bool = False
    deadline_seconds: float = DEADLINE_SECONDS
    config_file: str = ""
    supervise: bool = False
    metrics_port: int = 0
    """Of the loopback address; 0: there are no metrics."""
    kernel: frozenset[str] = frozenset()
    """What the kernel is told as it is."""


@dataclass(frozen=True)
class Source:
    """Which file system: its masters (none: those of the configuration) and the directory in it."""

    masters: tuple[str, ...] = ()
    subtree: bytes = b"/"


def parse_source(source: str) -> Source:
    """``gfs://host:port,host:port/path``, or ``/path``, or nothing for the whole of the configured cluster.

    InvalidArgument for anything else.
    """
    if not source or source in ("gfs", SCHEME):
        return Source()
    if source.startswith("/"):
        return Source(subtree=_subtree(source))
    if not source.startswith(SCHEME):
        raise InvalidArgument(f"'{source}' is not {SCHEME}host:port,host:port/path")
    addresses, slash, path = source[len(SCHEME) :].partition("/")
    masters = tuple(address for address in addresses.split(",") if address)
    if addresses and not masters:
        raise InvalidArgument(f"'{source}' names no master")
    return Source(masters, _subtree(slash + path))


def _subtree(path: str) -> bytes:
    names = [name for name in path.encode("utf-8", "surrogateescape").split(b"/") if name not in (b"", b".")]
    if b".." in names:
        raise InvalidArgument(f"'{path}' must not contain '..'")
    return b"/" + b"/".join(names)


def parse_options(texts: tuple[str, ...]) -> MountOptions:
    """The options of any number of ``-o``. InvalidArgument for one that is not known, or has no sensible value."""
    options = MountOptions()
    for text in texts:
        for option in filter(None, text.split(",")):
            options = _with(options, option)
    return options


def _with(options: MountOptions, option: str) -> MountOptions:
    name, _, value = option.partition("=")
    if option == "allow_other":
        return replace(options, allow_other=True)
    if option == "ro":
        return replace(options, read_only=True)
    if option == "supervise":
        return replace(options, supervise=True)
    if name == "deadline":
        return replace(options, deadline_seconds=_seconds(value))
    if name == "metrics":
        return replace(options, metrics_port=_port(value))
    if name == "config" and value:
        return replace(options, config_file=value)
    if option in _FOR_KERNEL:
        return replace(options, kernel=options.kernel | {option})
    if option in _IGNORED or name.startswith(("x-", "comment")):
        return options
    raise InvalidArgument(f"the mount option '{option}' is not known (see docs/mount.md)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise InvalidArgument(f"deadline={text} is not a number of seconds up to 3600")
    return seconds


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 2**16):
        raise InvalidArgument(f"metrics={text} is not the number of a port")
    return int(text)
