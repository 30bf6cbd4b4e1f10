"""Benchmarks: ratios against a bare implementation of the same work, on the same machine, in the same run."""
