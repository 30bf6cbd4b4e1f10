"""What is remembered of clients' calls, and for how long."""

import pytest

from gfsmaster.sessions import SESSION_SECONDS, Sessions
from gfsprotocol import messages as msg
from gfsprotocol.errors import CallForgotten, NotFound
from tests.master.leading import leading, replayed

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


@pytest.mark.parametrize("unknown_is_new", [False, True])
async def test_fault_17_a_call_that_was_refused_is_not_done_when_its_first_transmission_comes_late(
    unknown_is_new: bool,
) -> None:
    """Found by the simulation with late requests: what a client was told is not there was removed a moment later."""
    async with leading() as harness:
        broken = await harness.connect("client", CLIENT)
        again = await harness.connect("client", CLIENT)
        other = await harness.connect("client", OTHER)
        number = 1
        if not unknown_is_new:
            await again.call(msg.Mkdir(b"/d"), 5, (), msg.Call(1, 1))
            number = 2
        retry = msg.Call(number, number, retry=True, unknown_is_new=unknown_is_new)
        with pytest.raises(NotFound):
            await again.call(msg.Unlink(b"/x"), 5, (), retry)
        await other.call(msg.Create(b"/x", open=False), 5, (), msg.Call(1, 1))
        with pytest.raises(NotFound):
            await broken.call(msg.Unlink(b"/x"), 5, (), msg.Call(number, number))
        await other.call(msg.Stat(b"/x"), 5)
        assert replayed(harness.log).sessions.result(CLIENT, number, retry=True) == msg.ErrorReply(
            NotFound.code, "/x: no such file or directory"
        )


async def test_a_client_that_was_told_of_a_success_is_known_though_nothing_changed() -> None:
    """Found by simulation seed 200287: its next retry was refused with CallForgotten."""
    async with leading() as harness:
        first, other = await harness.connect("client", CLIENT), await harness.connect("client", OTHER)
        await other.call(msg.Mkdir(b"/d"), 5, (), msg.Call(1, 1))
        await first.call(msg.Mkdir(b"/d", parents=True), 5, (), msg.Call(1, 1))
        await first.call(msg.Mkdir(b"/e"), 5, (), msg.Call(2, 2, retry=True))
