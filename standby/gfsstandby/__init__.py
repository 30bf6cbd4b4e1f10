"""A master node: a standby that follows the log, stands for election, and becomes the leader."""
