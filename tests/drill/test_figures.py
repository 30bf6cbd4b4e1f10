"""Statistics, the table and the page, from made-up ledgers."""

import re
from html.parser import HTMLParser

import msgspec
import pytest

from gfscluster.drill import report
from gfscluster.drill.ledger import Call, Outcome
from gfscluster.drill.page import MARKS_MAX, Timeline, render
from gfscluster.drill.report import Report, Round
from gfscluster.drill.statistics import first_acknowledged, longest_gaps, percentile
from tests.house.documentation import documented_fields


def call(
    client: int, started: float, ended: float, outcome: Outcome = Outcome.ACKNOWLEDGED, reads: bool = False
) -> Call:
    return Call(client, "x", started, ended, outcome, reads=reads)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 50) is None


def test_the_first_answer_counts_from_calls_begun_after_the_hit() -> None:
    calls = [
        call(1, 9.9, 10.1),
        call(2, 10.2, 10.3, Outcome.REFUSED),
        call(3, 10.2, 10.35, reads=True),
        call(4, 10.2, 10.5),
        call(5, 10.4, 10.45),
    ]
    assert first_acknowledged(calls, 10.0) == pytest.approx(0.45)
    assert first_acknowledged(calls, 10.0, reads=True) == pytest.approx(0.35)
    assert first_acknowledged(calls[:1], 10.0) is None


def test_the_longest_gap_of_each_client_has_the_ends_of_the_window_too() -> None:
    calls = [call(1, 0, 10.1), call(1, 0, 10.2), call(1, 0, 12.2), call(2, 0, 10.5, Outcome.UNKNOWN)]
    gaps = longest_gaps(calls, 10.0, 13.0)
    assert gaps == {1: pytest.approx(2.0), 2: pytest.approx(3.0)}


def made_round(number: int, first: float | None = 0.05, faults: dict[str, int] | None = None) -> Round:
    return Round(
        number=number,
        leader="master-1",
        successor="master-2",
        epoch=number + 1,
        first_acknowledged=first,
        longest_gap=0.1,
        detect=0.01,
        elect=0.02,
        serve=0.03,
        ended=True,
        calls=300,
        refused=10,
        unknown=0,
        reader_errors=0,
        faults=report.no_faults() | (faults or {}),
        findings=[],
        errors=[],
    )


def made_report(rounds: list[Round], findings: list[str] | None = None) -> Report:
    faults = report.no_faults()
    for one in rounds:
        faults = {name: count + one.faults[name] for name, count in faults.items()}
    return Report(
        mode="kill",
        means="",
        rounds_wanted=len(rounds),
        rounds=rounds,
        clients=10,
        files=5,
        calls=sum(one.calls for one in rounds),
        duplicated_records=0,
        faults=faults,
        findings=findings or [],
        percentiles=report.percentiles_of(rounds),
        seed=1,
        recovered=True,
    )


def test_the_table_names_figures_and_verdict() -> None:
    good = made_report([made_round(1), made_round(2, 0.2), made_round(3, None)])
    lines = "\n".join(report.summary_lines(good))
    assert re.search(r"p50 +0\.050 ", lines)
    assert re.search(r"max +0\.200 ", lines)
    assert "Nothing that was acknowledged is lost" in lines
    assert re.search(r"^ +3  master-1 > master-2 +- ", report.round_line(good.rounds[2]))
    bad = made_report([made_round(1, faults={"lost": 2})], ["/a: is gone"])
    lines = "\n".join(report.summary_lines(bad))
    assert not bad.is_clean
    assert "lost 2" in lines
    assert "/a: is gone" in lines
    assert "Nothing that was acknowledged is lost" not in lines


def test_a_pause_counts_the_leaders_that_were_ended() -> None:
    paused = made_report([made_round(1), made_round(2)])
    paused.rounds[1].ended = False
    paused.mode = "pause"
    assert "1 of 2 stopped leaders held the log's lock" in "\n".join(report.summary_lines(paused))


def test_json_has_what_the_page_of_commands_promises() -> None:
    made = msgspec.to_builtins(made_report([made_round(1)]))
    fields = documented_fields("gfs drill --json")
    assert fields == [*made, *(name for name in made["rounds"][0] if name not in made)]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def timeline(calls: int = 5) -> Timeline:
    times = [step / 100 for step in range(calls)]
    return Timeline("Round <1>", 0.05, {0: times, 3: [0.3]}, {"hit": 0.0, "elect": 0.02, "first write": 0.05})


def test_the_page_is_one_file_with_a_picture() -> None:
    page = render(made_report([made_round(1)], ["/a<b>: odd"]), [timeline()])
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(r"https?://|src=|href=|url\(|@import", page)
    assert "prefers-color-scheme: dark" in page
    assert "/a&lt;b&gt;: odd" in page
    assert "Round &lt;1&gt;" in page
    kinds = [attributes.get("class") for tag, attributes in tags.seen if tag in ("path", "line")]
    assert kinds.count("call") == 2
    assert {"hit", "mark", "first"} <= set(kinds)


def test_the_page_stays_small_however_many_calls_there_were() -> None:
    many = Timeline("x", 0.1, {0: [step / 1e6 for step in range(100_000)]}, {"hit": 0.0})
    page = render(made_report([made_round(1)]), [many])
    assert len(re.findall(r"v12", page)) <= MARKS_MAX
