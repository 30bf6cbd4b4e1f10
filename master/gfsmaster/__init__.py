"""The metadata master: a pure state machine, its operation log, and the leader that serves requests."""
