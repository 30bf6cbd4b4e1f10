"""What a program is told, in numbers."""

import errno

import pytest

from gfsprotocol.errors import (
    Busy,
    DataLost,
    DeadlineExceeded,
    GfsError,
    NoSpace,
    NotFound,
    TooFewServers,
    Unreachable,
    WritesLost,
)

pyfuse3 = pytest.importorskip("pyfuse3")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (NotFound, errno.ENOENT),
        (NoSpace, errno.ENOSPC),
        (TooFewServers, errno.ETIMEDOUT),
        (Busy, errno.ETIMEDOUT),
        (Unreachable, errno.ETIMEDOUT),
        (DeadlineExceeded, errno.ETIMEDOUT),
        (DataLost, errno.EIO),
        (WritesLost, errno.EIO),
    ],
)
def test_the_error_number_of(error: type[GfsError], number: int) -> None:
    from gfsclient.mount.adapter import number_of

    assert number_of(error()) == number
