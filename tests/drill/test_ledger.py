"""The ledger's checks: each kind of fault is planted and found, and a good history is left alone."""

from gfscluster.drill.ledger import (
    Call,
    Fault,
    LogRow,
    Outcome,
    check_counters,
    check_log,
    check_names,
    check_reads,
)

ACKNOWLEDGED, REFUSED, UNKNOWN = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN


def change(name: str, exists: bool, outcome: Outcome = ACKNOWLEDGED) -> Call:
    return Call(1, "make" if exists else "remove", 0.0, 1.0, outcome, effects=((name, exists),))


def count(value: int, outcome: Outcome = ACKNOWLEDGED, started: float = 0.0, ended: float = 1.0) -> Call:
    return Call(1, "count", started, ended, outcome, counter="/c", value=value)


def read(value: int, started: float, ended: float, client: int = 2) -> Call:
    return Call(client, "read", started, ended, ACKNOWLEDGED, counter="/c", value=value, reads=True)


def faults(calls: list[Call], present: set[str]) -> list[Fault]:
    return [finding.fault for finding in check_names(calls, present)]


def test_what_was_acknowledged_and_is_there_is_well() -> None:
    rename = Call(1, "rename", 0.0, 1.0, ACKNOWLEDGED, effects=(("/a", False), ("/b", True)))
    assert faults([change("/a", True), rename, change("/c", True), change("/c", False)], {"/b"}) == []


def test_an_acknowledged_name_that_is_missing_is_lost() -> None:
    assert faults([change("/a", True)], set()) == [Fault.LOST]


def test_an_acknowledged_removal_that_did_not_last_is_lost() -> None:
    assert faults([change("/a", True), change("/a", False)], {"/a"}) == [Fault.LOST]


def test_a_refused_call_with_an_effect_is_found() -> None:
    assert faults([change("/a", True, REFUSED)], {"/a"}) == [Fault.REFUSED_BUT_APPLIED]
    assert faults([change("/a", True), change("/a", False, REFUSED)], set()) == [Fault.REFUSED_BUT_APPLIED]


def test_what_was_lost_before_a_refused_call_is_lost() -> None:
    """The rename found nothing to rename; had it been done, the new name would be there."""
    rename = Call(1, "rename", 0.0, 1.0, REFUSED, effects=(("/a", False), ("/b", True)))
    assert faults([change("/a", True), rename], set()) == [Fault.LOST]
    assert faults([change("/a", True), rename], {"/b"}) == [Fault.REFUSED_BUT_APPLIED] * 2


def test_a_refused_call_without_effect_is_well() -> None:
    assert faults([change("/a", True, REFUSED)], set()) == []
    assert faults([change("/a", True), change("/a", False, REFUSED)], {"/a"}) == []


def test_an_unknown_outcome_allows_both() -> None:
    for present in (set[str](), {"/a"}):
        assert faults([change("/a", True, UNKNOWN)], present) == []


def test_after_an_unknown_outcome_the_next_answer_counts() -> None:
    assert faults([change("/a", True, UNKNOWN), change("/a", False)], {"/a"}) == [Fault.LOST]


def test_a_name_that_nobody_made_is_found() -> None:
    assert faults([], {"/a"}) == [Fault.TWICE]


def test_a_counter_keeps_the_last_acknowledged_value() -> None:
    assert check_counters([count(1), count(2)], {"/c": 2}) == []
    assert [finding.fault for finding in check_counters([count(1), count(2)], {"/c": 1})] == [Fault.LOST]
    assert [finding.fault for finding in check_counters([count(1)], {})] == [Fault.LOST]


def test_a_counter_may_have_a_value_of_unknown_outcome_but_no_refused_one() -> None:
    assert check_counters([count(1), count(2, UNKNOWN)], {"/c": 2}) == []
    assert check_counters([count(1), count(2, UNKNOWN)], {"/c": 1}) == []
    found = check_counters([count(1), count(2, REFUSED)], {"/c": 2})
    assert [finding.fault for finding in found] == [Fault.REFUSED_BUT_APPLIED]


def test_a_read_may_not_go_back_behind_an_acknowledged_write() -> None:
    calls = [count(1, ended=1.0), count(2, started=1.1, ended=2.0)]
    assert [finding.fault for finding in check_reads([*calls, read(1, 2.1, 2.2)])] == [Fault.BACKWARDS]
    assert check_reads([*calls, read(2, 2.1, 2.2)]) == []


def test_a_read_beside_a_write_may_see_either() -> None:
    calls = [count(1, ended=1.0), count(2, started=1.1, ended=2.0)]
    for value in (1, 2):
        assert check_reads([*calls, read(value, 1.5, 2.2)]) == []


def test_a_read_may_not_go_back_behind_what_another_client_has_seen() -> None:
    calls = [count(1, ended=1.0), count(2, started=1.1, ended=5.0), read(2, 2.0, 2.1, client=2)]
    assert check_reads([*calls, read(2, 2.2, 2.3, client=3)]) == []
    assert [finding.fault for finding in check_reads([*calls, read(1, 2.2, 2.3, client=3)])] == [Fault.BACKWARDS]


def row(first: int, epoch: int, begun: tuple[int, ...] = (), calls: tuple[tuple[bytes, int], ...] = ()) -> LogRow:
    return LogRow(first, epoch, begun, calls)


def test_a_good_log() -> None:
    rows = [row(1, 1, calls=((b"a", 1),)), row(2, 2, begun=(2,), calls=((b"b", 1),)), row(4, 2, calls=((b"a", 2),))]
    assert check_log(rows) == []


def test_a_call_in_two_records_was_applied_twice() -> None:
    rows = [row(1, 1, calls=((b"a", 1),)), row(2, 2, begun=(2,)), row(3, 2, calls=((b"a", 1),))]
    assert [finding.fault for finding in check_log(rows)] == [Fault.TWICE]


def test_an_epoch_that_falls_or_begins_twice_had_two_leaders() -> None:
    fallen = [row(1, 2, begun=(2,)), row(2, 1)]
    begun_twice = [row(1, 2, begun=(2,)), row(2, 2, begun=(2,))]
    for rows in (fallen, begun_twice):
        assert [finding.fault for finding in check_log(rows)] == [Fault.TWO_LEADERS]
