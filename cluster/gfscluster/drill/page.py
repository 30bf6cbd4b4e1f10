"""A drill as one HTML page with its timelines as pictures (SVG), no other files, light and dark. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from gfscluster.drill.report import FIGURES, PERCENTILES, Report, Round, percentile_name, seconds_text

WIDTH: Final = 960
LEFT: Final = 90
ROW: Final = 18
LABEL: Final = 13
BEFORE_SECONDS: Final = 0.5
AFTER_SECONDS: Final = 1.0
MARKS_MAX: Final = 2000
"""Per client; more calls than that are drawn thinned out."""
ROUNDS_SHOWN: Final = 200

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #ffffff; --line: #d1d9e0;
  --call: #0969da; --hit: #cf222e; --step: #9a6700; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #3d444d;
  --call: #4493f8; --hit: #f85149; --step: #d29922; --good: #3fb950; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .7rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.good { color: var(--good); } .bad { color: var(--hit); } .soft { color: var(--soft); }
figure { margin: 1.5rem 0; overflow-x: auto; } svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } svg .row { stroke: var(--line); }
svg .call { stroke: var(--call); stroke-width: 1.4; fill: none; }
svg .mark { stroke: var(--step); stroke-width: 1.4; } svg .hit { stroke: var(--hit); stroke-width: 2; }
svg .first { stroke: var(--good); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Timeline:
    """Of one round; times in seconds from the hit."""

    title: str
    first_acknowledged: float
    clients: Mapping[int, Sequence[float]]
    """When each client's calls were acknowledged."""
    marks: Mapping[str, float]


def render(report: Report, timelines: Sequence[Timeline]) -> str:
    """The page."""
    verdict = (
        '<p class="good">Nothing that was acknowledged is lost, nothing was done twice.</p>'
        if report.is_clean
        else '<p class="bad">Not everything is as it was acknowledged: see the findings.</p>'
    )
    parts = [
        f"<h1>Drill: {escape(report.mode)}</h1>",
        verdict,
        f'<p class="soft">{len(report.rounds)} rounds, {report.calls} calls of {report.clients} clients, '
        f"{report.files} files and directories at the beginning. Times are seconds from the hit.</p>",
        _percentiles(report),
        f"<p>{_faults(report.faults)}</p>",
        _findings(report.findings),
        "<h2>Timelines of the slowest rounds</h2>",
        '<p class="soft">One row per client, one stroke per acknowledged call.</p>',
        *(_figure(timeline) for timeline in timelines),
        "<h2>Rounds</h2>",
        _rounds(report.rounds[:ROUNDS_SHOWN]),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Drill: {escape(report.mode)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def _percentiles(report: Report) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in FIGURES.values())
    rows = []
    for percent in PERCENTILES:
        name = percentile_name(percent)
        cells = "".join(f"<td>{seconds_text(report.percentiles[figure][name])}</td>" for figure in FIGURES)
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _rounds(rounds: Sequence[Round]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in FIGURES.values())
    rows = []
    for one in rounds:
        cells = "".join(f"<td>{seconds_text(getattr(one, figure))}</td>" for figure in FIGURES)
        who = f"{one.number}: {one.leader} &rarr; {one.successor}"
        rest = f"<td>{one.calls}</td><td>{sum(one.faults.values())}</td><td>{escape(one.note)}</td>"
        rows.append(f"<tr><td>{who}</td>{cells}{rest}</tr>")
    return f"<table><tr><th>round</th>{head}<th>calls</th><th>faults</th><th></th></tr>{''.join(rows)}</table>"


def _faults(faults: Mapping[str, int]) -> str:
    return "Faults: " + ", ".join(f"{escape(name.replace('_', ' '))} {count}" for name, count in faults.items())


def _findings(findings: Sequence[str]) -> str:
    if not findings:
        return ""
    return "<h2>Findings</h2><ul>" + "".join(f"<li>{escape(text)}</li>" for text in findings) + "</ul>"


def _figure(timeline: Timeline) -> str:
    end = max(timeline.marks.values()) + AFTER_SECONDS
    scale = (WIDTH - LEFT - 10) / (end + BEFORE_SECONDS)

    def across(seconds: float) -> float:
        return round(LEFT + (seconds + BEFORE_SECONDS) * scale, 1)

    top = LABEL * len(timeline.marks) + 10
    bottom = top + ROW * len(timeline.clients)
    drawn = []
    for row, client in enumerate(sorted(timeline.clients)):
        middle = top + ROW * row + ROW // 2
        drawn.append(f'<text x="4" y="{middle + 4}">client {client}</text>')
        drawn.append(f'<line class="row" x1="{LEFT}" x2="{WIDTH - 10}" y1="{middle}" y2="{middle}"/>')
        times = [time for time in timeline.clients[client] if -BEFORE_SECONDS <= time <= end]
        times = times[:: max(1, -(-len(times) // MARKS_MAX))]
        strokes = "".join(f"M{across(time)} {middle - 6}v12" for time in times)
        drawn.append(f'<path class="call" d="{strokes}"/>')
    for number, (name, seconds) in enumerate(timeline.marks.items()):
        kind = {"hit": "hit", "first write": "first"}.get(name, "mark")
        place = across(seconds)
        height = LABEL * (number + 1)  # each in a line of its own: some are only milliseconds apart
        drawn.append(f'<line class="{kind}" x1="{place}" x2="{place}" y1="{height - 9}" y2="{bottom}"/>')
        drawn.append(f'<text x="{place + 4}" y="{height}">{escape(name)} {seconds:.3f}</text>')
    picture = "".join(drawn)
    return (
        f'<figure><figcaption>{escape(timeline.title)}</figcaption><svg viewBox="0 0 {WIDTH} {bottom + 6}" role="img" '
        f'aria-label="{escape(timeline.title)}">{picture}</svg></figure>'
    )
