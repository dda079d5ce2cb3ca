"""The chunk store of one target: data in preallocated block files, metadata in RocksDB.

``ChunkStore`` (``store.py``) is the door; ``types.py`` has its values.
"""
