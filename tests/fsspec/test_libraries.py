"""Libraries that read and write through fsspec, the examples of the page, and how fsspec finds us."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from fsspec.utils import get_protocol

from gfsclient.fsspec import GfsFileSystem
from tests.cluster.harness import Cluster
from tests.house.documentation import DOCS, ROOT

OUTPUT = {
    "fsspec.open": "Hello, fsspec!\n\n",
    "to_parquet": "6\n",
    "write_dataset": "[1.0, 2.0]\n",
    "zarr": "[997, 998, 999]\n",
    "asyncio.run": "b'45'\n",
}
"""What the example that holds these words prints."""


def test_the_entry_point_names_the_class() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fsspec.specs"]
    for protocol, target in points.items():
        module, _, name = target.partition(":")
        assert getattr(import_module(module), name).protocol == protocol == get_protocol("gfs:///x")
    assert points["gfs"] == "gfsclient.fsspec:GfsFileSystem"
    for installed in entry_points(group="fsspec.specs", name="gfs"):
        assert installed.load() is GfsFileSystem


@pytest.mark.cluster
@pytest.mark.slow
def test_a_table_comes_back_from_parquet_as_it_was(fs: GfsFileSystem, options: dict[str, Any]) -> None:
    table = pandas.DataFrame(
        {
            "number": numpy.arange(50_000),
            "text": [f"row {row}" for row in range(50_000)],
            "time": pandas.date_range("2026-01-01", periods=50_000, freq="s"),
        }
    )
    table.to_parquet("gfs:///tables/one.parquet", storage_options=options, row_group_size=5_000)
    back = pandas.read_parquet("gfs:///tables/one.parquet", storage_options=options)
    pandas.testing.assert_frame_equal(back, table)
    file = pyarrow.parquet.ParquetFile("/tables/one.parquet", filesystem=fs)
    assert file.read_row_group(7, columns=["number"])["number"].to_pylist() == list(range(35_000, 40_000))
    file.close()
    pyarrow.parquet.write_to_dataset(
        pyarrow.table({"year": [1, 1, 2], "value": [1, 2, 3]}), "/tables/parts", partition_cols=["year"], filesystem=fs
    )
    assert sorted(pyarrow.parquet.read_table("/tables/parts", filesystem=fs)["value"].to_pylist()) == [1, 2, 3]


@pytest.mark.cluster
@pytest.mark.slow
def test_an_array_comes_back_from_zarr_as_it_was(fs: GfsFileSystem) -> None:
    store = zarr.storage.FsspecStore.from_mapper(fs.get_mapper("/arrays"))
    group = zarr.open_group(store, mode="w")
    array = group.create_array("numbers", shape=(300, 200), chunks=(50, 60), dtype="f8")
    expected = numpy.random.default_rng(5).normal(size=(300, 200))
    array[:, :] = expected
    array[10:20, 30:40] = expected[10:20, 30:40] = 7
    again = zarr.open_group(store, mode="r")["numbers"]
    assert numpy.array_equal(again[:, :], expected)
    assert sorted(zarr.open_group(store, mode="r").array_keys()) == ["numbers"]
    store.fs.close()


@pytest.mark.cluster
@pytest.mark.slow
def test_the_examples_of_the_page_do_what_it_says(running_cluster: Cluster) -> None:
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "fsspec.md").read_text(), re.DOTALL)
    register = "from fsspec import register_implementation as r; r('gfs', 'gfsclient.fsspec.GfsFileSystem', True);"
    expected = ""
    for example in examples:
        (words,) = (words for words in OUTPUT if words in example)
        expected += OUTPUT[words]
    done = subprocess.run(
        [sys.executable, "-c", register + "\n".join(examples)],
        env={**os.environ, **running_cluster.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, ""), done.stderr
