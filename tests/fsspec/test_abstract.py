"""fsspec's own suite for every file system."""

from collections.abc import Iterator

import pytest
from fsspec.tests import abstract

from gfsclient.fsspec import GfsFileSystem

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc]
    @pytest.fixture
    def fs(self, fs: GfsFileSystem) -> GfsFileSystem:
        return fs

    @pytest.fixture
    def fs_path(self, fs: GfsFileSystem) -> Iterator[str]:
        fs.mkdir("/suite")
        yield "/suite"
        fs.rm("/suite", recursive=True)


class TestCopy(abstract.AbstractCopyTests, _Fixtures):  # type: ignore[misc]
    pass


class TestGet(abstract.AbstractGetTests, _Fixtures):  # type: ignore[misc]
    pass


class TestOpen(abstract.AbstractOpenTests, _Fixtures):  # type: ignore[misc]
    pass


class TestPipe(abstract.AbstractPipeTests, _Fixtures):  # type: ignore[misc]
    pass


class TestPut(abstract.AbstractPutTests, _Fixtures):  # type: ignore[misc]
    pass
