"""The client library of the file system: an async API (:class:`FileSystem`) and a sync one (:mod:`gfsclient.sync`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gfsclient.config import ClientConfig, load_config
    from gfsclient.files import File
    from gfsclient.filesystem import FileSystem

__all__ = ["ClientConfig", "File", "FileSystem", "load_config"]

_MODULES = {"ClientConfig": "config", "load_config": "config", "File": "files", "FileSystem": "filesystem"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: ``gfsclient --help`` needs none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'gfsclient' has no attribute '{name}'")
    return getattr(import_module(f"gfsclient.{_MODULES[name]}"), name)
