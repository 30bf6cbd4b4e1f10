"""The chunk server: stores replicas of chunks, replicates them along a chain, serves and verifies them."""
