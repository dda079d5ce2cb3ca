"""The client library: routing, metadata calls, chunk reads and writes, files over chunks."""
