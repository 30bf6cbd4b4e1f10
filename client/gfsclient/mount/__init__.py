"""The mount: a cluster's files as a directory of this machine, over FUSE.

:mod:`~gfsclient.mount.operations` and what it uses are the file system's logic and know nothing of FUSE;
:mod:`~gfsclient.mount.adapter` is the thin layer above, the only one that imports pyfuse3.
"""
