"""The client library of the file system: an async API (:class:`FileSystem`) and a sync one (:mod:`gfsclient.sync`)."""
