"""Tokens: only the master's signature opens anything, and expiry needs no common clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfsprotocol import messages as msg
from gfsprotocol import tokens
from gfsprotocol.errors import TokenRefused

KEY = tokens.token_key(b"s" * 32)
READ = tokens.ReadToken(5, 2, 1, 100, 200)
GRANT = msg.Grant(5, 1, 2, 7, 0, 1 << 26, -1, 1, 100, 200, (msg.ServerAddress(1, "h", 9),))


def test_what_was_signed_is_opened() -> None:
    assert tokens.open_read(KEY, tokens.sign_read(KEY, READ)) == READ
    assert tokens.open_grant(KEY, tokens.sign_grant(KEY, GRANT)) == GRANT


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    for blob, opened in (
        (tokens.sign_read(KEY, READ), tokens.open_read),
        (tokens.sign_grant(KEY, GRANT), tokens.open_grant),
    ):
        changed = bytearray(blob)
        changed[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(TokenRefused):
            opened(KEY, bytes(changed))
        with pytest.raises(TokenRefused):
            opened(KEY, blob[: data.draw(st.integers(0, len(blob) - 1))])


def test_one_kind_does_not_open_as_the_other_nor_with_another_key() -> None:
    with pytest.raises(TokenRefused):
        tokens.open_grant(KEY, tokens.sign_read(KEY, READ))
    with pytest.raises(TokenRefused):
        tokens.open_read(tokens.token_key(b"t" * 32), tokens.sign_read(KEY, READ))


def test_the_keys_of_different_purposes_differ() -> None:
    secret = b"s" * 32
    assert len({tokens.client_key(secret), tokens.server_key(secret), tokens.token_key(secret), secret}) == 4


def test_fault_32_expiry_follows_the_leaders_clock_not_the_walls() -> None:
    clock = tokens.TokenClock()
    clock.heard(epoch=1, token_clock_ms=100, now_seconds=5000.0)
    clock.check(1, 100, 200, now_seconds=5000.05)
    with pytest.raises(TokenRefused):
        clock.check(1, 100, 200, now_seconds=5000.2)


def test_a_new_epoch_is_known_by_its_first_token_and_the_one_before_goes_on() -> None:
    clock = tokens.TokenClock()
    clock.heard(1, 1000, 10.0)
    clock.check(2, 50, 500, 10.0)
    clock.check(1, 900, 1500, 10.1)
    clock.heard(3, 0, 11.0)
    with pytest.raises(TokenRefused, match="epoch 1, which is over"):
        clock.check(1, 900, 99_000, 11.0)
