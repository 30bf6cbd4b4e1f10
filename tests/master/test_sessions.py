"""What is remembered of clients' calls, and for how long."""

import pytest

from gfsmaster.sessions import SESSION_SECONDS, Sessions
from gfsprotocol import messages as msg
from gfsprotocol.errors import CallForgotten

HOUR_NS = 3600 * 10**9
CLIENT, OTHER = b"c" * 16, b"o" * 16


def test_fault_32_wall_clocks_an_hour_off_in_both_directions_forget_no_call() -> None:
    """Found by simulation seed 2: one record with a clock that ran ahead made every retry fail with CallForgotten."""
    sessions = Sessions()
    sessions.remember(CLIENT, 2, 1, 10 * HOUR_NS, msg.Count(7))
    sessions.remember(OTHER, 1, 1, 12 * HOUR_NS, msg.Done())
    assert sessions.result(CLIENT, 2, retry=True) == msg.Count(7)


def test_a_client_that_is_long_gone_is_forgotten_and_its_retry_refused() -> None:
    sessions = Sessions()
    sessions.remember(CLIENT, 2, 1, HOUR_NS, msg.Count(7))
    sessions.remember(OTHER, 1, 1, HOUR_NS + (SESSION_SECONDS + 1) * 10**9, msg.Done())
    with pytest.raises(CallForgotten):
        sessions.result(CLIENT, 2, retry=True)
