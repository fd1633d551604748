"""The module's work on MRML nodes: sources, runs, results."""
