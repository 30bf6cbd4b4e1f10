"""The operator's ``gfs``: starts, stops and watches a cluster on one host, and runs its single processes."""
