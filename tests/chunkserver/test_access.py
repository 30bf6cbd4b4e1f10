"""Read tokens that are shown again and again: genuine stays genuine, and ends at its time nevertheless."""

from pathlib import Path

import pytest

from gfschunkserver.access import Access
from gfschunkserver.files import OsFiles
from gfschunkserver.store import Store
from gfsprotocol import tokens
from gfsprotocol.errors import TokenRefused
from gfsprotocol.ids import MIB

SECRET = b"s" * 32
EPOCH = 3


def test_a_read_token_that_was_accepted_is_refused_when_its_time_is_over(tmp_path: Path) -> None:
    access = Access(SECRET, Store(OsFiles(), (tmp_path,), MIB, 0))
    token = tokens.sign_read(tokens.token_key(SECRET), tokens.ReadToken(7, 1, EPOCH, 1_000, 61_000))
    access.heard(EPOCH, 1_000)
    for _ in range(3):
        access.check_read(token, 7)
    with pytest.raises(TokenRefused, match="for chunk"):
        access.check_read(token, 8)
    access.heard(EPOCH, 61_001)
    with pytest.raises(TokenRefused, match="expired"):
        access.check_read(token, 7)


def test_a_token_that_is_not_genuine_is_refused_each_time(tmp_path: Path) -> None:
    access = Access(SECRET, Store(OsFiles(), (tmp_path,), MIB, 0))
    token = tokens.sign_read(tokens.token_key(b"o" * 32), tokens.ReadToken(7, 1, EPOCH, 1_000, 61_000))
    access.heard(EPOCH, 1_000)
    for _ in range(2):
        with pytest.raises(TokenRefused, match="not valid"):
            access.check_read(token, 7)
