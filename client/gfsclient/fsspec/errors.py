"""Our errors as those that programs written for fsspec expect."""

from collections.abc import Iterator
from contextlib import contextmanager

from gfsprotocol.errors import GfsError


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raises a GfsError from within as an OSError with its errno: FileNotFoundError, PermissionError, TimeoutError."""
    try:
        yield
    except GfsError as error:
        raise OSError(error.errno, error.message) from error
