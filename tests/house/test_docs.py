"""The documentation is true: what it names exists, what exists is in it, what it shows happens."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from gfschunkserver.config import ChunkServerConfig
from gfsclient.cli.__main__ import gfsclient
from gfsclient.config import CONFIG_VARIABLE, ClientConfig
from gfscluster import up
from gfscluster.__main__ import gfs
from gfscluster.health import Band
from gfsmaster.config import MasterConfig
from gfsprotocol.errors import ERRORS_BY_CODE
from tests.cluster.harness import BIN, Cluster
from tests.house import documentation
from tests.house.documentation import ROOT

PAGES = [ROOT / "README.md", *sorted(documentation.DOCS.rglob("*.md"))]
PROGRAMS = {"gfs": gfs, "gfsclient": gfsclient}
KINDS = (MasterConfig, ChunkServerConfig, ClientConfig)


@pytest.mark.parametrize("page", documentation.pages(), ids=lambda page: page.name)
def test_what_is_made_from_the_code_is_up_to_date(page: Path) -> None:
    assert documentation.rendered(page.read_text()) == page.read_text(), "run: make docs"


def test_every_part_that_can_be_made_is_on_a_page() -> None:
    text = "".join(page.read_text() for page in documentation.pages())
    assert all(f"<!-- made from the code: {name} -->" in text for name in documentation.PARTS)


def _commands_in(text: str) -> Iterator[list[str]]:
    """Command lines of ours in code blocks and code spans."""
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^(?: {4}|\$ )(.+)$", text, re.MULTILINE)
    for piece in code:
        for found in re.finditer(r"(?:^|[|&;]\s*)(gfs|gfsclient)((?: [^\s|&;`]+)*)", piece.strip()):
            yield [found[1], *found[2].split()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_on_a_page_exist(page: Path) -> None:
    for program, *words in _commands_in(page.read_text()):
        command: click.Command = PROGRAMS[program]
        flags = _flags(command)
        for word in words:
            context = click.Context(command)
            found = command.get_command(context, word) if isinstance(command, click.Group) else None
            if found is not None:
                command, flags = found, flags | _flags(found)
            elif word.startswith("--"):
                assert word.partition("=")[0] in flags, f"{page.name}: {program} {' '.join(words)}: no {word}"
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
                pytest.fail(f"{page.name}: {program} has no command {word}")


def _flags(command: click.Command) -> set[str]:
    names = {"--help", "--version"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names |= {*parameter.opts, *parameter.secondary_opts}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_environment_variables_on_a_page_exist(page: Path) -> None:
    known = {CONFIG_VARIABLE, *(str(parameter.envvar) for parameter in up.command.params if parameter.envvar)}
    for kind in KINDS:
        prefix = str(kind.model_config.get("env_prefix"))
        known |= {(prefix + field).upper() for field in kind.model_fields}
    assert set(re.findall(r"\bGFS_[A-Z_]+\b", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_on_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_that_the_tour_names_exist() -> None:
    page = (documentation.DOCS / "architecture" / "index.md").read_text()
    folder = ROOT
    for name in re.findall(r"`([\w/.]+\.py|\w+/gfs\w+/?)`", page):
        if name.endswith(".py"):
            assert (folder / name).exists() or (ROOT / name).exists(), f"{folder.name}/{name}"
        else:
            folder = ROOT / name


def test_every_setting_has_a_description() -> None:
    for kind in KINDS:
        for name, info in kind.model_fields.items():
            assert info.description and info.description.endswith("."), f"{kind.__name__}.{name}"


def test_every_command_has_help() -> None:
    for program in PROGRAMS.values():
        for name in program.list_commands(click.Context(program)):
            command = program.get_command(click.Context(program), name)
            assert command is not None and command.help
            options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
            assert all(option.help for option in options), name


def test_exit_codes_lie_in_the_documented_bands() -> None:
    bands = {1: range(3, 20), 2: range(20, 30), 3: range(30, 40), 4: range(40, 50), 5: range(50, 70)}
    for code, kind in ERRORS_BY_CODE.items():
        assert code == 1 or kind.exit_code in bands[code // 100], kind.__name__
    page = (documentation.DOCS / "errors.md").read_text()
    for band in bands.values():
        assert f"| {band.start}\u2013{band.stop - 1} |" in page


def test_exit_codes_of_status_are_on_the_page() -> None:
    page = (documentation.DOCS / "operations.md").read_text()
    for band in Band:
        assert f"| {band.value} |" in page
        assert str(band.value) in (gfs.get_command(click.Context(gfs), "status") or gfs).get_help(click.Context(gfs))


def test_locks_name_no_index_and_no_path() -> None:
    for name in ("requirements.lock", "requirements-mount.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert not re.search(r"://|^\s*-(?!-hash)|^\s*--(?!hash)|^#.*/", text, re.MULTILINE), name
        pins = re.findall(r"^([\w.-]+)==\S+ \\$", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^\S", text, re.MULTILINE)) > 20


def test_every_locked_runtime_dependency_is_the_same_for_development() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([\w.-]+==\S+)", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-mount.lock") <= pins("requirements-dev.lock")


def test_modules_that_must_be_pure_exist() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = [contract for contract in contracts if "pure" in contract["name"]]
    for module in pure["source_modules"]:
        importlib.import_module(module)


@pytest.mark.cluster
@pytest.mark.slow
def test_the_session_in_the_readme_happens(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    session, python = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("console", "python"))
    running = cluster()
    environment = {**running.environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE):
        if command.startswith("export PATH"):
            continue
        if command.startswith("gfs status"):
            running.wait_for("all copies", lambda status: status["state"] == "well")
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, expected), f"$ {command}\n{done.stdout}{done.stderr}"
    done = subprocess.run([sys.executable, "-c", python], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b'Hello, chunks!'\n['bigfile', 'hello', 'log']\n"
