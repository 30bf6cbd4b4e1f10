"""The HTTP gateway: the file system for whoever speaks HTTP. A thin adapter over the client library, stateless."""
