"""The file system for fsspec: ``gfs://`` for pandas, pyarrow, Zarr, dask and whatever else speaks it.

Needs the extra ``fsspec``; registered by the entry point ``fsspec.specs``.
"""

from gfsclient.fsspec.filesystem import GfsFileSystem

__all__ = ["GfsFileSystem"]
