"""One running cluster for the tests of a module that only use it."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from gfsclient.cli.__main__ import main
from tests.cluster.harness import Cluster, running


class Result(NamedTuple):
    code: int
    out: bytes
    err: str


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one master and two chunk servers, for all tests of the module."""
    with running(tmp_path_factory.mktemp("shared") / "cluster") as made:
        yield made


@pytest.fixture
def call(
    shared_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Result]:
    """Runs ``gfsclient`` in this process, on the shared cluster; ``input`` is its standard input."""
    monkeypatch.setenv("GFS_CONFIG", str(shared_cluster.layout.client_file))

    def run(*arguments: str, input: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["gfsclient", *arguments])
        read_end, write_end = os.pipe()
        saved = os.dup(0)
        os.dup2(read_end, 0)
        os.close(read_end)
        assert len(input) <= 65536, "more than a pipe holds"
        os.write(write_end, input)
        os.close(write_end)
        try:
            code = main()
        finally:
            os.dup2(saved, 0)
            os.close(saved)
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode(errors="replace"))

    return run
