"""Masters, log, chunk servers and clients in one process, on a virtual clock; see docs/simulation.md."""
