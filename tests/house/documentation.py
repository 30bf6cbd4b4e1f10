"""The parts of ``docs/`` that are made from the code: ``make docs`` writes them, a test finds them out of date.

A page holds ``<!-- made from the code: NAME -->`` and ``<!-- end -->``; what stands between is ours.
"""

import errno
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from pydantic.fields import FieldInfo

from gfschunkserver import measures as chunkserver_measures
from gfschunkserver.config import ChunkServerConfig
from gfsclient.cli.__main__ import gfsclient
from gfsclient.config import ClientConfig
from gfsclient.mount import measures as mount_measures
from gfscluster.__main__ import gfs
from gfscluster.flags import flag_name
from gfsgateway import measures as gateway_measures
from gfsgateway.config import GatewayConfig
from gfsmaster import measures
from gfsmaster.config import MasterConfig
from gfsprotocol.errors import ERRORS_BY_CODE
from gfsprotocol.metrics import Metric
from gfsprotocol.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HELP_COLUMNS = 100
_PART = re.compile(r"(<!-- made from the code: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings_table(kind: type[Settings], flags: bool) -> str:
    """One row per setting."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    header = ["setting", *(["flag"] if flags else []), "environment", "default", "meaning"]
    rows = []
    for name, info in kind.model_fields.items():
        flag = [f"`{flag_name(name)}`"] if flags else []
        rows.append([f"`{name}`", *flag, f"`{(prefix + name).upper()}`", _default(info), info.description or ""])
    return _table(header, rows)


def errors_table() -> str:
    """One row per error, in order of exit codes."""
    kinds = sorted(ERRORS_BY_CODE.values(), key=lambda kind: (kind.exit_code, kind.code))
    rows = [
        [
            str(kind.exit_code),
            f"`{kind.__name__}`",
            str(kind.code),
            errno.errorcode[kind.errno],
            str(kind.http_status),
            kind.kind.value,
            (kind.__doc__ or "").splitlines()[0],
        ]
        for kind in kinds
    ]
    return _table(["exit code", "error", "wire code", "errno", "HTTP", "kind", "meaning"], rows)


def help_pages(program: click.Group, name: str) -> str:
    """The help of a program and of all its commands."""
    return "\n".join(f"### {title}\n\n```text\n{text}\n```\n" for title, text in _help(program, name, None)).rstrip()


def _help(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=HELP_COLUMNS, **command.context_settings
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for subcommand in command.list_commands(context):
            found = command.get_command(context, subcommand)
            assert found is not None
            yield from _help(found, subcommand, context)


def metrics_table(metrics: Iterable[Metric]) -> str:
    """One row per metric, as ``/metrics`` describes it."""
    rows = [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help]
        for metric in metrics
    ]
    return _table(["metric", "kind", "labels", "meaning"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "settings-master": lambda: settings_table(MasterConfig, flags=True),
    "settings-chunkserver": lambda: settings_table(ChunkServerConfig, flags=True),
    "settings-client": lambda: settings_table(ClientConfig, flags=False),
    "metrics-master": lambda: metrics_table(measures.METRICS),
    "metrics-chunkserver": lambda: metrics_table(chunkserver_measures.METRICS),
    "metrics-gateway": lambda: metrics_table(gateway_measures.METRICS),
    "metrics-mount": lambda: metrics_table(mount_measures.METRICS),
    "settings-gateway": lambda: settings_table(GatewayConfig, flags=True),
    "errors": errors_table,
    "help-gfs": lambda: help_pages(gfs, "gfs"),
    "help-gfsclient": lambda: help_pages(gfsclient, "gfsclient"),
}


def rendered(page: str) -> str:
    """The page with its made parts as the code has them now."""
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[3]}", page)


def pages() -> list[Path]:
    return [page for page in sorted(DOCS.rglob("*.md")) if _PART.search(page.read_text())]


def documented_fields(heading: str) -> list[str]:
    """The fields that docs/cli.md promises for the JSON under the first heading that begins with ``heading``."""
    page = (DOCS / "cli.md").read_text()
    section = page.split(f"### `{heading}")[1].split("\n#")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "must be given"
    value = info.default if info.default_factory is None else []
    if value in ("", [], None):
        return "empty"
    return f"`{value}`"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    for page in pages():
        before = page.read_text()
        after = rendered(before)
        if after != before:
            page.write_text(after)
            print(f"wrote {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
