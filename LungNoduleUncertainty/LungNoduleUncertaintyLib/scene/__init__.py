"""The module's work on MRML nodes: read, run, store, list, undo."""
