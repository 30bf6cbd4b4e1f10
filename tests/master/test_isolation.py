"""When a leader takes itself for cut off."""

from gfsmaster.isolation import Isolation


def look(isolation: Isolation, begin: float, end: float) -> list[float]:
    """Looks every tenth of a second; the times at which it said that we are cut off."""
    times = [begin + step / 10 for step in range(1, round((end - begin) * 10) + 1)]
    return [time for time in times if isolation.is_cut_off(time)]


def test_silence_for_a_lease_after_a_word() -> None:
    isolation = Isolation(2.0, 0.5, 100.0)
    isolation.heard()
    assert round(look(isolation, 100.0, 103.0)[0], 6) in (102.0, 102.1)


def test_a_word_in_time_begins_anew() -> None:
    isolation = Isolation(2.0, 0.5, 100.0)
    for second in range(100, 110):
        isolation.heard()
        assert look(isolation, second, second + 1) == []


def test_who_never_heard_anyone_is_alone_and_not_cut_off() -> None:
    assert look(Isolation(2.0, 0.5, 100.0), 100.0, 130.0) == []


def test_slow_heartbeats_are_waited_for() -> None:
    isolation = Isolation(2.0, 5.0, 100.0)
    isolation.heard()
    assert look(isolation, 100.0, 109.5) == []
    assert look(isolation, 109.5, 110.5) != []


def test_a_process_that_was_stopped_was_not_listening() -> None:
    isolation = Isolation(2.0, 0.5, 100.0)
    isolation.heard()
    assert not isolation.is_cut_off(160.0)
    assert look(isolation, 160.0, 161.0) == []
